"""The loop and what it starts: nothing that was never begun is waited for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blocks.errors import StateError
from flows.loop import Loop, Threads
from flows.pipeline import run_pipeline
from flows.preflight import check
from flows.run import Run
from flows.settings import read_settings
from flows.submit import Outbox
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

            return Loop(run, start, Outbox(lambda _: None), lambda _: None).work()

    parameters = {
        "input": write_texts(tmp_path, reviews(3)),
        "output": tmp_path / "out.parquet",
        "job": write_job(tmp_path),
        "provider": "local",
        "options": {"latency": "0"},
    }
    with pytest.raises(StateError, match="could not be started: Crashed: no room"):
        run_pipeline(check(read_settings(parameters)), work, lambda _: None)
