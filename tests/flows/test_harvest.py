"""Harvesting: what the last run left with its provider is collected under that run's own settings, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from blocks.emulator import EmulatorOptions, running_emulator
from blocks.errors import Busy, StateError, UsageError
from flows.enrich import harvest_flow
from flows.report.verdict import Exit
from flows.storage.state import StateDirectory
from tests.flows.command import ROOT
from tests.flows.undecorated import JOB, cancel, emulator_ledger, enrich, harvest, reviews, write_job, write_texts

REQUESTS = "SELECT count(*) FROM requests"
PATIENCE = 60.0  # seconds that a harvest waits in tests for what takes less than one


@pytest.fixture
def left(tmp_path: Path) -> dict[str, Any]:
    """The parameters of a run that sent 12 requests and did not wait."""
    return call(tmp_path, wait=0, options={"latency": "0.5", "failure_rate": "0.3", "seed": "3"})


def call(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "input": write_texts(folder, reviews(12)),
        "output": folder / "out.parquet",
        "job": write_job(folder),
        "poll_interval": 0.05,
        **more,
    }


def test_what_was_left_is_collected_and_what_failed_is_repeated(left: dict[str, Any]) -> None:
    """Whatever became of the job file: what the last run asked is what counts."""
    assert enrich(**left).rows == {"pending": 12}
    left["job"].unlink()
    settings = StateDirectory(left["output"]).last_settings()
    figures = harvest(left["output"], PATIENCE)
    assert (figures.rows, figures.exit) == ({"ok": 12}, Exit.DONE)
    assert figures.attempts == figures.outcomes["failed"] > 0
    assert StateDirectory(left["output"]).last_settings() == settings


def test_a_finished_output_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paid answers stay, nothing is sent, however the job file and the input have changed since."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    state = tmp_path / "service.sqlite"
    with running_emulator(EmulatorOptions(dialect="openai", latency=0, state=state)) as service:
        parameters = call(tmp_path, provider="openai", base_url=service.base_url)
        paid = enrich(**parameters)
        before = parameters["output"].read_bytes()
        write_job(tmp_path, JOB.replace("Review:", "Another question:"))
        first = harvest(parameters["output"])
        write_texts(tmp_path, reviews(400))
        second = harvest(parameters["output"])
    assert (first.attempts, first.rows, first.exit) == (0, {"ok": 12}, Exit.DONE)
    assert (second.attempts, second.rows, second.exit) == (0, {"ok": 12}, Exit.WAITING)
    assert first.money.total == second.money.total == paid.money.total
    assert parameters["output"].read_bytes() == before


def test_new_rows_are_not_planned(left: dict[str, Any], tmp_path: Path) -> None:
    """What was sent is collected; the output waits for a run, which sends the new rows alone."""
    enrich(**left)
    write_texts(tmp_path, [*reviews(12), "one more"])
    figures = harvest(left["output"], PATIENCE)
    assert (figures.rows, figures.exit) == ({"pending": 12}, Exit.WAITING)
    assert "the input has changed since the last run" in figures.message
    assert figures.outcomes["ok"] == 12
    assert len(pq.read_table(left["output"])) == 12
    last = enrich(**{**left, "wait": None})
    assert last.rows == {"ok": 13}
    assert last.outcomes["ok"] == 13


def test_what_was_never_sent_is_not_sent(tmp_path: Path) -> None:
    """The run was stopped before that: only another one goes on spending."""
    parameters = call(tmp_path, wait=0, batch_size=4, max_in_flight=1, options={"latency": "0.3"})
    enrich(**parameters)
    figures = harvest(parameters["output"], PATIENCE)
    assert (figures.rows, figures.attempts, figures.exit) == ({"ok": 4, "pending": 8}, 0, Exit.WAITING)
    assert figures.message == "the rest was never sent; only a run of the output sends it, not a harvest"
    assert emulator_ledger(parameters["output"], REQUESTS) == [(4,)]


def test_after_a_cancellation_nothing_is_repeated(left: dict[str, Any]) -> None:
    """A run is the word that asks again."""
    enrich(**{**left, "options": {"latency": "600"}})
    cancel(left["output"])
    assert harvest(left["output"]).rows == {"pending": 12}
    assert emulator_ledger(left["output"], REQUESTS) == [(12,)]
    assert enrich(**{**left, "wait": None, "options": {"latency": "0"}}).rows == {"ok": 12}


def test_an_output_that_is_being_worked_on_is_no_failure(left: dict[str, Any]) -> None:
    """Whoever holds it collects: the flow is completed and says so."""
    enrich(**left)
    with StateDirectory(left["output"]).locked(), pytest.raises(Busy):
        harvest(left["output"])

    def busy(_: Path, __: float) -> Any:
        raise Busy("out.parquet is being worked on by process 7")

    state = harvest_flow(busy).fn("out.parquet")
    assert state.is_completed()
    assert (state.name, state.message) == ("Busy", "nothing to do here: out.parquet is being worked on by process 7")


def test_other_errors_are_failures() -> None:
    """Absence never looks like success."""

    def broken(_: Path, __: float) -> Any:
        raise StateError("the journal is damaged")

    assert harvest_flow(broken).fn("out.parquet").is_failed()


def test_an_output_that_nobody_began_has_nothing_to_harvest(tmp_path: Path) -> None:
    """The error says which name it wants."""
    with pytest.raises(UsageError, match="was not written by Batchwerk"):
        harvest(tmp_path / "other.parquet")


def test_the_deployment_names_an_output_and_nothing_else() -> None:
    """A job or a provider of its own is what turned a paid table into another one."""
    text = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
    (deployment,) = [part for part in text.split("  - <<: *defaults\n") if "flows.enrich.harvest" in part]
    assert deployment.partition("parameters:\n")[2].split("#")[0].strip() == "output: out/adhoc.parquet"
