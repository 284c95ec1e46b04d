"""Who is measured, and one measured run of each: ours, the bare loop, and each with nothing to do."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.bench.loop import KEY
from tests.bench.rows import count_answered
from tests.bench.running import Measured, RunFailed, measure
from tests.bench.surroundings import Emulator

ENVIRONMENT = {"OPENAI_API_KEY": KEY, "PREFECT_LOGGING_LEVEL": "WARNING"}
OURS, LOOP = "tests.bench.measured", "tests.bench.loop"


@dataclass(frozen=True)
class Task:
    """One run's work: rows to read, file to write, whom to ask and how."""

    source: Path
    output: Path
    job: Path
    emulator: Emulator
    batch_size: int
    poll: float = 0.2
    max_in_flight: int | None = None

    def clear(self) -> None:
        """Remove what a run left behind; at two million rows it is gigabytes."""
        shutil.rmtree(self.output.parent, ignore_errors=True)


def run_ours(task: Task, server: Mapping[str, str]) -> Measured:
    """The flow `enrich` as a process."""
    parameters: dict[str, Any] = {
        "input": str(task.source),
        "output": str(task.output),
        "job": str(task.job),
        "provider": "openai",
        "base_url": task.emulator.base_url,
        "batch_size": task.batch_size,
        "poll_interval": task.poll,
        "options": {"settle": "0"},
    }
    if task.max_in_flight is not None:
        parameters["max_in_flight"] = task.max_in_flight
    return measure(_python(OURS, orjson.dumps(parameters).decode()), {**ENVIRONMENT, **server})


def run_loop(task: Task) -> Measured:
    """The bare loop as a process."""
    arguments = (task.source, task.output, task.emulator.base_url, task.batch_size, task.poll)
    return measure(_python(LOOP, *map(str, arguments)), ENVIRONMENT)


def run_nothing(server: Mapping[str, str]) -> Measured:
    """A flow that does nothing, after the same imports as ours."""
    return measure(_python(OURS), {**ENVIRONMENT, **server})


def run_loop_with_nothing() -> Measured:
    """The loop's imports."""
    return measure(_python(LOOP), ENVIRONMENT)


def check_complete(task: Task, rows: int) -> None:
    """A run that lost rows would make its figures mean nothing."""
    found = count_answered(task.output)
    if found != (rows, rows):
        raise RunFailed(f"of {rows:,} rows {found[0]:,} came out, {found[1]:,} of them answered")


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]
