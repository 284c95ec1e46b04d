"""Cancel, suspend, resume and retry as the UI asks for them: one process at a time, and states that hold."""

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
import orjson
import pyarrow.parquet as pq
import pytest

from flows.storage.lease import read_holder
from flows.storage.state import StateDirectory
from tests.flows.command import ROOT
from tests.flows.server import PrefectProcess, prefect
from tests.flows.undecorated import emulator_ledger, reviews, wait_until, write_job, write_texts

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.xdist_group("prefect ui")]

ROWS = 20
RETRY = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
SUSPEND = {"type": "PAUSED", "name": "Suspended", "state_details": {"pause_reschedule": True}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectProcess]:
    """A server, with a worker that looks for runs all the time."""
    process = PrefectProcess(tmp_path_factory.mktemp("prefect"))
    process.start()
    prefect("work-pool", "create", "batchwerk", "--type", "process", env=process.env)
    prefect("--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml", env=process.env)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "batchwerk", "--name", "ui"]
    log = (tmp_path_factory.mktemp("worker") / "log").open("w")
    env = {**os.environ, **process.env, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    worker = subprocess.Popen(command, env=env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    yield process
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    log.close()
    process.kill()


class FlowRun:
    """A flow run of enrich/adhoc, made and changed by the calls that the UI makes."""

    def __init__(self, server: PrefectProcess, folder: Path, **options: Any) -> None:
        self._url = server.url
        self.output = folder / "out.parquet"
        source = folder / "input.parquet"
        parameters = {
            "input": str(source if source.exists() else write_texts(folder, reviews(ROWS))),
            "output": str(self.output),
            "job": str(write_job(folder)),
            "provider": "local",
            "batch_size": 10,
            "options": {name: str(value) for name, value in options.items()},
        }
        deployment = self._get("/deployments/name/enrich/adhoc")["id"]
        self.id = self._post(f"/deployments/{deployment}/create_flow_run", {"parameters": parameters})["id"]

    def _get(self, path: str) -> Any:
        return self._ask("GET", path)

    def _post(self, path: str, body: Any) -> Any:
        return self._ask("POST", path, json=body)

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        """SQLite refuses a write beside another one: the server answers 503 then."""
        while True:
            answer = httpx.request(method, f"{self._url}{path}", timeout=30, **more)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return answer.raise_for_status().json()
            time.sleep(0.2)

    @property
    def now(self) -> dict[str, Any]:
        found: dict[str, Any] = self._get(f"/flow_runs/{self.id}")
        return found

    @property
    def state(self) -> str:
        return str(self.now["state_name"])

    def set_state(self, state: dict[str, Any], *, force: bool = False) -> None:
        answer = self._post(f"/flow_runs/{self.id}/set_state", {"state": state, "force": force})
        assert answer["status"] == "ACCEPT", answer

    def resume(self) -> None:
        assert self._post(f"/flow_runs/{self.id}/resume", {})["status"] == "ACCEPT"

    @property
    def logs(self) -> str:
        found = self._post("/logs/filter", {"logs": {"flow_run_id": {"any_": [self.id]}}, "sort": "TIMESTAMP_ASC"})
        return "\n".join(line["message"] for line in found)

    @property
    def report(self) -> str:
        """The last one that the UI shows of this flow run."""
        kinds = {"flow_run_id": {"any_": [self.id]}, "type": {"any_": ["markdown"]}}
        found = self._post("/artifacts/filter", {"artifacts": kinds, "sort": "UPDATED_DESC"})
        return str(found[0]["data"])

    @property
    def journal(self) -> str:
        place = StateDirectory(self.output).journal
        return place.read_text() if place.exists() else ""

    def until(self, word: str, count: int = 1) -> None:
        wait_until(lambda: self.journal.count(f'"{word}"') >= count)

    @property
    def worker(self) -> int | None:
        """The process that holds the output; None if nobody does."""
        pid = read_holder(StateDirectory(self.output).lease).get("pid")
        return None if pid is None else int(pid)

    def check_paid_once(self) -> None:
        assert pq.read_table(self.output).column("_status").to_pylist() == ["ok"] * ROWS, self.logs
        sql = "SELECT count(*), count(DISTINCT prompt_hash) FROM billed"
        assert emulator_ledger(self.output, sql) == [(ROWS, ROWS)]
        assert "Traceback" not in self.logs


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """While this file is there, creates are accepted but not answered."""
    place = tmp_path / "hold"
    place.touch()
    return place


def test_a_suspended_run_is_resumed_by_another_process(server: PrefectProcess, tmp_path: Path) -> None:
    """The first one has left the output as it should; the second one collects."""
    run = FlowRun(server, tmp_path, latency=20)
    run.until("submitted", 2)
    first = run.worker
    run.set_state(SUSPEND)
    wait_until(lambda: run.worker is None)
    assert run.state == "Suspended"
    run.resume()
    wait_until(lambda: run.worker not in {None, first})
    wait_until(lambda: run.now["state_type"] == "COMPLETED")
    assert run.state == "Completed"
    run.check_paid_once()


@pytest.mark.parametrize("how", ["resume", "retry"])
def test_a_run_that_is_started_again_at_once_is_handed_over(
    server: PrefectProcess, tmp_path: Path, hold: Path, how: str
) -> None:
    """The first process still works: the second one waits for it, and the first one's end is not the flow run's."""
    run = FlowRun(server, tmp_path, latency=2, hold_file=hold)
    run.until("submitting")
    first = run.worker
    run.set_state(SUSPEND if how == "resume" else {"type": "CRASHED", "name": "Crashed"}, force=how != "resume")
    run.resume() if how == "resume" else run.set_state(RETRY)
    wait_until(lambda: "waiting for the process in which this flow run was started before" in run.logs)
    assert run.worker == first
    hold.unlink()
    wait_until(lambda: run.worker not in {None, first} or run.now["state_type"] in {"COMPLETED", "FAILED"})
    assert run.state == "Running", run.logs
    wait_until(lambda: run.now["state_type"] == "COMPLETED")
    wait_until(lambda: run.worker is None)
    assert run.state == "Completed", run.logs
    run.check_paid_once()


@pytest.mark.parametrize("name", ["Failed", "Completed"])
def test_a_run_that_ended_is_retried(server: PrefectProcess, tmp_path: Path, name: str) -> None:
    """Retry collects what was left behind, and pays for nothing twice."""
    run = FlowRun(server, tmp_path, latency=5)
    run.until("submitted", 2)
    if name == "Failed":
        run.set_state({"type": "FAILED", "name": "Failed"}, force=True)
        wait_until(lambda: run.worker is None)
    wait_until(lambda: run.state == name)
    run.set_state(RETRY)
    wait_until(lambda: run.now["run_count"] == 2)
    wait_until(lambda: run.now["state_type"] == "COMPLETED")
    run.check_paid_once()


def check_told(run: FlowRun) -> None:
    """The UI's report has the rows and the costs of what was finished before the run was cancelled."""
    state, kept = StateDirectory(run.output), pq.read_table(run.output).column("_status").to_pylist().count("ok")
    told = orjson.loads(state.report("json").read_bytes())
    ((billed,),) = emulator_ledger(run.output, "SELECT count(*) FROM billed")
    assert (told["rows"], told["succeeded"]) == (ROWS, kept) == (ROWS, billed)
    assert (told["emulated_usd"] > 0) == (billed > 0)
    assert run.report == state.report("md").read_text()


def test_a_run_that_is_cancelled_and_retried_sends_the_rest(server: PrefectProcess, tmp_path: Path) -> None:
    """Cancelled at the provider, and cancelled for the UI only when nobody works any more."""
    run = FlowRun(server, tmp_path, latency=30)
    run.until("submitted", 2)
    run.set_state({"type": "CANCELLING", "name": "Cancelling"})
    wait_until(lambda: run.state == "Cancelled")
    wait_until(lambda: run.worker is None)
    assert emulator_ledger(run.output, "SELECT DISTINCT status FROM batches") == [("cancelled",)]
    check_told(run)
    run.set_state(RETRY)
    wait_until(lambda: run.now["state_type"] == "COMPLETED")
    assert pq.read_table(run.output).column("_status").to_pylist() == ["ok"] * ROWS, run.logs
    sql = "SELECT count(*), count(DISTINCT prompt_hash) FROM billed"
    ((billed, distinct),) = emulator_ledger(run.output, sql)
    assert billed == distinct == ROWS


def test_a_second_run_of_an_output_that_is_worked_on_fails_with_a_sentence(
    server: PrefectProcess, tmp_path: Path, hold: Path
) -> None:
    """It is another flow run: nothing is handed over, and the first one goes on."""
    first = FlowRun(server, tmp_path, latency=0, hold_file=hold)
    first.until("submitting")
    second = FlowRun(server, tmp_path, latency=0, hold_file=hold)
    wait_until(lambda: second.now["state_type"] == "FAILED")
    assert "is being worked on by process" in second.now["state"]["message"]
    hold.unlink()
    wait_until(lambda: first.now["state_type"] == "COMPLETED")
    first.check_paid_once()
