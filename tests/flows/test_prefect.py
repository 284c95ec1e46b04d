"""The command, the flow and the deployments on a real Prefect server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from blocks.emulator import EmulatorOptions, running_emulator
from flows.storage.journal import read_events
from flows.storage.state import StateDirectory
from tests.flows.command import ROOT, batchwerk
from tests.flows.server import prefect
from tests.flows.undecorated import emulator_ledger, reviews, write_job, write_texts

pytestmark = [pytest.mark.prefect, pytest.mark.xdist_group("prefect")]

Env = dict[str, str]


@pytest.fixture(scope="module")
def env(shared_prefect: Env) -> Env:
    return shared_prefect


def flow_runs_of(env: Env, output: Path) -> list[dict[str, Any]]:
    """Flow runs are named after their output."""
    named = {"flow_runs": {"name": {"any_": [str(output)]}}}
    found: list[dict[str, Any]] = httpx.post(f"{env['PREFECT_API_URL']}/flow_runs/filter", json=named).json()
    return found


def change_limit(env: Env, name: str, **values: float) -> None:
    """As an operator does."""
    httpx.patch(f"{env['PREFECT_API_URL']}/v2/concurrency_limits/{name}", json=values).raise_for_status()


def limit(env: Env, name: str) -> dict[str, float]:
    answer = httpx.get(f"{env['PREFECT_API_URL']}/v2/concurrency_limits/{name}")
    found: dict[str, float] = answer.raise_for_status().json()
    return found


@dataclass(frozen=True)
class Finished:
    """A run of three batches that succeeded, and the command that it was."""

    command: list[str | Path]
    output: Path
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def finished(env: Env, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One for all tests that look at what a run leaves behind."""
    folder = tmp_path_factory.mktemp("finished")
    source, output, job = write_texts(folder, reviews(30)), folder / "finished.parquet", write_job(folder)
    command: list[str | Path] = ["run", source, output, "--job", job, "--provider", "local", "--batch-size", "10"]
    called = batchwerk(*command, "--json", env=env)
    assert called.status == 0, called.err
    assert "Traceback" not in called.err
    return Finished(command, output, json.loads(called.out.splitlines()[-1]))


def test_the_command_enriches_a_file_twice_and_pays_once(env: Env, finished: Finished) -> None:
    """`batchwerk run` ends with 0 and prints the summary; the second one sends nothing."""
    called = batchwerk(*finished.command, "--json", env=env)
    summary, again = finished.summary, json.loads(called.out.splitlines()[-1])
    assert called.status == 0, called.err
    assert (summary["rows"], summary["succeeded"], summary["batches"]) == (30, 30, 3)
    assert (again["attempts"], again["cost_usd"], again["reused"]) == (0, 0, 30)
    assert again["total_cost_usd"] == summary["total_cost_usd"] > 0
    assert "Traceback" not in called.err
    assert pq.read_table(finished.output).column("_status").to_pylist() == ["ok"] * 30


def test_status_and_report_show_a_finished_output(finished: Finished) -> None:
    """Both read the state directory and start nothing."""
    status, report = batchwerk("status", finished.output), batchwerk("report", finished.output)
    assert "rows       30 ok" in status.out
    assert "30 of 30 rows ok" in report.out
    assert "it is not a model" in report.out
    assert json.loads(batchwerk("status", finished.output, "--json").out)["complete"] is True
    assert json.loads(batchwerk("report", finished.output, "--json").out)["rows"] == 30
    assert not status.started_prefect
    assert not report.started_prefect


def test_the_report_is_an_artifact_of_the_flow_run(env: Env, finished: Finished) -> None:
    """Costs, report and progress, which ends at 100 %, appear in Prefect under keys of the output's name."""
    assert finished.output.stem == "finished"
    body = {"artifacts": {"key": {"like_": "%-finished"}}}
    found = httpx.post(f"{env['PREFECT_API_URL']}/artifacts/filter", json=body).raise_for_status().json()
    assert {(artifact["key"], artifact["type"]) for artifact in found} == {
        ("cost-finished", "table"),
        ("report-finished", "markdown"),
        ("progress-finished", "progress"),
    }
    assert {artifact["data"] for artifact in found if artifact["type"] == "progress"} == {100}
    assert all(artifact["flow_run_id"] for artifact in found)


def test_the_command_checks_its_input_once(env: Env, tmp_path: Path) -> None:
    """The flow in its process gets what the command has checked; reading every footer twice takes time."""
    source, job = write_texts(tmp_path, reviews(3)), write_job(tmp_path)
    arguments: list[str | Path] = ["run", source, tmp_path / "out.parquet", "--job", job, "--provider", "local"]
    called = batchwerk(*arguments, env=env, function="altered:counting_checks")
    assert called.status == 0, called.err
    assert called.err.endswith("checked 1 times")


