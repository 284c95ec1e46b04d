"""Batches whose submission got no response: found, proved to be absent, or left to the user, and never paid twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import stamina

from blocks.emulator import EmulatorOptions, running_emulator
from blocks.providers.openai.batches import OpenAI
from blocks.retries import ATTEMPTS
from flows.domain.ledger import MOST_REPEATS
from flows.report.verdict import Exit
from tests.flows.undecorated import emulator_ledger, enrich, reviews, write_job, write_texts

LISTING = ["openai", "anthropic", "mistral", "gemini"]  # dialects with a list of batches
BILLED = "SELECT count(*), count(DISTINCT prompt_hash) FROM billed"


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Calls are repeated as often as in earnest, without waiting."""
    with stamina.set_testing(True, attempts=ATTEMPTS):
        yield


def call(folder: Path, **switches: Any) -> dict[str, Any]:
    """Three batches, of which the second one's create gets no answer."""
    return {
        "input": str(write_texts(folder, reviews(12))),
        "output": str(folder / "out.parquet"),
        "job": str(write_job(folder)),
        "batch_size": 4,
        "max_in_flight": 1,
        "options": {"drop_every": "2", **{name: str(value) for name, value in switches.items()}},
    }


@pytest.mark.parametrize("dialect", LISTING)
@pytest.mark.parametrize("habit", [{"list_refused": 404}, {"list_refused": 405}, {"list_breaks": 1}, {"list_hides": 1}])
def test_a_list_that_proves_nothing_leaves_the_batch_to_the_user(
    tmp_path: Path, dialect: str, habit: dict[str, int]
) -> None:
    """Nothing is sent twice, in however many runs; once the list can be read the batch is found."""
    parameters = call(tmp_path, dialect=dialect, **habit)
    for _ in range(2):
        figures = enrich(**parameters)
        assert (figures.exit, figures.rows) == (Exit.ERROR, {"ok": 4, "pending": 8})
        assert "it is not known whether batch" in figures.message
        assert "--on-unknown resubmit" in figures.message
    parameters["options"] = {"dialect": dialect}
    assert len(emulator_ledger(tmp_path / "out.parquet", "SELECT 1 FROM batches")) == 2
    assert enrich(**parameters).rows == {"ok": 12}
    assert emulator_ledger(tmp_path / "out.parquet", BILLED) == [(12, 12)]


def test_a_list_without_our_mark_is_no_reason_to_pay_twice(tmp_path: Path) -> None:
    """Some gateways keep no metadata and list no files: the user decides, and it is said."""
    parameters = call(tmp_path, dialect="openai", list_unmarked=1)
    figures = enrich(**parameters)
    assert "does not show what batches are known by" in figures.message
    assert emulator_ledger(tmp_path / "out.parquet", BILLED) == [(8, 8)]
    assert enrich(**parameters, on_unknown="resubmit").rows == {"ok": 12}


def test_creates_that_are_lost_again_and_again_are_not_repeated_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the user said that they may be: each may have been paid."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    parameters = {**call(tmp_path), "provider": "openai", "poll_interval": 0.05, "options": {"settle": "0"}}
    store = tmp_path / "s"
    with running_emulator(
        EmulatorOptions(dialect="openai", latency=0, drop_every=1, list_hides=1, state=store)
    ) as told:
        figures = enrich(**parameters, base_url=told.base_url, on_unknown="resubmit")
    assert figures.exit is Exit.ERROR
    assert "--on-unknown resubmit" in figures.message
    with closing(sqlite3.connect(store)) as books:
        asked = books.execute("SELECT count(*), count(DISTINCT prompt_hash) FROM requests").fetchall()
    assert asked == [(4 * (1 + MOST_REPEATS), 4)]


def test_another_key_may_not_see_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent under one key is left alone, though the list of another shows all that was sent under that."""
    listed, store = OpenAI._listed, tmp_path / "s"

    def scoped(self: OpenAI, *asked: Any) -> Iterator[Mapping[str, Any]]:
        """Without the first two batches: the one of them that is lost is not seen yet, or can't be seen any more."""
        return (item for item in listed(self, *asked) if item["id"] not in of_the_first)

    monkeypatch.setattr(OpenAI, "_listed", lambda *_: iter(()))
    with running_emulator(EmulatorOptions(dialect="openai", latency=0, drop_every=2, state=store)) as emulator:
        parameters = {**call(tmp_path), "provider": "openai", "base_url": emulator.base_url, "poll_interval": 0.05}
        parameters |= {"options": {"settle": "0"}, "max_in_flight": 2}
        monkeypatch.setenv("OPENAI_API_KEY", "first")
        assert enrich(**parameters, limit=8).rows == {"ok": 4, "pending": 4}
        with closing(sqlite3.connect(store)) as books:
            of_the_first = {batch_id for (batch_id,) in books.execute("SELECT id FROM batches")}
        monkeypatch.setattr(OpenAI, "_listed", scoped)
        monkeypatch.setenv("OPENAI_API_KEY", "second")
        for _ in range(2):  # the first of these runs sends the last rows under its own key
            figures = enrich(**parameters)
            assert figures.rows == {"ok": 8, "pending": 4}
    assert figures.exit is Exit.ERROR
    assert "that of another key" in figures.message


@pytest.mark.parametrize("dialect", LISTING)
@pytest.mark.parametrize("ahead", [-7200, 7200])
def test_a_clock_that_is_hours_off_costs_nothing(tmp_path: Path, dialect: str, ahead: int) -> None:
    """The provider's own time says which batch of its list it may be."""
    parameters = {**call(tmp_path, dialect=dialect, clock_ahead=ahead), "max_in_flight": 3}
    assert enrich(**parameters).rows == {"ok": 12}
    assert emulator_ledger(tmp_path / "out.parquet", BILLED) == [(12, 12)]
