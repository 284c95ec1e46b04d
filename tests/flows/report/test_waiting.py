"""What batches waited for is told apart from what sending them took."""

from __future__ import annotations

import threading
from pathlib import Path

import orjson
import pytest

from flows.batches.orchestrator import Threads
from flows.domain.batches import Batch
from flows.domain.events import Slice
from flows.engine.recorder import Recorder
from flows.pipeline import run_pipeline
from flows.preflight import check
from flows.report.charts import PHASES, batches_over_time
from flows.settings import read_settings
from flows.storage.state import StateDirectory
from tests.flows.report.reports import line
from tests.flows.undecorated import reviews, write_job, write_texts

WAIT = 0.3  # seconds


class Permits(Threads):
    """Gives a permit a while after there is a batch, as a limit does that others use too."""

    def __init__(self, decided: threading.Event) -> None:
        super().__init__()
        self._decided = decided

    def wait_for_permits(self, count: int, halt: threading.Event) -> bool:
        self._decided.wait(60)
        halt.wait(WAIT)
        return super().wait_for_permits(count, halt)


def test_a_batch_that_waited_for_a_permit_says_how_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the decision to the permit; its sending begins there."""
    parameters = {
        "input": write_texts(tmp_path, reviews(4)),
        "output": tmp_path / "out.parquet",
        "job": write_job(tmp_path),
        "provider": "local",
        "options": {"latency": "0"},
    }
    decided, reserve = threading.Event(), Recorder.reserve

    def reserve_and_tell(recorder: Recorder, slices: list[Slice], at: float) -> Batch:
        batch = reserve(recorder, slices, at)
        decided.set()
        return batch

    monkeypatch.setattr(Recorder, "reserve", reserve_and_tell)
    with Permits(decided) as threads:
        run_pipeline(check(read_settings(parameters)), threads)
    (batch,) = orjson.loads(StateDirectory(tmp_path / "out.parquet").report("json").read_bytes())["batch_table"]
    waiting, sending, submitted, ended, collected = batch["times"]
    assert waiting < sending <= submitted <= ended <= collected
    assert batch["waiting_seconds"] >= WAIT * 0.9


def test_the_time_line_shows_waiting_as_a_phase_of_its_own() -> None:
    """Before sending; a time in which batches only wait is one in which none is under way."""
    early, late = line(1, times=[100.0, 110.0, 111.0, 120.0, 121.0]), line(2, times=[100.0, 130.0, 131.0, 139.0, 140.0])
    found = batches_over_time({"ended_at": 140.0, "seconds": 40.0, "batch_table": [early, late]})
    assert found is not None
    assert PHASES[0] == "waiting for limits"
    (_, first), (_, second) = found["bars"]
    assert (first[0], second[0]) == ((0.0, 25.0), (0.0, 75.0))
    assert found["idle"] == 9.0
