"""Cancelling an output: from its state directory alone, each batch by itself, and never sending anything."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import stamina

from blocks.emulator import EmulatorOptions, running_emulator
from blocks.errors import BatchRefused, StateError, UnknownOutcome
from blocks.providers.calls import Calls
from blocks.retries import ATTEMPTS
from blocks.transport import Transport
from flows.cancel import cancel_output
from flows.domain.events import Submitted
from flows.storage.journal import read_events
from flows.storage.place import note_place
from flows.storage.state import StateDirectory
from tests.flows.command import batchwerk
from tests.flows.undecorated import cancel, emulator_ledger, enrich, reviews, write_job, write_texts

DIALECTS = ["holysheep", "openai", "anthropic", "mistral", "gemini"]
LISTING = DIALECTS[1:]  # that have a list of batches
every_dialect = pytest.mark.parametrize("dialect", DIALECTS)
PATIENCE = 60.0  # seconds to wait for what should come soon


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Calls are repeated as often as in earnest, without waiting."""
    with stamina.set_testing(True, attempts=ATTEMPTS):
        yield


def sent(folder: Path, dialect: str, **switches: Any) -> dict[str, Any]:
    """An output with three batches at the provider, which take ten minutes."""
    options = {"dialect": dialect, "latency": "600", **{name: str(value) for name, value in switches.items()}}
    parameters = {
        "input": str(write_texts(folder, reviews(12))),
        "output": str(folder / "out.parquet"),
        "job": str(write_job(folder)),
        "batch_size": 4,
        "options": options,
    }
    enrich(**parameters, wait=0)
    return parameters


def ends(folder: Path) -> list[str | None]:
    """How the emulator's batches ended; None for those that run."""
    rows = emulator_ledger(folder / "out.parquet", "SELECT status FROM batches ORDER BY number")
    return [status for (status,) in rows]


@every_dialect
def test_the_state_directory_is_enough(tmp_path: Path, dialect: str) -> None:
    """Input and job are gone, somebody changed the output: all batches stop, and it is said what was not written."""
    parameters = sent(tmp_path, dialect)
    Path(parameters["input"]).unlink()
    Path(parameters["job"]).unlink()
    Path(parameters["output"]).write_bytes(b"somebody else's")
    (StateDirectory(tmp_path / "out.parquet").path / "settings.json").unlink()
    found = cancel_output(tmp_path / "out.parquet", wait=PATIENCE)
    assert (found.exit, found.left, found.figures) == (0, {}, None)
    assert found.unpublished
    assert ends(tmp_path) == ["cancelled"] * 3


@pytest.mark.parametrize("dialect", LISTING)
def test_batches_whose_submission_was_lost_are_found_and_stopped(tmp_path: Path, dialect: str) -> None:
    """As soon as the provider shows them; Anthropic's lost ones show whose they are when they have ended."""
    latency = "3" if dialect == "anthropic" else "600"
    parameters = sent(tmp_path, dialect, drop_every=1, visible_after=1, settle=30, latency=latency)
    found = cancel_output(Path(parameters["output"]), wait=PATIENCE)
    assert (found.exit, found.left) == (0, {})
    assert set(ends(tmp_path)) <= {"cancelled", "completed"}
    assert len(ends(tmp_path)) == 3


def test_cancelling_never_sends_a_batch(tmp_path: Path) -> None:
    """Where only sending it once more would tell whether it was accepted, that is told, and is left to a run."""
    parameters = sent(tmp_path, "holysheep", drop_every=1)
    state = StateDirectory(Path(parameters["output"]))
    lines = [line for line in state.journal.read_bytes().splitlines(keepends=True) if b'"submitted"' not in line]
    state.journal.write_bytes(b"".join(lines))
    note_place(state)
    with closing(sqlite3.connect(state.path / "emulator-holysheep.sqlite")) as db, db:
        db.execute("DELETE FROM batches")
    found = cancel_output(Path(parameters["output"]), wait=PATIENCE)
    assert found.exit == 1
    assert len(found.left) == 3
    assert all("sending it once more" in why for why in found.left.values())
    assert ends(tmp_path) == []


@every_dialect
def test_a_batch_that_is_not_found_keeps_no_other_from_being_stopped(tmp_path: Path, dialect: str) -> None:
    """It may still run: that is said, with exit status 1."""
    parameters = sent(tmp_path, dialect, vanish_every=2)
    found = cancel_output(Path(parameters["output"]), wait=2)
    assert found.exit == 1
    assert [why.partition(":")[0] for why in found.left.values()] in ([f"batch {n} may still run"] for n in (1, 2, 3))
    assert ends(tmp_path) == ["cancelled", None, "cancelled"]


