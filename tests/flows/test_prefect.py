"""The command, the flow and the deployments on a real Prefect server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

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


def limit(env: Env, name: str) -> dict[str, float]:
    answer = httpx.get(f"{env['PREFECT_API_URL']}/v2/concurrency_limits/{name}")
    found: dict[str, float] = answer.raise_for_status().json()
    return found


def test_the_command_enriches_a_file_twice_and_pays_once(env: Env, tmp_path: Path) -> None:
    """`batchwerk run` ends with 0 and prints the summary; the second one sends nothing."""
    source, output, job = write_texts(tmp_path, reviews(30)), tmp_path / "out.parquet", write_job(tmp_path)
    options: list[str | Path] = ["--job", job, "--provider", "local", "--batch-size", "10", "--json"]
    first, second = (batchwerk("run", source, output, *options, env=env) for _ in range(2))
    summary, again = (json.loads(called.out.splitlines()[-1]) for called in (first, second))
    assert first.status == second.status == 0, first.err + second.err
    assert (summary["rows"], summary["succeeded"], summary["batches"]) == (30, 30, 3)
    assert (again["attempts"], again["cost_usd"], again["reused"]) == (0, 0, 30)
    assert again["total_cost_usd"] == summary["total_cost_usd"] > 0
    assert "Traceback" not in first.err + second.err
    assert pq.read_table(output).column("_status").to_pylist() == ["ok"] * 30


COUNTING = """
import atexit, sys
import flows.preflight
calls, check = [], flows.preflight.check
flows.preflight.check = lambda settings: (calls.append(settings), check(settings))[1]
atexit.register(lambda: sys.stderr.write(f"checked {len(calls)} times"))
from flows.cli import main
main()
"""


def test_the_command_checks_its_input_once(env: Env, tmp_path: Path) -> None:
    """The flow in its process gets what the command has checked; reading every footer twice takes time."""
    source, job = write_texts(tmp_path, reviews(3)), write_job(tmp_path)
    arguments = ["run", source, tmp_path / "out.parquet", "--job", job, "--provider", "local"]
    command = [sys.executable, "-c", COUNTING, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **env}, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("checked 1 times")


def test_an_error_of_the_run_is_a_sentence_and_an_object(env: Env, tmp_path: Path) -> None:
    """A wrong key is found in the flow: exit status, standard error and JSON say it as for any other mistake."""
    source, output, job = write_texts(tmp_path, reviews(3)), tmp_path / "out.parquet", write_job(tmp_path)
    with running_emulator(EmulatorOptions(key="right", latency=0)) as emulator:
        options = ["--provider", "holysheep", "--base-url", emulator.base_url, "--json"]
        key = {"HOLYSHEEP_API_KEY": "wrong"}
        called = batchwerk("run", source, output, "--job", job, *options, env={**env, **key})
    answer = json.loads(called.out.splitlines()[-1])
    assert called.started_prefect
    assert called.status == answer["exit"] == 2, called.err
    assert f"batchwerk: {answer['error']}" in called.err
    assert "Traceback" not in called.err


FAILING = """
import flows.pipeline
def fail(*_):
    raise ZeroDivisionError("a bug")
