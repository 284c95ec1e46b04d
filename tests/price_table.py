"""The price table as anybody can read it, without the code that is judged by it."""

from __future__ import annotations

import csv
from datetime import UTC, date, datetime
from pathlib import Path

TABLE = Path(__file__).resolve().parents[1] / "data" / "prices.csv"
KINDS = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")


def table_rows() -> list[dict[str, str]]:
    with TABLE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def row_of(provider: str, model: str, service: str = "batch", day: date | None = None) -> dict[str, str]:
    """The row for small requests of a model, on a day; today if none is named."""
    wanted, last = (provider, model, service, "0"), (day or datetime.now(UTC).date()).isoformat()
    names = ("provider", "model", "service", "above_input_tokens")
    rows = [row for row in table_rows() if tuple(row[name] for name in names) == wanted and row["from"] <= last]
    return max(rows, key=lambda row: row["from"])
