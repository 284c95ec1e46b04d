"""One run in this process, measured: what `tests.bench` starts for each figure. Prints one JSON object.

CPU and memory are this process's alone: Prefect's server and the emulator are processes of their own.
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

from flows import collect, enrich, run, submit
from flows.report.figures import Figures
from flows.storage.results import Gatherer, ResultsStore


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


def main(parameters: str) -> None:
    """Run the flow with the parameters given as JSON."""
    stages = Stages()
    stages.count(run, "planned", "plan")
    stages.count(run.Run, "write_body", "render and encode")
    stages.count(submit, "submit_batch", "submit")
    stages.count(collect, "poll_batch", "poll")
    stages.count(Gatherer, "take", "download, parse, validate")
    stages.count(Gatherer, "finish", "to Arrow")
    stages.count(ResultsStore, "save", "write parts")
    stages.count(enrich, "publish_artifacts", "artifacts")
    stages.count(sys.modules["flows.pipeline"], "publish", "publish")
    began = time.process_time()
    state = enrich.enrich(**orjson.loads(parameters), return_state=True)
    figures: Any = state.result()
    assert isinstance(figures, Figures)
    stages.seconds["submit"] -= stages.seconds["render and encode"]
    result = {
        "rows": sum(figures.rows.values()),
        "ok": figures.rows.get("ok", 0),
        "seconds": figures.seconds,
        "cpu": time.process_time() - began,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "stages": dict(stages.seconds),
    }
    sys.stdout.write(orjson.dumps(result).decode() + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
