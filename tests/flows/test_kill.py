"""Paid once, whatever dies: runs killed at every place, then started again with the same command."""

from __future__ import annotations

import signal
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.storage.journal import read_events
from flows.storage.state import StateDirectory
from tests.flows.killing import PLACES, ROWS, RunUntil, check_paid_once, parameters_for
from tests.flows.undecorated import enrich, wait_until
from tests.forking import ForkServer

# In the quick tests: around each kind of event and call once.
QUICK = [
    *("before:1", "after:1", "before:2", "torn:2", "after:2", "after:3", "after:4", "torn:9", "after:14"),
    *("create:1", "results:1", "look:1"),
]


@pytest.mark.parametrize(
    "place", [pytest.param(place, marks=[] if place in QUICK else [pytest.mark.slow]) for place in PLACES]
)
def test_a_killed_run_goes_on_where_it_was(
    tmp_path: Path, undisturbed: pa.Table, run_until: RunUntil, place: str
) -> None:
    """The output is that of an undisturbed run, and no request that was answered well is paid for again."""
    parameters = parameters_for(tmp_path)
    assert run_until(parameters, place) == -signal.SIGKILL
    figures = enrich(**parameters)
    output = Path(parameters["output"])
    assert pq.read_table(output).equals(undisturbed)
    assert figures.rows == {"ok": ROWS + 2}
    check_paid_once(output, ROWS + 1)


def test_another_batch_size_may_go_on(tmp_path: Path, undisturbed: pa.Table, run_until: RunUntil) -> None:
    """The size of batches and how many are in flight may change from run to run."""
    parameters = parameters_for(tmp_path)
    assert run_until(parameters, "after:4") == -signal.SIGKILL
    enrich(**{**parameters, "batch_size": 3, "max_in_flight": 2})
    assert pq.read_table(parameters["output"]).equals(undisturbed)
    check_paid_once(Path(parameters["output"]), ROWS + 1)


def test_two_processes_on_one_output_one_works_and_one_is_refused(tmp_path: Path, runs: ForkServer) -> None:
    """Five times out of five; the refused one says who works and since when."""
    parameters = parameters_for(tmp_path, rows=6)
    hold = tmp_path / "hold"
    for attempt in range(5):
        hold.touch()  # the one that works can't end before the other one has come
        output = str(tmp_path / f"out{attempt}.parquet")
        call = {**parameters, "output": output, "options": {"hold_file": str(hold)}}
        both = [runs.fork("tests.flows.undecorated:main", orjson.dumps(call).decode(), capture=True) for _ in range(2)]
        wait_until(lambda both=both: any(process.poll() is not None for process in both))  # type: ignore[misc]
        hold.unlink()
        said = [process.communicate()[1] for process in both]
        statuses = [process.returncode for process in both]
        assert sorted(map(int, statuses)) == [0, 1], said  # type: ignore[arg-type]
        refused = said[statuses.index(1)]
        assert "is being worked on by process" in refused
        assert f"process {both[statuses.index(0)].pid} on" in refused
        kinds = [event.event for event in read_events(StateDirectory(Path(output)).journal)]
        assert kinds.count("frozen") == kinds.count("published") == 1
