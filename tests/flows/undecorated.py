"""The pipeline without Prefect: the same loop and the same functions, started on plain threads."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.errors import BatchwerkError
from flows.batches.orchestrator import Threads
from flows.cancel import cancel_output
from flows.harvest import harvest_output
from flows.pipeline import run_pipeline
from flows.preflight import check, harvest_config
from flows.report.figures import Figures
from flows.settings import read_settings

JOB = """\
name: test
model: gpt-4.1
prompt: "Review: {{ text }}"
output:
  sentiment: {type: string, enum: [positive, negative, neutral]}
  topics: {type: array, items: {type: string}}
"""


def enrich(**parameters: Any) -> Figures:
    """Run the pipeline; fast emulator unless told otherwise."""
    parameters = {"provider": "local", "options": {}, **parameters}
    if parameters["provider"] == "local":
        parameters["options"] = {"latency": "0", **parameters["options"]}
    settings = read_settings(parameters)
    with Threads() as threads:
        return run_pipeline(check(settings), threads)


def harvest(output: Path, wait: float = 0.0) -> Figures:
    """Harvest an output, as the flow does."""
    with Threads() as threads:
        return harvest_output(harvest_config(output, wait), threads)


def cancel(output: str | Path, **more: Any) -> Figures:
    """Cancel an output whose batches all stop, and that can be published."""
    cancelled = cancel_output(Path(output), **more)
    assert cancelled.left == {}
    assert cancelled.figures is not None, cancelled.unpublished
    return cancelled.figures


def main(parameters: str) -> None:
    """For a process of its own: parameters as JSON; prints the exit status, fails with the sentence of an error."""
    try:
        figures = enrich(**orjson.loads(parameters))
    except BatchwerkError as error:
        sys.exit(str(error))
    sys.stdout.write(f"{int(figures.exit)}\n")


def given_up_at_once(monkeypatch: pytest.MonkeyPatch, looks: int = 1) -> None:
    """A batch that is not found counts as gone after so many looks, and these follow each other at once."""
    for name, value in {"FRESH": 0.0, "PAUSE": 0.0, "LOOKS": looks, "SPAN": 0.0}.items():
        monkeypatch.setattr(f"flows.domain.vanishing.{name}", value)


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Look again and again; what never happens fails the test."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"did not happen within {seconds:.0f} s"
        time.sleep(0.02)


def write_job(folder: Path, text: str = JOB) -> Path:
    """A job file."""
    path = folder / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def write_texts(folder: Path, texts: Sequence[str | None], name: str = "input.parquet") -> Path:
    """An input with a number and a text a row."""
    path = folder / name
    pq.write_table(pa.table({"id": list(range(len(texts))), "text": pa.array(texts, pa.string())}), path)
    return path


def reviews(count: int) -> list[str | None]:
    """Distinct texts."""
    return [
        f"Review {i}: the battery is {'great' if i % 2 else 'bad'} and the delivery was late." for i in range(count)
    ]


def emulator_ledger(output: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask the emulator's own books, which know nothing of ours."""
    (place,) = (output.parent / f"_{output.name}.batchwerk").glob("emulator-*.sqlite")
    with closing(sqlite3.connect(place)) as db:
        return db.execute(sql).fetchall()
