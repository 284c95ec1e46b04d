"""Whatever dies of Prefect or of a run within it: the same command ends with the same output, and nothing leaks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from flows.storage.lease import read_holder
from flows.storage.state import StateDirectory
from tests.flows.command import ROOT, Called, batchwerk
from tests.flows.server import PrefectProcess, prefect
from tests.flows.undecorated import emulator_ledger, reviews, wait_until, write_job, write_texts

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.xdist_group("prefect kills")]

ROWS = 20
TAG = "tag:batchwerk:local"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectProcess]:
    process = PrefectProcess(tmp_path_factory.mktemp("prefect"))
    process.start()
    prefect("work-pool", "create", "batchwerk", "--type", "process", env=process.env)
    yield process
    process.kill()


@pytest.fixture
def running(server: PrefectProcess) -> PrefectProcess:
    """The server, started again if the last test ended it."""
    server.kill()
    server.start()
    return server


class Job:
    """A run of the command in a process group of its own."""

    def __init__(self, folder: Path, env: dict[str, str], **options: Any) -> None:
        self.output = folder / "out.parquet"
        self.env = env
        source, job = write_texts(folder, reviews(ROWS)), write_job(folder)
        self.folder = folder
        self.arguments: list[str | Path] = ["run", source, self.output, "--job", job, "--provider", "local"]
        self.arguments += ["--batch-size", "10"]
        for name, value in options.items():
            self.arguments += ["--option", f"{name}={value}"]
        self.process: subprocess.Popen[str] | None = None

    @property
    def journal(self) -> str:
        place = StateDirectory(self.output).journal
        return place.read_text() if place.exists() else ""

    def start(self) -> subprocess.Popen[str]:
        code = "from flows.cli import main; main()"
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, *map(str, self.arguments)],
                cwd=ROOT,
                env={**os.environ, **self.env, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        return self.process

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def until(self, word: str, count: int = 1) -> None:
        """Until so many events of a kind are in the journal."""
        wait_until(lambda: self.journal.count(f'"{word}"') >= count)

    def kill(self, number: int = signal.SIGKILL, *, group: bool = False) -> None:
        assert self.process is not None
        (os.killpg if group else os.kill)(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait()

    def again(self) -> Called:
        """The same command, to its end."""
        return batchwerk(*self.arguments, env=self.env)

    def check_paid_once(self) -> None:
        assert pq.read_table(self.output).column("_status").to_pylist() == ["ok"] * ROWS
        assert emulator_ledger(self.output, "SELECT count(*), count(DISTINCT prompt_hash) FROM billed") == [
            (ROWS, ROWS)
        ]


def taken(server: PrefectProcess, name: str = TAG) -> int:
    return int(
        httpx.get(f"{server.url}/v2/concurrency_limits/{name}", timeout=30).raise_for_status().json()["active_slots"]
    )


def held(folder: Path) -> Path:
    place = folder / "hold"
    place.touch()
    return place


def test_a_run_that_is_killed_while_it_sends_leaves_no_slot(running: PrefectProcess, tmp_path: Path) -> None:
    """Its lease runs out and the server frees it; the same command ends well at once."""
    hold = held(tmp_path)
    job = Job(tmp_path, running.env, hold_file=hold, latency=0)
    job.start()
    job.until("submitting")
    assert taken(running) >= 1
    job.kill()
    hold.unlink()
    assert job.again().status == 0
    job.check_paid_once()
    wait_until(lambda: taken(running) == 0)


def test_slots_that_a_dead_server_left_taken_are_freed_by_whoever_waits(
    running: PrefectProcess, tmp_path: Path
) -> None:
    """No lease is left of them: a run that finds all slots taken by nobody says so, frees them and goes on."""
    batchwerk("setup", env=running.env)
    body = {"names": [TAG], "slots": 4, "mode": "concurrency"}
    httpx.post(f"{running.url}/v2/concurrency_limits/increment", json=body, timeout=30).raise_for_status()
    assert taken(running) == 4
    job = Job(tmp_path, running.env, latency=0)
    called = job.again()
    assert called.status == 0, called.err
    assert "waiting for a slot of tag:batchwerk:local since" in called.err
    assert "4 of 4 taken; 4 of them by nobody that is alive" in called.err
    assert taken(running) == 0
    job.check_paid_once()


def test_run_and_server_killed_together_leak_nothing(running: PrefectProcess, tmp_path: Path) -> None:
    """As a power cut does; twice, which would take all four slots for ever."""
    job = None
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        hold = held(folder)
        job = Job(folder, running.env, hold_file=hold, latency=0)
        job.start()
        job.until("submitting", 2)
        running.kill()
        job.kill(group=True)
        hold.unlink()
        running.start()
    assert job is not None
    called = job.again()
    assert called.status == 0, called.err
    job.check_paid_once()
    wait_until(lambda: taken(running) == 0)


@pytest.mark.parametrize("seconds", [75, 600])
def test_a_server_that_is_away_for_minutes_stops_nothing(running: PrefectProcess, tmp_path: Path, seconds: int) -> None:
    """Batches go on being collected, what has to be sent waits and says for what; no traceback, no slot left."""
    job = Job(tmp_path, running.env, latency=5)
    job.arguments += ["--max-in-flight", "1"]  # the second batch is sent while the server is away
    process = job.start()
    job.until("submitted")
    running.kill()
    job.until("collected")
    time.sleep(seconds)
    assert process.poll() is None, job.log
    running.start()
    assert process.wait(120) == 0, job.log
    assert "waiting for Prefect's server since" in job.log
    assert "Traceback" not in job.log
    job.check_paid_once()
    wait_until(lambda: taken(running) == 0)
    (run,) = flow_runs(running, job.output)
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Completed")


def flow_runs(server: PrefectProcess, output: Path) -> list[dict[str, Any]]:
    body = {"flow_runs": {"name": {"any_": [str(output)]}}}
    found: list[dict[str, Any]] = httpx.post(f"{server.url}/flow_runs/filter", json=body, timeout=30).json()
    return found


def test_a_run_that_was_stopped_for_longer_than_its_lease_goes_on(running: PrefectProcess, tmp_path: Path) -> None:
    """A closed laptop: its slot went to others meanwhile, it takes another one, and nobody's is lost."""
    hold = held(tmp_path)
    job = Job(tmp_path, running.env, hold_file=hold, latency=0)
    process = job.start()
    job.until("submitting")
    job.kill(signal.SIGSTOP)
    time.sleep(80)
    hold.unlink()
    job.kill(signal.SIGCONT)
    assert process.wait(120) == 0, job.log
    assert "Traceback" not in job.log
    job.check_paid_once()
    wait_until(lambda: taken(running) == 0)