def test_an_error_of_the_run_is_a_sentence_and_an_object(env: Env, tmp_path: Path) -> None:
    """A wrong key is found in the flow: exit status, standard error and JSON say it as for any other mistake."""
    source, output, job = write_texts(tmp_path, reviews(3)), tmp_path / "out.parquet", write_job(tmp_path)
    with running_emulator(EmulatorOptions(key="right", latency=0)) as emulator:
        options = ["--provider", "holysheep", "--base-url", emulator.base_url, "--json"]
        key = {"HOLYSHEEP_API_KEY": "wrong"}
        called = batchwerk("run", source, output, "--job", job, *options, env={**env, **key})
    answer = json.loads(called.out.splitlines()[-1])
    (run,) = flow_runs_of(env, output)
    assert run["state_type"] == "FAILED"
    assert called.status == answer["exit"] == 2, called.err
    assert f"batchwerk: {answer['error']}" in called.err
    assert "Traceback" not in called.err
    assert "ERROR" not in called.err, "Prefect says nothing of it besides"


def test_an_unexpected_error_of_the_flow_ends_the_command_with_status_1(env: Env, tmp_path: Path) -> None:
    """Prefect logs the traceback; the command says what to do next, in JSON too."""
    source, job = write_texts(tmp_path, reviews(3)), write_job(tmp_path)
    arguments: list[str | Path] = [
        "run",
        source,
        tmp_path / "out.parquet",
        "--job",
        job,
        "--provider",
        "local",
        "--json",
    ]
    called = batchwerk(*arguments, env=env, function="altered:with_a_bug")
    answer = json.loads(called.out.splitlines()[-1])
    assert called.status == answer["exit"] == 1, called.err
    assert "unexpected error" in answer["error"]
    assert "run the same command again to continue" in called.err


def test_failed_rows_end_with_status_3(env: Env, tmp_path: Path) -> None:
    """More failed rows than --max-failed allows are told by the exit status."""
    source, output = write_texts(tmp_path, reviews(4)), tmp_path / "out.parquet"
    options = ["--option", "refusal_rate=1", "--json"]
    called = batchwerk("run", source, output, "--job", write_job(tmp_path), "--provider", "local", *options, env=env)
    assert called.status == json.loads(called.out.splitlines()[-1])["exit"] == 3
    assert "4 of 4 rows failed" in called.err


def test_limits_are_created_once_and_an_operators_are_kept(env: Env, tmp_path: Path) -> None:
    """A run makes sure that both limits exist; one that an operator changed stays as it is."""
    source, job = write_texts(tmp_path, reviews(3)), write_job(tmp_path)
    assert batchwerk("setup", env=env).status == 0
    tag, rate = limit(env, "tag:batchwerk:local"), limit(env, "batchwerk:local")
    assert (tag["limit"], rate["limit"]) == (4, 100)
    assert rate["slot_decay_per_second"] == pytest.approx(100 / 60)
    change_limit(env, "batchwerk:local", limit=7)
    change_limit(env, "tag:batchwerk:local", limit=1)
    called = batchwerk("run", source, tmp_path / "o.parquet", "--job", job, "--provider", "local", env=env)
    assert called.status == 0, called.err
    assert (limit(env, "tag:batchwerk:local")["limit"], limit(env, "batchwerk:local")["limit"]) == (1, 7)
    change_limit(env, "batchwerk:local", limit=100)
    change_limit(env, "tag:batchwerk:local", limit=4)


def test_a_saved_block_is_a_provider(env: Env, tmp_path: Path) -> None:
    """The key and base URL come from the block; the key is nowhere in what the run wrote."""
    source, output = write_texts(tmp_path, reviews(3)), tmp_path / "out.parquet"
    with running_emulator(EmulatorOptions(key="planted-secret", latency=0)) as emulator:
        save = (
            "from blocks.credentials import HolySheepCredentials as C;"
            f"C(api_key='planted-secret', base_url={emulator.base_url!r}).save('prod', overwrite=True)"
        )
        subprocess.run([sys.executable, "-c", save], env={**os.environ, **env}, cwd=ROOT, check=True)
        provider = ["--provider", "holysheep-credentials/prod", "--poll-interval", "0.1"]
        called = batchwerk("run", source, output, "--job", write_job(tmp_path), *provider, env=env)
        unknown = batchwerk(
            "run",
            source,
            tmp_path / "x",
            "--job",
            write_job(tmp_path),
            "--provider",
            "holysheep-credentials/nope",
            env=env,
        )
    assert called.status == 0, called.err
    assert (unknown.status, "there is no saved block" in unknown.err) == (2, True)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"planted-secret" not in written
    assert "planted-secret" not in called.out + called.err


