"""Batches that the provider does not find: each is looked for by itself, and the work on all others goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
import stamina

from blocks.emulator import EmulatorOptions, running_emulator
from blocks.providers.calls import Calls
from blocks.retries import ATTEMPTS
from flows.domain.events import Recovered, Unfound
from flows.domain.ledger import MOST_REPEATS
from flows.report.verdict import Exit
from flows.storage.journal import read_events
from flows.storage.state import StateDirectory
from tests.flows.undecorated import emulator_ledger, enrich, given_up_at_once, harvest, reviews, write_job, write_texts

DIALECTS = ["holysheep", "openai", "anthropic", "mistral", "gemini"]
every_dialect = pytest.mark.parametrize("dialect", DIALECTS)


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Calls are repeated as often as in earnest, without waiting."""
    with stamina.set_testing(True, attempts=ATTEMPTS):
        yield


def call(folder: Path, rows: int = 12, **more: Any) -> dict[str, Any]:
    options = more.pop("options", {})
    return {
        "input": str(write_texts(folder, reviews(rows))),
        "output": str(folder / "out.parquet"),
        "job": str(write_job(folder)),
        "batch_size": 4,
        "options": options,
        **more,
    }


def statuses(parameters: dict[str, Any]) -> dict[str, int]:
    column = pq.read_table(parameters["output"]).column("_status").to_pylist()
    return {status: column.count(status) for status in set(column)}


def errors(parameters: dict[str, Any]) -> set[str]:
    return set(filter(None, pq.read_table(parameters["output"]).column("_error").to_pylist()))


def recorded(parameters: dict[str, Any], kind: type) -> int:
    journal = StateDirectory(Path(parameters["output"])).journal
    return sum(isinstance(event, kind) for event in read_events(journal))


def batches_sent(parameters: dict[str, Any]) -> int:
    return int(emulator_ledger(Path(parameters["output"]), "SELECT count(*) FROM batches")[0][0])


@every_dialect
def test_a_batch_that_the_provider_forgot_is_told_and_the_others_come_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    """One look proves nothing: its rows are pending, nothing is sent again, and the message says what happens next."""
    monkeypatch.setattr("flows.domain.vanishing.FRESH", 0.0)
    parameters = call(tmp_path, options={"dialect": dialect, "vanish_every": "2"})
    for _ in range(2):
        figures = enrich(**parameters)
        assert (figures.exit, statuses(parameters)) == (Exit.ERROR, {"ok": 8, "pending": 4})
        assert "is not found" in figures.message
        assert "--on-unknown resubmit" in figures.message
    assert batches_sent(parameters) == 3


@every_dialect
def test_a_batch_that_was_looked_for_long_enough_is_gone_and_its_requests_may_be_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    """Its rows fail with the reason, its cost is unknown; a word of the user sends them again, and nobody else's."""
    given_up_at_once(monkeypatch, looks=3)
    parameters = call(tmp_path, options={"dialect": dialect, "vanish_every": "2"}, poll_interval=0.05)
    for _ in range(4):
        figures = enrich(**parameters)
    assert (figures.exit, statuses(parameters)) == (Exit.ROWS_FAILED, {"ok": 8, "failed": 4})
    assert (figures.unmetered, batches_sent(parameters)) == (4, 3)
    assert all(error.startswith("gone: ") and "--retry-failed" in error for error in errors(parameters))
    parameters["options"]["vanish_every"] = "0"
    again = enrich(**parameters, retry_failed=True)
    assert again.rows == {"ok": 12}


def test_what_is_not_known_is_sent_again_at_a_word_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --on-unknown resubmit the looks of a moment are enough, and the same run sends the requests again."""
    monkeypatch.setattr("flows.domain.vanishing.FRESH", 0.0)
    monkeypatch.setattr("flows.domain.vanishing.PAUSE", 0.0)
    parameters = call(tmp_path, options={"dialect": "openai", "vanish_every": "3"}, poll_interval=0.05)
    assert enrich(**parameters).rows == {"ok": 8, "pending": 4}
    for _ in range(3):
        chosen = enrich(**parameters, on_unknown="resubmit")
    assert chosen.rows == {"ok": 12}
    assert batches_sent(parameters) == 4


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "gemini"])
def test_a_word_of_the_user_is_no_blank_cheque(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str) -> None:
    """Where each batch is lost, one run sends its requests again twice and not without end."""
    monkeypatch.setattr("flows.domain.vanishing.FRESH", 0.3)
    monkeypatch.setattr("flows.domain.vanishing.PAUSE", 0.0)
    parameters = call(tmp_path, options={"dialect": dialect, "vanish_every": "1"}, poll_interval=0.05)
    chosen = enrich(**parameters, on_unknown="resubmit")
    assert (chosen.exit, chosen.rows) == (Exit.ROWS_FAILED, {"failed": 12})
    asked = emulator_ledger(Path(parameters["output"]), "SELECT count(*), count(DISTINCT prompt_hash) FROM requests")
    assert asked == [(12 * MOST_REPEATS, 12)]


@every_dialect
def test_a_batch_that_is_back_is_read_before_anything_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    """Also where the user asked for another try: what was paid is taken, and nothing is paid twice."""
    given_up_at_once(monkeypatch)
    parameters = call(tmp_path, options={"dialect": dialect, "vanish_every": "2"})
    enrich(**parameters)
    assert enrich(**parameters).rows == {"ok": 8, "failed": 4}
    parameters["options"]["vanish_every"] = "0"
    figures = enrich(**parameters, retry_failed=True)
    assert (figures.rows, figures.attempts, figures.unmetered) == ({"ok": 12}, 0, 0)
    assert recorded(parameters, Recovered) == 1
    sql = "SELECT count(*), count(DISTINCT prompt_hash) FROM billed"
    assert emulator_ledger(Path(parameters["output"]), sql) == [(12, 12)]


def test_a_harvest_takes_the_answers_of_a_batch_that_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has to be asked for: a later look is enough."""
    given_up_at_once(monkeypatch)
    parameters = call(tmp_path, options={"dialect": "openai", "vanish_every": "2"})
    enrich(**parameters)
    assert enrich(**parameters).rows == {"ok": 8, "failed": 4}
    place = StateDirectory(Path(parameters["output"])).path / "settings.json"
    kept = orjson.loads(place.read_bytes())
    kept["settings"]["options"]["vanish_every"] = "0"
    place.write_bytes(orjson.dumps(kept))
    assert harvest(Path(parameters["output"])).rows == {"ok": 12}


