"""The state directory: one writer, one input, and a format that is known."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blocks.errors import StateError, UsageError
from flows.storage.state import FORMAT, StateDirectory, check_belongs

ROOT = Path(__file__).resolve().parents[3]
HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom flows.storage.state import StateDirectory\n"
    "with StateDirectory(Path(sys.argv[1])).locked():\n    print('held', flush=True)\n    time.sleep(60)"
)


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path / "out.parquet")


@contextmanager
def held_elsewhere(state: StateDirectory) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(state.output)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


def test_it_lies_beside_the_output(state: StateDirectory) -> None:
    """Its underscore hides it from readers of folders."""
    assert state.path == state.output.parent / "_out.parquet.batchwerk"
    assert state.part("s", 12).name == "000012.pq"


def test_a_second_process_is_told_who_holds_it(state: StateDirectory) -> None:
    """Process, machine and time; the same command goes on when that one has ended."""
    with held_elsewhere(state) as holder:
        with pytest.raises(StateError) as caught, state.locked():
            pytest.fail("two writers")
        said = caught.value.message
        assert f"process {holder.pid} on {socket.gethostname()} since 20" in said
        assert "wait" in caught.value.next_step
        holder.kill()
        holder.wait()
        with state.locked():
            pass


def test_a_process_that_was_refused_leaves_the_holders_name(state: StateDirectory) -> None:
    """A third one is told the same."""
    with held_elsewhere(state) as holder:
        for _ in range(2):
            with pytest.raises(StateError, match=f"process {holder.pid} "), state.locked():
                pytest.fail("two writers")


def test_a_holder_without_a_name_is_another_process(state: StateDirectory) -> None:
    """Between the lock and the name there is a moment."""
    with held_elsewhere(state):
        state.lease.write_bytes(b"")
        with pytest.raises(StateError, match="worked on by another process"), state.locked():
            pytest.fail("two writers")


def test_the_lock_is_free_again_after_an_error(state: StateDirectory) -> None:
    """However the work ended."""
    with pytest.raises(KeyError), state.locked():
        raise KeyError
    with state.locked():
        held = json.loads(state.lease.read_text())
    assert held["pid"] == os.getpid()


def test_a_run_keeps_its_id(state: StateDirectory, tmp_path: Path) -> None:
    """Eight letters and digits, which fit into a custom_id, for the life of the output."""
    state.prepare()
    first = state.open_run(tmp_path / "in.parquet", input_moved=False)
    assert len(first) == 8
    assert first.isalnum()
    assert first.islower() or any(letter.isdigit() for letter in first)
    assert state.open_run(tmp_path / "in.parquet", input_moved=False) == first
    other = StateDirectory(tmp_path / "other.parquet")
    other.prepare()
    assert other.open_run(tmp_path / "in.parquet", input_moved=False) != first


def test_an_output_belongs_to_its_input(state: StateDirectory, tmp_path: Path) -> None:
    """Another input is refused, unless it is said to be the same in a new place; from then on it belongs there."""
    state.prepare()
    run_id = state.open_run(tmp_path / "in.parquet", input_moved=False)
    with pytest.raises(UsageError, match=r"belongs to another input: .*in\.parquet") as caught:
        state.open_run(tmp_path / "moved.parquet", input_moved=False)
    assert "--input-moved" in caught.value.next_step
    assert state.open_run(tmp_path / "moved.parquet", input_moved=True) == run_id
    assert state.open_run(tmp_path / "moved.parquet", input_moved=False) == run_id
    with pytest.raises(UsageError):
        state.open_run(tmp_path / "in.parquet", input_moved=False)


def test_the_same_input_by_another_path_is_the_same(state: StateDirectory, tmp_path: Path) -> None:
    """A path is what it leads to."""
    run = {"input": str((tmp_path / "in.parquet").resolve())}
    check_belongs(run, tmp_path / "." / "x" / ".." / "in.parquet", state.output, input_moved=False)


@pytest.mark.parametrize("found", [FORMAT + 1, FORMAT - 1, None])
def test_another_format_is_refused(state: StateDirectory, found: int | None) -> None:
    """Batchwerk doesn't guess what another version wrote."""
    state.prepare()
    state.run_file.write_text(json.dumps({"id": "a", "format": found, "input": "x"}))
    with pytest.raises(StateError, match=f"has the format {found}, and"):
        state.read_run()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00\x00"])
def test_a_damaged_run_file_is_said_to_be_one(state: StateDirectory, content: str) -> None:
    """Not a new run, and not a traceback."""
    state.prepare()
    state.run_file.write_text(content)
    with pytest.raises(StateError, match=r"run\.json"):
        state.read_run()


def test_no_run_is_none(state: StateDirectory) -> None:
    """Looking makes nothing."""
    assert state.read_run() is None
    assert not state.path.exists()
