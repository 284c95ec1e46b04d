"""The runs of an output, one line each: the command `history`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blocks.errors import UsageError
from blocks.printable import SHORT, counted, printable
from flows.domain.money import show_cost, to_usd
from flows.report.figures import Figures, usd
from flows.report.progress import clock
from flows.storage.history import History, read_history
from flows.storage.output import FAILED, OK, PENDING, SKIPPED
from flows.storage.state import StateDirectory

SHOWN_RUNS = 50
MONEY = ("cost_usd", "estimate_usd", "total_cost_usd")
_HEAD = ("ended (UTC)", "exit", "ok", "failed", "pending", "requests", "cost", "estimated", "total", "time", "model")


def run_of(figures: Figures) -> dict[str, Any]:
    """The row of a run."""
    money = {"cost_usd": figures.money.this_call, "estimate_usd": figures.money.estimate}
    costs = {**money, "total_cost_usd": figures.money.total}
    return {
        "at": datetime.fromtimestamp(figures.ended_at, UTC),
        "run": figures.run,
        "model": figures.model,
        "emulated": figures.emulated,
        "exit": int(figures.exit),
        **{status: figures.rows.get(status, 0) for status in (OK, FAILED, SKIPPED, PENDING)},
        "requests": figures.attempts,
        "input_tokens": figures.input_tokens,
        "output_tokens": figures.output_tokens,
        **{name: None if pico is None else to_usd(pico) for name, pico in costs.items()},
        "seconds": round(figures.seconds, 3),
    }


def runs_as_json(history: History) -> list[dict[str, Any]]:
    """The runs for report.json and `--json`, with exact sums."""
    return [_as_json(run) for run in history.runs]


def _as_json(run: dict[str, Any]) -> dict[str, Any]:
    return {**run, "at": run["at"].isoformat(timespec="seconds"), **{name: usd(_pico(run[name])) for name in MONEY}}


def _pico(amount: Any) -> int | None:
    return None if amount is None else int(amount.scaleb(12))


def history_of(output: Path) -> History:
    """All that is known of the output's runs. Raises UsageError if there were none."""
    state = StateDirectory(output)
    if state.read_run() is None:
        raise UsageError(f"{output} was not written by Batchwerk", next_step="pass the OUTPUT that was given to `run`")
    history = read_history(state.runs)
    if not history.runs:
        raise UsageError(f"{output} has no history yet", next_step="each run adds a line when it ends")
    return history


def history_text(history: History) -> str:
    """For people: the newest runs, the newest last."""
    shown = history.runs[-SHOWN_RUNS:]
    lines = _aligned([_HEAD, *map(_cells, shown)])
    left = len(history.runs) - len(shown) + history.earlier
    return "\n".join([*lines, *([f"and {counted(left, 'earlier run')}"] if left else [])])


def _cells(run: dict[str, Any]) -> tuple[str, ...]:
    cost, estimate, total = (show_cost(_pico(run[name]), emulated=run["emulated"]) for name in MONEY)
    counts = (f"{run[name]:,}" for name in (OK, FAILED, PENDING, "requests"))
    model = printable(run["model"] or "", SHORT)
    return (
        f"{run['at']:%Y-%m-%d %H:%M}",
        str(run["exit"]),
        *counts,
        cost,
        estimate,
        total,
        clock(run["seconds"]),
        model,
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if place in {0, last} else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