def test_a_moment_without_the_batch_is_forgotten_once_it_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks count one after another only: a gateway's 404 of yesterday adds nothing to one of today."""
    monkeypatch.setattr("flows.domain.vanishing.FRESH", 0.0)
    monkeypatch.setattr("flows.domain.vanishing.LOOKS", 2)
    monkeypatch.setattr("flows.domain.vanishing.SPAN", 0.0)
    switches = {"dialect": "openai", "latency": "30"}
    parameters = call(tmp_path, rows=4, options=switches, wait=0)
    enrich(**parameters)
    for forgets in ("1", "0", "1"):
        figures = enrich(**{**parameters, "options": {**switches, "vanish_every": forgets}})
        assert statuses(parameters) == {"pending": 4}
    assert recorded(parameters, Unfound) == 2
    assert "is not found" in figures.message


def test_a_missing_key_of_the_old_provider_leaves_that_batch_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new run asks its own provider for what it lacks, and says what is still with the other one."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("MISTRAL_API_KEY", "m")
    with (
        running_emulator(EmulatorOptions(dialect="openai", latency=2.0)) as old,
        running_emulator(EmulatorOptions(dialect="mistral", latency=0.0)) as new,
    ):
        parameters = call(tmp_path, poll_interval=0.05)
        there = {"provider": "openai", "base_url": old.base_url}
        here = {"provider": "mistral", "base_url": new.base_url}
        assert enrich(**parameters, **there, wait=0).rows.get("pending")
        monkeypatch.delenv("OPENAI_API_KEY")
        figures = enrich(**parameters, **here)
        assert figures.rows == {"ok": 12}
        assert figures.exit is Exit.ERROR
        assert "is still with openai, which can't be asked" in figures.message
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        assert enrich(**parameters, **here).exit is Exit.DONE


@pytest.mark.parametrize("dialect", DIALECTS[1:])  # the first one's is cancelled at once
def test_a_batch_that_never_ends_can_be_given_up(tmp_path: Path, dialect: str) -> None:
    """At a word of the user alone; its cost stays unknown, with a line of its own in the report."""
    parameters = call(tmp_path, options={"dialect": dialect, "hang_every": "2"}, poll_interval=0.05)
    assert enrich(**parameters, wait=1).rows == {"ok": 8, "pending": 4}
    figures = enrich(**parameters, abandon_after=0)
    assert (figures.exit, figures.rows) == (Exit.ROWS_FAILED, {"ok": 8, "failed": 4})
    assert all(error.startswith("gone: given up") for error in errors(parameters))
    report = StateDirectory(Path(parameters["output"])).report("md").read_text()
    assert "4 requests were in batches that are gone or were given up" in report
    assert enrich(**parameters).rows == {"ok": 8, "failed": 4}, "nothing is sent again unasked"
    assert batches_sent(parameters) == 3


def test_late_answers_of_a_batch_that_was_given_up_are_taken(tmp_path: Path) -> None:
    """It had ended after all when the next run looked: what was paid is not asked again."""
    parameters = call(tmp_path, rows=4, options={"dialect": "openai", "latency": "2"})
    enrich(**parameters, wait=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Calls, "cancel", lambda self, batch_id: self.poll(batch_id))
        figures = enrich(**parameters, abandon_after=0, poll_interval=0.05)
    assert figures.rows == {"failed": 4}
    end = time.monotonic() + 30
    while (figures := enrich(**parameters)).rows != {"ok": 4}:
        assert time.monotonic() < end
    assert (figures.attempts, figures.unmetered, batches_sent(parameters)) == (0, 0, 1)