def test_the_module_itself_starts_the_flow(env: Env, tmp_path: Path) -> None:
    """`python -m flows.enrich` takes the flow's parameters as JSON."""
    source, output = write_texts(tmp_path, reviews(3)), tmp_path / "out.parquet"
    parameters = {"input": str(source), "output": str(output), "job": str(write_job(tmp_path)), "provider": "local"}
    command = [sys.executable, "-m", "flows.enrich", json.dumps(parameters)]
    done = subprocess.run(command, env={**os.environ, **env}, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert emulator_ledger(output, "SELECT count(*) FROM billed") == [(3,)]


@pytest.fixture(scope="module")
def deployed(env: Env) -> Env:
    """`prefect deploy --all` needs no prompt and no git."""
    prefect("--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml", env=env)
    return env


@pytest.fixture(scope="module")
def worker(deployed: Env) -> Iterator[Env]:
    """A worker that runs deployments."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "batchwerk", "--name", "test"]
    with subprocess.Popen(command, env={**os.environ, **deployed}, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        yield deployed
        process.kill()  # one that is asked to end may wait for runs that it has cancelled, for ever


def deployment(env: Env, name: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{env['PREFECT_API_URL']}/deployments/name/enrich/{name}").json()
    return found


def start_run(env: Env, parameters: dict[str, Any]) -> str:
    """The id of a new run of enrich/adhoc, as the form makes one."""
    url = f"{env['PREFECT_API_URL']}/deployments/{deployment(env, 'adhoc')['id']}/create_flow_run"
    made: dict[str, str] = httpx.post(url, json={"parameters": parameters}).raise_for_status().json()
    return made["id"]


def wait_for_state(env: Env, run: str, wanted: str) -> None:
    """Until the flow run is in this state."""
    wait_until(lambda: httpx.get(f"{env['PREFECT_API_URL']}/flow_runs/{run}").json()["state_type"] == wanted)


def test_the_nightly_deployment_has_a_schedule_that_is_off(deployed: Env) -> None:
    """It is turned on by whoever wants it."""
    ((schedule),) = deployment(deployed, "nightly")["schedules"]
    assert schedule["active"] is False
    assert schedule["schedule"] == {"cron": "0 2 * * *", "timezone": "Europe/Berlin", "day_or": True}


def test_a_deployment_is_run_by_a_worker_and_its_result_can_be_read(worker: Env, tmp_path: Path) -> None:
    """A worker runs enrich/adhoc to its end, logs included."""
    source, output = write_texts(tmp_path, reviews(5)), tmp_path / "out.parquet"
    run = start_run(worker, {"input": str(source), "output": str(output), "job": str(write_job(tmp_path))})
    wait_for_state(worker, run, "COMPLETED")
    assert pq.read_table(output).column("_status").to_pylist() == ["ok"] * 5
    logs = httpx.post(f"{worker['PREFECT_API_URL']}/logs/filter", json={"logs": {"flow_run_id": {"any_": [run]}}})
    assert any("planned 5 rows" in line["message"] for line in logs.raise_for_status().json())


@pytest.mark.slow
@pytest.mark.parametrize("event", ["frozen", "submitting", "submitted", "ended", "collected", "published"])
def test_the_command_killed_at_each_class_of_event_goes_on(env: Env, tmp_path: Path, event: str) -> None:
    """`batchwerk run` itself, killed with SIGKILL right after it wrote the event down, then called again."""
    number = ["frozen", "submitting", "submitted", "ended", "collected", "published"].index(event) + 1
    source, output = write_texts(tmp_path, reviews(8)), tmp_path / "out.parquet"
    arguments: list[str | Path] = ["run", source, output, "--job", write_job(tmp_path), "--provider", "local"]
    command = [sys.executable, "-m", "tests.flows.killed", f"after:{number}", *map(str, arguments)]
    killed = subprocess.run(command, env={**os.environ, **env}, cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [e.event for e in read_events(StateDirectory(output).journal)][-1] == event
    called = batchwerk(*arguments, env=env)
    assert called.status == 0, called.err
    assert pq.read_table(output).column("_status").to_pylist() == ["ok"] * 8
    assert emulator_ledger(output, "SELECT count(*), count(DISTINCT prompt_hash) FROM billed") == [(8, 8)]


def test_a_run_that_lets_go_is_completed_as_waiting_and_harvested_later(env: Env, tmp_path: Path) -> None:
    """Exit status 4 and a completed state named Waiting; a harvest, which is told the output alone, collects."""
    source, output = write_texts(tmp_path, reviews(5)), tmp_path / "waiting.parquet"
    options: list[str | Path] = [
        "--job",
        write_job(tmp_path),
        "--provider",
        "local",
        "--option",
        "latency=3",
        "--wait",
        "0",
    ]
    first = batchwerk("run", source, output, *options, env=env)
    assert first.status == 4, first.err
    assert "stopped waiting" in first.err
    (run,) = flow_runs_of(env, output)
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Waiting")
    time.sleep(3)
    with StateDirectory(output).locked():
        busy = batchwerk("harvest", output, env=env)
    assert busy.status == 0, busy.err
    assert f"nothing to do here: {output} is being worked on by process" in busy.out
    assert batchwerk("harvest", output, env=env).status == 0
    assert pq.read_table(output).column("_status").to_pylist() == ["ok"] * 5


def test_cancelling_the_flow_run_cancels_at_the_provider(worker: Env, tmp_path: Path) -> None:
    """The hook asks the provider to stop, collects what was finished, and publishes."""
    source, output = write_texts(tmp_path, reviews(20)), tmp_path / "cancelled.parquet"
    parameters = {"input": str(source), "output": str(output), "job": str(write_job(tmp_path))}
    run = start_run(worker, {**parameters, "options": {"latency": "600"}})
    journal = StateDirectory(output).journal
    wait_until(lambda: journal.exists() and '"submitted"' in journal.read_text())
    state = {"state": {"type": "CANCELLING"}, "force": False}
    httpx.post(f"{worker['PREFECT_API_URL']}/flow_runs/{run}/set_state", json=state).raise_for_status()
    wait_until(lambda: '"collected"' in journal.read_text() and output.exists())
    wait_for_state(worker, run, "CANCELLED")
    assert emulator_ledger(output, "SELECT status FROM batches") == [("cancelled",)]
    assert set(pq.read_table(output).column("_status").to_pylist()) == {"pending"}


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll for two minutes: Prefect takes about thirty seconds to cancel."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "did not happen within two minutes"
        time.sleep(0.3)


def test_parameters_that_break_the_schema_are_refused_when_the_run_is_made(deployed: Env) -> None:
    """The form's types are enforced by the server."""
    url = f"{deployed['PREFECT_API_URL']}/deployments/{deployment(deployed, 'adhoc')['id']}/create_flow_run"
    answer = httpx.post(url, json={"parameters": {"max_in_flight": "many"}})
    assert answer.status_code == 409
    assert "max_in_flight" in answer.text


def test_many_batches_that_end_at_once_are_all_collected(env: Env, tmp_path: Path) -> None:
    """Prefect looks into what a task is given; a run that other threads change meanwhile is nothing to look into."""
    source, output = write_texts(tmp_path, reviews(160)), tmp_path / "out.parquet"
    batchwerk("setup", env=env)
    change_limit(env, "batchwerk:local", limit=1000, slot_decay_per_second=1000)
    options = ["--batch-size", "5", "--max-in-flight", "200", "--option", "latency=0"]
    job = str(write_job(tmp_path))
    called = batchwerk("run", str(source), str(output), "--job", job, "--provider", "local", *options, env=env)
    assert called.status == 0, called.err
    assert set(pq.read_table(output).column("_status").to_pylist()) == {"ok"}


def test_no_more_permits_are_asked_for_than_an_operators_limit_has(env: Env, tmp_path: Path) -> None:
    """Prefect refuses such a call instead of waiting."""
    source, output = write_texts(tmp_path, reviews(20)), tmp_path / "out.parquet"
    batchwerk("setup", env=env)
    change_limit(env, "batchwerk:local", limit=2, slot_decay_per_second=20)
    options = ["--batch-size", "4", "--option", "latency=0"]
    job = str(write_job(tmp_path))
    called = batchwerk("run", str(source), str(output), "--job", job, "--provider", "local", *options, env=env)
    assert called.status == 0, called.err


def test_all_that_share_a_server_run_in_one_process(request: pytest.FixtureRequest) -> None:
    """A version of pytest-xdist that passes over groups would start a server in each of its processes."""
    assert "PYTEST_XDIST_WORKER" not in os.environ or request.node.nodeid.endswith("@prefect")