@pytest.mark.parametrize("name", ["Suspended", "Cancelling", "Crashed"])
def test_a_flow_run_that_somebody_ended_stops_and_stays_ended(
    running: PrefectProcess, tmp_path: Path, name: str
) -> None:
    """Within seconds it sends nothing more, publishes, and leaves its state as it was set; a cancelled one cancels."""
    job = Job(tmp_path, running.env, latency=600)
    process = job.start()
    job.until("submitted", 2)
    (run,) = flow_runs(running, job.output)
    kinds = {"Suspended": "PAUSED", "Cancelling": "CANCELLING", "Crashed": "CRASHED"}
    state = {"state": {"type": kinds[name], "name": name}, "force": True}
    httpx.post(f"{running.url}/flow_runs/{run['id']}/set_state", json=state, timeout=30).raise_for_status()
    assert process.wait(60) in {0, 4}, job.log
    assert "Traceback" not in job.log
    assert "published" in job.log
    (run,) = flow_runs(running, job.output)
    assert run["state_name"] == {"Cancelling": "Cancelled"}.get(name, name)
    cancelled = emulator_ledger(job.output, "SELECT DISTINCT status FROM batches") == [("cancelled",)]
    assert cancelled is (name == "Cancelling")


def worker(env: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "batchwerk", "--name", "doomed"]
    return subprocess.Popen(
        command, env={**os.environ, **env}, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("all_of_it", [False, True])
def test_a_worker_that_is_killed_leaves_nothing_that_cannot_go_on(
    running: PrefectProcess, tmp_path: Path, all_of_it: bool
) -> None:
    """Alone, its run goes on and ends; with all of its processes, the same parameters end with the same output."""
    prefect("--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml", env=running.env)
    hold = held(tmp_path)
    job = Job(tmp_path, running.env, hold_file=hold, latency=0)
    deployment = httpx.get(f"{running.url}/deployments/name/enrich/adhoc", timeout=30).json()["id"]
    parameters = {
        "input": str(job.arguments[1]), "output": str(job.output), "job": str(job.arguments[4]), "provider": "local",
        "batch_size": 10, "options": {"hold_file": str(hold), "latency": "0"},
    }  # fmt: skip
    made = httpx.post(f"{running.url}/deployments/{deployment}/create_flow_run", json={"parameters": parameters})
    process = worker(running.env)
    try:
        job.until("submitting")
        pid = holder_of(StateDirectory(job.output))
        os.kill(process.pid, signal.SIGKILL)
        if all_of_it:
            os.kill(pid, signal.SIGKILL)
        hold.unlink()
        made.raise_for_status()
        wait_until(lambda: not alive(pid))
        called = job.again()
    finally:
        kill_group(process.pid)
        process.wait()
    assert called.status == 0, called.err
    job.check_paid_once()
    wait_until(lambda: taken(running) == 0)


def holder_of(state: StateDirectory) -> int:
    """The process that holds the state directory."""
    return int(read_holder(state.lease)["pid"])


def alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()  # a zombie has ended
    except FileNotFoundError:
        return False


def kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
