"""The loop and what it starts: nothing that was never begun is waited for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blocks.errors import StateError
from flows.loop import Loop, Threads
from flows.permits import Permits
from flows.pipeline import Work, run_pipeline
from flows.preflight import check
from flows.run import Run
from flows.settings import read_settings
from flows.submit import Outbox, submit_batches
from tests.flows.undecorated import reviews, write_job, write_texts


def test_work_that_could_not_be_begun_ends_the_run(tmp_path: Path) -> None:
    """Its batch would be waited for for ever."""

    class Broken:
        def wait(self) -> None:
            pass

        def done(self) -> bool:
            return True

        def trouble(self) -> str:
            return "Crashed: no room"

    def work(run: Run) -> str:
        with Threads() as threads:

            def start(function: Any, *arguments: Any) -> Any:
                return Broken() if function.__name__ == "collect_batch" else threads.start(function, *arguments)

            return Loop(run, start, Outbox(Permits(lambda _: None)), lambda _: None).work()

    parameters = {
        "input": write_texts(tmp_path, reviews(3)),
        "output": tmp_path / "out.parquet",
        "job": write_job(tmp_path),
        "provider": "local",
        "options": {"latency": "0"},
    }
    with pytest.raises(StateError, match="could not be started: Crashed: no room"):
        run_pipeline(check(read_settings(parameters)), work, lambda _: None)


def test_a_lane_that_is_begun_before_the_plan_sends_what_it_finds(tmp_path: Path) -> None:
    """It waits for the run; no other lane is begun for the first batch."""
    outbox, begun = Outbox(Permits(lambda _: None)), []

    with Threads() as threads:

        def start(function: Any, *arguments: Any) -> Any:
            begun.append(function.__name__)
            return threads.start(function, *arguments)

        def expect() -> None:
            outbox.begin_lane(1)
            start(submit_batches, outbox)

        parameters = {
            "input": write_texts(tmp_path, reviews(3)),
            "output": tmp_path / "out.parquet",
            "job": write_job(tmp_path),
            "provider": "local",
            "options": {"latency": "0"},
        }
        checked = check(read_settings(parameters))
        loop: Work = lambda run: Loop(run, start, outbox, lambda _: None).work()  # noqa: E731  # a type that it must have
        figures = run_pipeline(checked, loop, lambda _: None, expect)
    assert figures.rows == {"ok": 3}
    assert begun == ["submit_batches", "collect_batch"]


def test_a_lane_without_a_run_ends_when_there_will_be_none() -> None:
    """The plan failed, or there is nothing to send."""
    outbox = Outbox(Permits(lambda _: None))
    outbox.begin_lane(1)
    with Threads() as threads:
        lane = threads.start(submit_batches, outbox)
        outbox.close()
        lane.wait()
    assert lane.done()
    assert lane.trouble() == ""