flows.pipeline.run_pipeline = fail
from flows.cli import main
main()
"""


def test_an_unexpected_error_of_the_flow_ends_the_command_with_status_1(env: Env, tmp_path: Path) -> None:
    """Prefect logs the traceback; the command says what to do next, in JSON too."""
    source, job = write_texts(tmp_path, reviews(3)), write_job(tmp_path)
    arguments = ["run", source, tmp_path / "out.parquet", "--job", job, "--provider", "local", "--json"]
    command = [sys.executable, "-c", FAILING, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **env}, cwd=ROOT, capture_output=True, text=True, check=False)
    answer = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == answer["exit"] == 1, done.stderr
    assert "unexpected error" in answer["error"]
    assert "run the same command again to continue" in done.stderr


def test_status_and_report_show_a_finished_output(env: Env, tmp_path: Path) -> None:
    """Both read the state directory and start nothing."""
    source, output = write_texts(tmp_path, reviews(4)), tmp_path / "out.parquet"
    batchwerk("run", source, output, "--job", write_job(tmp_path), "--provider", "local", env=env)
    status, report = batchwerk("status", output), batchwerk("report", output)
    assert "rows       4 ok" in status.out
    assert "4 of 4 rows ok" in report.out
    assert "it is not a model" in report.out
    assert json.loads(batchwerk("status", output, "--json").out)["complete"] is True
    assert json.loads(batchwerk("report", output, "--json").out)["rows"] == 4
    assert not status.started_prefect
    assert not report.started_prefect


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
    prefect("gcl", "update", "batchwerk:local", "--limit", "7", env=env)
    prefect("gcl", "update", "tag:batchwerk:local", "--limit", "1", env=env)
    called = batchwerk("run", source, tmp_path / "o.parquet", "--job", job, "--provider", "local", env=env)
    assert called.status == 0, called.err
    assert (limit(env, "tag:batchwerk:local")["limit"], limit(env, "batchwerk:local")["limit"]) == (1, 7)


def test_the_report_is_an_artifact_of_the_flow_run(env: Env, tmp_path: Path) -> None:
    """The cost table and the report appear in Prefect, under keys of the output's name."""
    source, output = write_texts(tmp_path, reviews(3)), tmp_path / "artifact_test.parquet"
    batchwerk("run", source, output, "--job", write_job(tmp_path), "--provider", "local", env=env)
    body = {"artifacts": {"key": {"like_": "%artifact-test"}}}
    found = httpx.post(f"{env['PREFECT_API_URL']}/artifacts/filter", json=body).raise_for_status().json()
    assert {(artifact["key"], artifact["type"]) for artifact in found} == {
        ("cost-artifact-test", "table"),
        ("report-artifact-test", "markdown"),
    }
    assert all(artifact["flow_run_id"] for artifact in found)


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


def test_a_deployment_is_run_by_a_worker_and_its_result_can_be_read(env: Env, tmp_path: Path) -> None:
    """`prefect deploy --all` needs no prompt and no git; a worker runs enrich/adhoc to its end, logs included."""
    prefect("--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml", env=env)
    nightly = httpx.get(f"{env['PREFECT_API_URL']}/deployments/name/enrich/nightly").raise_for_status().json()
    ((schedule),) = nightly["schedules"]
    assert schedule["active"] is False
    assert schedule["schedule"] == {"cron": "0 2 * * *", "timezone": "Europe/Berlin", "day_or": True}
    source, output = write_texts(tmp_path, reviews(5)), tmp_path / "out.parquet"
    parameters = {"input": source, "output": output, "job": write_job(tmp_path)}
    given = [part for name, value in parameters.items() for part in ("-p", f"{name}={value}")]
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "batchwerk", "--name", "test"]
    with subprocess.Popen(worker, env={**os.environ, **env}, cwd=ROOT, stderr=subprocess.PIPE) as process:
        try:
            prefect("deployment", "run", "enrich/adhoc", "--watch", *given, env=env)
        finally:
            process.terminate()
    assert pq.read_table(output).column("_status").to_pylist() == ["ok"] * 5
    runs = httpx.post(
        f"{env['PREFECT_API_URL']}/flow_runs/filter", json={"flow_runs": {"name": {"any_": [str(output)]}}}
    )
    ((run),) = runs.raise_for_status().json()
    assert run["state_type"] == "COMPLETED"
    logs = httpx.post(f"{env['PREFECT_API_URL']}/logs/filter", json={"logs": {"flow_run_id": {"any_": [run["id"]]}}})
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
    named = {"flow_runs": {"name": {"any_": [str(output)]}}}
    ((run),) = httpx.post(f"{env['PREFECT_API_URL']}/flow_runs/filter", json=named).raise_for_status().json()
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Waiting")
    time.sleep(3)
    with StateDirectory(output).locked():
        busy = batchwerk("harvest", output, env=env)
    assert busy.status == 0, busy.err
    assert f"nothing to do here: {output} is being worked on by process" in busy.out
    assert batchwerk("harvest", output, env=env).status == 0
    assert pq.read_table(output).column("_status").to_pylist() == ["ok"] * 5


