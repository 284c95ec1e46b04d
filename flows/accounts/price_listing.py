"""The price table in words: the command `prices`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from blocks.errors import UsageError
from blocks.printable import SHORT, printable
from flows.domain.price_rows import ALWAYS, KINDS, PriceRow
from flows.domain.prices import names_of
from flows.storage.price_files import price_table

HEAD = ("provider", "model", "service", "from", "above", *KINDS, "note")


@dataclass(frozen=True)
class Listing:
    """Rows of the price table, and the day for which they are shown."""

    rows: list[PriceRow]
    today: date

    def summary(self) -> dict[str, Any]:
        """For `--json`: all rows, those that hold no longer included. Prices are text, as exact as in the table."""
        return {"prices": [row.fields() for row in self.rows], "exit": 0}

    def text(self) -> str:
        """For people: the rows that hold today or later."""
        lines = [HEAD, *(_cells(row) for row in self.rows if not self._is_over(row))]
        widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD) - 1)]
        shown = ["  ".join([*map(str.ljust, line, widths), line[-1]]).rstrip() for line in lines]
        return "\n".join([*shown, "", "USD per million tokens; data/prices.csv has the sources"])

    def _is_over(self, row: PriceRow) -> bool:
        """Whether a later list of its service holds by now."""
        return any(other.place[:3] == row.place[:3] and row.since < other.since <= self.today for other in self.rows)


def _cells(row: PriceRow) -> tuple[str, ...]:
    since = "" if row.since == ALWAYS else row.since.isoformat()
    prices = (f"{row.prices[kind]:f}" if kind in row.prices else "" for kind in KINDS)
    return row.provider, row.model, row.service, since, f"{row.above:,}" if row.above else "", *prices, row.note


def listing(models: Sequence[str], provider: str | None, today: date) -> Listing:
    """The rows of these models, named in full or in part; of all if none is named."""
    wanted = [name for model in models for name in names_of(model)]
    rows = [
        row
        for row in price_table()
        if provider in {None, row.provider} and (not wanted or any(name in row.model for name in wanted))
    ]
    if not rows:
        asked = ", ".join(printable(name, SHORT) for name in models) or "any model"
        at = f" at {printable(provider, SHORT)}" if provider else ""
        raise UsageError(
            f"the price table has no price of {asked}{at}",
            next_step="`batchwerk prices` lists all; other prices can be given with `run --prices FILE`",
        )
    return Listing(rows, today)
