"""The pipeline as a process of its own, its stages measured: what `tests.bench` starts. Prints one JSON object.

A stage is what threads of this process spend in it; all that collector processes do is a stage of its own.

python -m tests.bench.measured PARAMETERS        the flow `enrich` with parameters as JSON
python -m tests.bench.measured                   the same imports, and a flow that does nothing
"""

from __future__ import annotations

import functools
import resource
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import orjson
from prefect import flow

from flows import enrich, pipeline
from flows.batches import answers, loop
from flows.domain.judging import BatchAnswers
from flows.orchestration import orchestrator
from flows.report.figures import Figures
from flows.storage.encoding import BatchWriter
from flows.storage.results import ResultsStore


class Stages:
    """CPU seconds of the threads that are in a function, by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def count(self, owner: Any, name: str, stage: str) -> None:
        """Count what is spent in `owner.name` as `stage`."""
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def counting(*arguments: Any, **options: Any) -> Any:
            started = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                with self._lock:
                    self.seconds[stage] += time.thread_time() - started

        setattr(owner, name, counting)


@flow
def nothing() -> None:
    """What Prefect costs before anything is done."""


def main(parameters: str) -> None:
    """Run the flow with the parameters given as JSON; one that fails says so and ends this process with status 1."""
    stages = Stages()
    stages.count(pipeline, "make_new_plan", "plan")
    stages.count(BatchWriter, "write", "render and encode")
    stages.count(loop, "submit_batch", "submit")
    stages.count(loop, "poll_batch", "poll")
    stages.count(BatchAnswers, "take", "download, parse, validate")
    stages.count(answers, "part_table", "to Arrow")
    stages.count(ResultsStore, "save", "write parts")
    stages.count(orchestrator, "publish_artifacts", "artifacts")
    stages.count(pipeline, "publish", "publish")
    state = enrich.enrich(**orjson.loads(parameters), return_state=True)
    if not state.is_completed():
        _say({"failure": state.message})
        sys.exit(1)
    figures: Any = state.result()
    assert isinstance(figures, Figures)
    stages.seconds["submit"] -= stages.seconds["render and encode"]
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    stages.seconds["collector processes"] = children.ru_utime + children.ru_stime
    result = {
        "rows": sum(figures.rows.values()),
        "ok": figures.rows.get("ok", 0),
        "sent": figures.attempts,
        "seconds": figures.seconds,
        "stages": dict(stages.seconds),
    }
    _say(result)


def _say(result: dict[str, Any]) -> None:
    sys.stdout.write(orjson.dumps(result).decode() + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        nothing()
