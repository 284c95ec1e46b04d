"""What tests that kill runs share: the call that is killed and goes on, and what must be true after it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.flows.undecorated import emulator_ledger, enrich, reviews, write_job, write_texts

ROWS, BATCHES = 30, 2
FAULTS = {"failure_rate": "0.2", "invalid_rate": "0.1", "seed": "3"}
EVENTS = 14  # frozen, four for each of two batches and of one with repeats, published: at least
PLACES = [
    *(f"{kind}:{number}" for kind in ("before", "after") for number in range(1, EVENTS + 1)),
    *(f"torn:{number}" for number in (1, 2, 3, 9, 14)),
    *(f"{kind}:{number}" for kind in ("create", "results") for number in (1, 2, 3)),
    *(f"look:{number}" for number in (1, 2)),
]
DIALECTS = ["openai", "anthropic", "mistral", "gemini"]  # beside the default one


def parameters_for(folder: Path, rows: int = ROWS, **more: Any) -> dict[str, Any]:
    """The same call for the killed run and the one that goes on."""
    texts = [*reviews(rows), "Great battery", "Great battery"]
    found: dict[str, Any] = {
        "input": str(write_texts(folder, texts)),
        "output": str(folder / "out.parquet"),
        "job": str(write_job(folder)),
        "batch_size": (rows + 1) // BATCHES + 1,
        "options": FAULTS,
    }
    return {**found, **more}


RunUntil = Callable[[dict[str, Any], str], int]


def check_paid_once(output: Path, requests: int) -> None:
    """The emulator's own books: every distinct request answered well once, billed again only where it had not been."""
    sql = "SELECT count(*), count(DISTINCT prompt_hash) FROM billed WHERE valid"
    assert emulator_ledger(output, sql) == [(requests, requests)]
    twice = "SELECT custom_id, count(*) FROM billed GROUP BY custom_id HAVING count(*) > 1"
    assert emulator_ledger(output, twice) == []


def faults_of(dialect: str) -> dict[str, str]:
    """Anthropic's client mends labels in the wrong case: what the emulator calls broken may be a good answer."""
    return {**FAULTS, "dialect": dialect, "invalid_rate": "0" if dialect == "anthropic" else FAULTS["invalid_rate"]}


def check_goes_on(run_until: RunUntil, dialect: str, folder: Path, place: str) -> None:
    """Kill a run at a place in a dialect; the next one ends it and pays nothing twice."""
    parameters = parameters_for(folder, options=faults_of(dialect))
    assert run_until(parameters, place) == -signal.SIGKILL, "the place was never reached"
    figures = enrich(**parameters)
    assert figures.rows == {"ok": ROWS + 2}
    check_paid_once(Path(parameters["output"]), ROWS + 1)
