"""A state directory that is not the one that the last run left: copied, restored, moved, somebody else's, readable."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from blocks.emulator import EmulatorOptions, running_emulator
from blocks.errors import StateError
from flows.domain.events import Submitting
from flows.storage.journal import read_events
from flows.storage.state import StateDirectory
from tests.flows.undecorated import emulator_ledger, enrich, reviews, write_job, write_texts
from tests.forking import ForkServer

ROWS = 8


def call(folder: Path, **more: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    found: dict[str, Any] = {
        "input": str(write_texts(folder, reviews(ROWS))),
        "output": str(folder / "out.parquet"),
        "job": str(write_job(folder)),
        "batch_size": 4,
    }
    return {**found, **more}


def tags(output: Path) -> list[str]:
    events = read_events(StateDirectory(output).journal)
    return [event.tag for event in events if isinstance(event, Submitting)]


def test_a_copy_needs_a_word_of_the_user_and_repeats_no_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two outputs that began as one are told apart by the provider, whose idempotency key the tag is."""
    monkeypatch.setenv("HOLYSHEEP_API_KEY", "k")
    with running_emulator(EmulatorOptions(latency=0)) as emulator:
        service = {"provider": "holysheep", "base_url": emulator.base_url, "poll_interval": 0.1}
        first = call(tmp_path / "a", **service)
        enrich(**first, limit=4)
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        second = {**call(tmp_path / "b", **service), "input": first["input"]}
        shutil.copy2(tmp_path / "a" / "input.parquet", tmp_path / "b" / "input.parquet")
        with pytest.raises(StateError, match="copied, or restored from a backup") as caught:
            enrich(**second)
        assert "--state-moved" in caught.value.next_step
        assert len(tags(Path(second["output"]))) == 1, "nothing was sent"
        assert enrich(**second, state_moved=True).rows == {"ok": ROWS}
        assert enrich(**second).attempts == 0, "the word is needed once"
        assert enrich(**first).rows == {"ok": ROWS}
    assert len({*tags(Path(first["output"])), *tags(Path(second["output"]))}) == 3
    assert pq.read_table(first["output"]).equals(pq.read_table(second["output"]))


def test_a_renamed_folder_is_the_same_one(tmp_path: Path) -> None:
    """Nothing was copied, so no word is needed."""
    enrich(**call(tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "b")
    parameters = {**call(tmp_path / "b"), "input_moved": True}
    assert enrich(**parameters).attempts == 0


@pytest.mark.parametrize("restored", ["journal.jsonl", ""])
def test_what_was_restored_from_a_backup_is_told(tmp_path: Path, restored: str) -> None:
    """The journal alone, or the whole directory, in its old place."""
    parameters = call(tmp_path / "a")
    enrich(**parameters)
    place = StateDirectory(Path(parameters["output"])).path / restored
    aside = tmp_path / "aside"
    place.rename(aside)
    (shutil.copytree if aside.is_dir() else shutil.copy2)(aside, place)
    with pytest.raises(StateError, match="restored from a backup"):
        enrich(**parameters)
    assert enrich(**parameters, state_moved=True).attempts == 0


@pytest.mark.parametrize("killed", [False, True])
def test_a_backup_that_was_copied_over_the_state_is_told(tmp_path: Path, runs: ForkServer, *, killed: bool) -> None:
    """All files stay where they are, and the run since may have died without publishing: what it sent would be lost."""
    parameters = call(tmp_path / "a", options={"latency": "0"})
    state = StateDirectory(Path(parameters["output"])).path
    enrich(**parameters, limit=4)
    shutil.copytree(state, tmp_path / "backup", ignore=shutil.ignore_patterns("emulator-*"))
    if killed:
        text = orjson.dumps(parameters).decode()
        process = runs.fork("tests.flows.killed:main", "create:1", text, capture=True)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    else:
        enrich(**parameters)
    for path in (tmp_path / "backup").rglob("*"):
        if path.is_file():
            (state / path.relative_to(tmp_path / "backup")).write_bytes(path.read_bytes())  # as `cp` does
    with pytest.raises(StateError, match="a backup was copied over"):
        enrich(**parameters)
    assert emulator_ledger(Path(parameters["output"]), "SELECT count(*) FROM batches") == [(2,)]
    if killed:
        assert enrich(**parameters, state_moved=True).rows == {"ok": ROWS}
        assert enrich(**parameters).attempts == 0, "the word is needed once"


def modes(folder: Path) -> set[tuple[str, str]]:
    """Kind and mode of everything in a folder; the emulator's database is the provider's."""
    found = [folder, *(path for path in folder.rglob("*") if not path.name.startswith("emulator-"))]
    return {("folder" if path.is_dir() else "file", oct(stat.S_IMODE(path.stat().st_mode))) for path in found}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_state_is_private_and_the_output_as_open_as_the_input(tmp_path: Path, umask: int) -> None:
    """Whatever the umask; and an output keeps the mode that its owner gave it."""
    parameters = call(tmp_path / "a")
    source, output = Path(parameters["input"]), Path(parameters["output"])
    source.chmod(0o640)
    before = os.umask(umask)
    try:
        enrich(**parameters, limit=4)
        assert stat.S_IMODE(output.stat().st_mode) == 0o640
        output.chmod(0o600)
        enrich(**parameters)
    finally:
        os.umask(before)
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert modes(StateDirectory(output).path) == {("folder", "0o700"), ("file", "0o600")}


@pytest.mark.parametrize("name", ["journal.jsonl", "lock", "run.json", "lease"])
def test_state_is_not_reached_through_links(tmp_path: Path, name: str) -> None:
    """What a link leads to is neither read nor changed."""
    parameters = call(tmp_path / "a")
    enrich(**parameters, limit=4)
    target = tmp_path / "target"
    target.write_text("precious\n")
    place = StateDirectory(Path(parameters["output"])).path / name
    place.unlink(missing_ok=True)
    place.symlink_to(target)
    with pytest.raises(StateError):
        enrich(**parameters)
    assert target.read_text() == "precious\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_state_is_refused(tmp_path: Path) -> None:
    """They could have written anything into it."""
    parameters = call(tmp_path / "a")
    enrich(**parameters, limit=4)
    state = StateDirectory(Path(parameters["output"])).path
    os.chown(state, 12345, 12345)
    with pytest.raises(StateError, match="belongs to another user"):
        enrich(**parameters)