@pytest.mark.parametrize("dialect", LISTING)
def test_a_batch_that_never_ends_is_waited_for_so_long_and_no_longer(tmp_path: Path, dialect: str) -> None:
    """The others are collected, and what is left is told."""
    parameters = sent(tmp_path, dialect, hang_every=2)
    said: list[str] = []
    found = cancel_output(Path(parameters["output"]), wait=2, say=said.append)
    assert (found.exit, len(found.left)) == (1, 1)
    assert "has not ended yet" in "".join(found.left.values())
    assert any("waiting for 1 batch to end" in line for line in said)
    assert found.figures is not None
    assert found.figures.rows == {"pending": 12}


def test_each_batch_is_stopped_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change of provider, also where the newer one's key is gone: its batches are left, and told."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("MISTRAL_API_KEY", "m")
    stores = {name: tmp_path / f"{name}.sqlite" for name in ("openai", "mistral")}
    with (
        running_emulator(EmulatorOptions(dialect="openai", latency=600, state=stores["openai"])) as old,
        running_emulator(EmulatorOptions(dialect="mistral", latency=600, state=stores["mistral"])) as new,
    ):
        common = {"input": str(write_texts(tmp_path, reviews(4))), "output": str(tmp_path / "out.parquet")}
        common |= {"job": str(write_job(tmp_path))}
        enrich(**common, provider="openai", base_url=old.base_url, wait=0)
        enrich(**common, provider="mistral", base_url=new.base_url, wait=0)
        monkeypatch.delenv("MISTRAL_API_KEY")
        found = cancel_output(tmp_path / "out.parquet", wait=PATIENCE)
        assert (found.exit, list(found.left)) == (1, [2])
        assert "key" in found.left[2]
        monkeypatch.setenv("MISTRAL_API_KEY", "m")
        assert cancel(tmp_path / "out.parquet", wait=PATIENCE).rows == {"pending": 4}
    for store in stores.values():
        with closing(sqlite3.connect(store)) as db:
            assert db.execute("SELECT status FROM batches").fetchall() == [("cancelled",)]


def refusing(_: Calls, batch_id: str) -> Any:
    raise BatchRefused(f"{batch_id} can't be cancelled now", provider="openai")


def test_copies_are_stopped_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something on the way sent the create twice: neither of the two goes on."""
    left = [1]

    def twice(create: Callable[..., Any]) -> Callable[..., Any]:
        def send(self: Transport, *arguments: Any) -> Any:
            if not left:
                return create(self, *arguments)
            left.clear()
            for _ in range(2):
                create(self, *arguments)
            raise UnknownOutcome("the answer was lost", provider="openai")

        return send

    with monkeypatch.context() as patch:
        patch.setattr(Transport, "create_json", twice(Transport.create_json))
        patch.setattr(Calls, "cancel", refusing)
        parameters = sent(tmp_path, "openai")
        enrich(**parameters, wait=0)
    events = read_events(StateDirectory(tmp_path / "out.parquet").journal)
    assert sum(len(event.copies) for event in events if isinstance(event, Submitted)) == 1
    assert ends(tmp_path) == [None] * 4
    assert cancel(parameters["output"], wait=PATIENCE).rows == {"pending": 12}
    assert ends(tmp_path) == ["cancelled"] * 4


def test_a_copied_state_directory_needs_a_word_here_too(tmp_path: Path) -> None:
    """Another copy may know of batches that this one does not; with the word it stops those that it knows."""
    (tmp_path / "a").mkdir()
    sent(tmp_path / "a", "openai")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with pytest.raises(StateError, match="copied, or restored from a backup"):
        cancel_output(tmp_path / "b" / "out.parquet")
    assert cancel_output(tmp_path / "b" / "out.parquet", moved=True, wait=PATIENCE).exit == 0
    assert ends(tmp_path / "b") == ["cancelled"] * 3


def test_the_command_says_what_is_left(tmp_path: Path) -> None:
    """Exit status 1 and a sentence for each batch that may still run."""
    parameters = sent(tmp_path, "openai", vanish_every=2)
    called = batchwerk("cancel", parameters["output"], "--wait", "1")
    assert called.status == 1
    assert "may still run" in called.err
    assert "12 pending" in called.out
