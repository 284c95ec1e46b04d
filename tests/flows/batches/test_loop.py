"""The loop and what it starts: nothing that was never begun is waited for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import StateError
from flows.batches.orchestrator import Threads
from flows.pipeline import run_pipeline
from flows.preflight import RunConfig, check
from flows.settings import read_settings
from tests.flows.undecorated import reviews, write_job, write_texts


def config(folder: Path) -> RunConfig:
    return check(
        read_settings(
            {
                "input": write_texts(folder, reviews(3)),
                "output": folder / "out.parquet",
                "job": write_job(folder),
                "provider": "local",
                "options": {"latency": "0"},
            }
        )
    )


def test_work_that_could_not_be_started_ends_the_run(tmp_path: Path) -> None:
    """Its batch would be waited for for ever."""

    class Broken(Threads):
        def start(self, name: str, work: Callable[[int], Any], number: int) -> Future[Any]:
            if name != "collect batch":
                return super().start(name, work, number)
            future: Future[Any] = Future()
            future.set_exception(RuntimeError("no room"))
            return future

    with Broken() as threads, pytest.raises(StateError, match="could not be started: no room"):
        run_pipeline(config(tmp_path), threads)


def test_the_lane_that_was_opened_before_the_plan_sends_the_first_batch(tmp_path: Path) -> None:
    """No second one is opened for it."""
    started: list[str] = []

    class Noting(Threads):
        def start(self, name: str, work: Callable[[int], Any], number: int) -> Future[Any]:
            started.append(name)
            return super().start(name, work, number)

    with Noting() as threads:
        figures = run_pipeline(config(tmp_path), threads)
    assert figures.rows == {"ok": 3}
    assert started == ["submit batches", "collect batch"]