def test_cancelling_the_flow_run_cancels_at_the_provider(env: Env, tmp_path: Path) -> None:
    """The hook asks the provider to stop, collects what was finished, and publishes."""
    prefect("--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml", env=env)
    source, output = write_texts(tmp_path, reviews(20)), tmp_path / "cancelled.parquet"
    found = httpx.get(f"{env['PREFECT_API_URL']}/deployments/name/enrich/adhoc").raise_for_status().json()
    parameters = {
        "input": str(source),
        "output": str(output),
        "job": str(write_job(tmp_path)),
        "options": {"latency": "600"},
    }
    url = env["PREFECT_API_URL"]
    made = httpx.post(f"{url}/deployments/{found['id']}/create_flow_run", json={"parameters": parameters})
    run = made.raise_for_status().json()["id"]
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "batchwerk", "--name", "canceller"]
    with subprocess.Popen(worker, env={**os.environ, **env}, cwd=ROOT, stderr=subprocess.PIPE) as process:
        try:
            journal = StateDirectory(output).journal
            wait_until(lambda: journal.exists() and '"submitted"' in journal.read_text())
            state = {"state": {"type": "CANCELLING"}, "force": False}
            httpx.post(f"{url}/flow_runs/{run}/set_state", json=state).raise_for_status()
            wait_until(lambda: '"collected"' in journal.read_text() and output.exists())
            wait_until(lambda: httpx.get(f"{url}/flow_runs/{run}").json()["state_type"] == "CANCELLED")
        finally:
            process.terminate()
    assert emulator_ledger(output, "SELECT status FROM batches") == [("cancelled",)]
    assert set(pq.read_table(output).column("_status").to_pylist()) == {"pending"}


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll for two minutes: Prefect takes about thirty seconds to cancel."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "did not happen within two minutes"
        time.sleep(0.3)


def test_parameters_that_break_the_schema_are_refused_when_the_run_is_made(env: Env) -> None:
    """The form's types are enforced by the server."""
    found = httpx.get(f"{env['PREFECT_API_URL']}/deployments/name/enrich/adhoc")
    if found.status_code == 404:
        prefect("--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml", env=env)
        found = httpx.get(f"{env['PREFECT_API_URL']}/deployments/name/enrich/adhoc")
    url = f"{env['PREFECT_API_URL']}/deployments/{found.json()['id']}/create_flow_run"
    answer = httpx.post(url, json={"parameters": {"max_in_flight": "many"}})
    assert answer.status_code == 409
    assert "max_in_flight" in answer.text


def test_many_batches_that_end_at_once_are_all_collected(env: Env, tmp_path: Path) -> None:
    """Prefect looks into what a task is given; a run that other threads change meanwhile is nothing to look into."""
    source, output = write_texts(tmp_path, reviews(640)), tmp_path / "out.parquet"
    batchwerk("setup", env=env)
    place = f"{env['PREFECT_API_URL']}/v2/concurrency_limits/batchwerk:local"
    httpx.patch(place, json={"limit": 1000, "slot_decay_per_second": 1000}).raise_for_status()
    options = ["--batch-size", "5", "--max-in-flight", "200", "--option", "latency=0"]
    job = str(write_job(tmp_path))
    called = batchwerk("run", str(source), str(output), "--job", job, "--provider", "local", *options, env=env)
    assert called.status == 0, called.err
    assert set(pq.read_table(output).column("_status").to_pylist()) == {"ok"}


def test_no_more_permits_are_asked_for_than_an_operators_limit_has(env: Env, tmp_path: Path) -> None:
    """Prefect refuses such a call instead of waiting."""
    source, output = write_texts(tmp_path, reviews(64)), tmp_path / "out.parquet"
    batchwerk("setup", env=env)
    place = f"{env['PREFECT_API_URL']}/v2/concurrency_limits/batchwerk:local"
    httpx.patch(place, json={"limit": 2, "slot_decay_per_second": 20}).raise_for_status()
    options = ["--batch-size", "4", "--option", "latency=0"]
    job = str(write_job(tmp_path))
    called = batchwerk("run", str(source), str(output), "--job", job, "--provider", "local", *options, env=env)
    assert called.status == 0, called.err
