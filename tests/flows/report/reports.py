"""Runs whose reports are tested, and figures built by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from flows.report.figures import Figures, Money
from flows.report.verdict import Exit
from flows.storage.state import StateDirectory
from tests.flows.undecorated import JOB, emulator_ledger, enrich, reviews, write_job, write_texts

PRICE = 4 * 10**6  # pico-dollars of a token of gpt-4.1 in HolySheep's batches, in or out: 4 USD per million
TEXTS = [*reviews(60), *reviews(5), None, "", " "]  # 60 to ask for, 5 again, 3 that the job skips
FAULTS = {"failure_rate": "0.2", "invalid_rate": "0.2", "refusal_rate": "0.1", "fault_attempts": "2", "seed": "3"}


@dataclass(frozen=True)
class Reported:
    """A run that has ended."""

    output: Path
    figures: Figures

    @property
    def text(self) -> str:
        """report.md."""
        return StateDirectory(self.output).report("md").read_text(encoding="utf-8")

    @property
    def raw(self) -> str:
        """report.json as it is written."""
        return StateDirectory(self.output).report("json").read_text(encoding="utf-8")

    @property
    def json(self) -> dict[str, Any]:
        """report.json with exact numbers."""
        return dict(json.loads(self.raw, parse_float=Decimal))

    def emulator(self, sql: str) -> tuple[Any, ...]:
        """One row of the emulator's own books."""
        (row,) = emulator_ledger(self.output, sql)
        return row


def run_reported(folder: Path, texts: list[str | None] = TEXTS, **parameters: Any) -> Reported:
    """Run in batches of 20 and two attempts, with the faults above unless told otherwise."""
    output = folder / "out.parquet"
    job = write_job(folder, JOB + "skip_empty: [text]\n")
    parameters = {"batch_size": 20, "max_attempts": 2, "options": FAULTS, **parameters}
    return Reported(output, enrich(input=write_texts(folder, texts), output=output, job=job, **parameters))


def figures_with(**changes: Any) -> Figures:
    """Figures of a small run without anything special, but for the changes."""
    plain: dict[str, Any] = {
        "job": "reviews",
        "model": "gpt-4.1",
        "provider": "openai",
        "dialect": "openai",
        "emulated": False,
        "input": "in.parquet",
        "output": "out.parquet",
        "run": "abcd2345",
        "rows": {"ok": 10},
        "selected": (10, 10),
        "requests": 10,
        "deduplicated": 0,
        "reused": 0,
        "batches": 1,
        "attempts": 10,
        "input_tokens": 1000,
        "output_tokens": 200,
        "cached_tokens": 0,
        "unmetered": 0,
        "money": Money(10**12, 3 * 10**12, 6 * 10**12, 2 * 10**12, 0, 0, 2 * 10**12, 0),
        "outcomes": {"ok": 10},
        "table": [line(1)],
        "seconds": 1.5,
        "exit": Exit.DONE,
        "message": "",
        "ended_at": 1e9 + 61,
        "commands": {"continue": "batchwerk run in.parquet", "retry": "batchwerk run in.parquet --retry-failed"},
    }
    return Figures(**{**plain, **changes})


def line(batch: int, **changes: Any) -> dict[str, Any]:
    """A line of the table of batches."""
    return {
        "batch": batch,
        "id": f"batch_{batch}",
        "state": "collected",
        "emulated": False,
        "requests": 10,
        "attempts": {"1": 10},
        "ok": 10,
        "outcomes": {"ok": 10},
        "input_tokens": 1000,
        "output_tokens": 200,
        "cost_usd": 10**12,
        "times": [1e9 - 5, 1e9, 1e9 + 0.1, 1e9 + 60.1, 1e9 + 60.3],
        "waiting_seconds": 5.0,
        "sending_seconds": 0.1,
        "provider_seconds": 60.0,
        "collecting_seconds": 0.2,
        "note": "",
        **changes,
    }
