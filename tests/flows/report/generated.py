"""Reports of any size, without the runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson

from flows.domain.advice import Advice
from flows.domain.estimate import Estimate
from flows.report.contents import Contents
from flows.report.figures import Figures, Foretold, Money
from flows.report.history import runs_as_json
from flows.report.verdict import Exit
from flows.storage.history import History
from tests.flows.report.reports import figures_with, line

PICO = 10**12
AT = datetime(2026, 12, 1, 3, tzinfo=UTC)
EVIL = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>\x1b]52;\u202e\x9b&{{ 7*7 }}"


def report_of(batches: int, rows: int, runs: int, **changes: Any) -> bytes:
    """A report.json with so many batches, rows and runs."""
    figures = figures_of(batches, rows, **changes)
    history = History([a_run(number, rows) for number in range(runs)], earlier=3)
    return orjson.dumps({**figures.details(), "history": runs_as_json(history), "earlier_runs": history.earlier})


def figures_of(batches: int, rows: int, **changes: Any) -> Figures:
    """Figures in which one batch in seven has a problem, and one row in fifty failed."""
    each, failed = rows // batches, rows // 50
    table = [a_batch(number, each) for number in range(1, batches + 1)]
    total = sum(found["cost_usd"] for found in table)
    spent = {"good_rows": total * 9 // 10, "rejected_answers": total - total * 9 // 10}
    reasons = ["cut_off_answers", "other_failures", "repeated_answers", "accidental_copies", "lost_answers"]
    spent |= dict.fromkeys([*reasons, "answers_no_row_shows"], 0)
    money = Money(total, total, 2 * total, total * 11 // 10, spent["rejected_answers"], 12 * PICO, 0, 0, spending=spent)
    usual: dict[str, Any] = {
        "table": table,
        "rows": {"ok": rows - failed, "failed": failed},
        "money": money,
        "seconds": 3600.0,
        "ended_at": 1e9 + 3600,
        "exit": Exit.ROWS_FAILED,
        "message": f"{failed:,} of {rows:,} rows failed; the column _error says why",
        "foretold": Foretold(Estimate(rows, rows * 300, rows * 30, total * 11 // 10, 2 * total), rows, 1, 2, total),
        "advice": [Advice(f"a cheaper model: m{n}", "--model m", n * 12345 * 10**6) for n in (3, 2, 1)],
        "contents": contents_of(rows, failed),
    }
    return figures_with(**{**usual, **changes})


def a_batch(number: int, requests: int) -> dict[str, Any]:
    """Sent after the others, and not as dear as others."""
    began = 1e9 + number % 500
    bad = number % 7 == 0
    return line(
        number,
        requests=requests,
        ok=requests - 1 if bad else requests,
        cost_usd=PICO + number * 7919 % 10_007 * 10**7,
        times=[began - number % 50, began, began + 1, began + 900 + number % 1000, began + 1950],
        note="it expired " + "x" * 200 if bad else "",
        provider_seconds=899.0 + number % 1000,
    )


def contents_of(rows: int, failed: int) -> Contents:
    """Fields of all kinds, and many reasons."""
    long = "word " * 80
    example = {"file": "out.parquet", "row": 7, "input": {"text": long}, "more_columns": 0, "answer": {"label": long}}
    top = [{"value": f"value {n}", "count": rows // 20 - n} for n in range(12)]
    reasons = [
        {
            "reason": f"reason {n} {'r' * 120}",
            "rows": failed // 12,
            "remedy": "correct the data",
            "command": "batchwerk run in.parquet out.parquet --retry-failed",
            "examples": [{**example, "error": long}] * 2,
        }
        for n in range(10)
    ]
    return Contents(
        rows=rows,
        rows_read=rows,
        failures=reasons,
        more_reasons=4,
        more_failed=failed - 10 * (failed // 12),
        fields=[
            {"field": f"f{n}", "given": rows, "nulls": 1, "different": 13, "top": top, "rest": 9} for n in range(20)
        ]
        + [
            {"field": "text", "given": rows, "nulls": 0, "lengths": [{"to": 8, "count": 1}, {"to": 16, "count": 5}]},
            {
                "field": "score", "given": rows, "nulls": 0, "lowest": 0.5, "highest": 7.25, "mean": 3.1,
                "sizes": [{"from": 0.5, "to": 1.0, "count": 3}],
            },
        ],
        more_fields=2,
        examples=[example] * 5,
    )  # fmt: skip


def a_run(number: int, rows: int) -> dict[str, Any]:
    """One run of a history."""
    return {
        "at": AT + timedelta(hours=number),
        "run": "abcd2345",
        "model": "gpt-4.1",
        "emulated": number % 5 == 0,
        "exit": 0,
        "ok": rows - number,
        "failed": number,
        "skipped": 0,
        "pending": 0,
        "requests": number * 13 % 101,
        "input_tokens": 5,
        "output_tokens": 6,
        "cost_usd": None if number % 11 == 0 else Decimal(number * 7919 % 997) / 100,
        "estimate_usd": Decimal(3),
        "total_cost_usd": Decimal(number),
        "seconds": 60.5,
    }
