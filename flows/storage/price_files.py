"""Reading price tables: the one that Batchwerk brings, and files of negotiated prices."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path

from blocks.catalog import PROVIDERS
from blocks.errors import UsageError
from flows.domain.price_rows import COLUMNS, PriceRow, read_rows
from flows.domain.prices import Prices, prices_of
from flows.storage.small_files import read_small_file


@cache
def price_table() -> tuple[PriceRow, ...]:
    """The rows of the price table: in `data/` of a checkout, inside the package when installed from a wheel."""
    flows = Path(__file__).resolve().parents[1]
    places = [flows.parent / "data" / "prices.csv", flows / "prices.csv"]
    place = next(place for place in places if place.exists())
    return tuple(_read_csv(place.read_text(encoding="utf-8"), "the price table", ()))


@cache
def table_prices() -> Prices:
    """The price lists of the table."""
    return prices_of(price_table())


def read_price_file(path: Path) -> list[PriceRow]:
    """Negotiated prices. Raises UsageError for a file that can't be read, or for the first row that is wrong."""
    if not path.exists():
        raise UsageError(f"the price file {path} does not exist", next_step="it is a CSV file like data/prices.csv")
    return _read_csv(read_small_file(path, "the price file"), f"the price file {path}", PROVIDERS)


def kept_rows(rows: Iterable[Mapping[str, str]]) -> list[PriceRow]:
    """Rows that were kept as `PriceRow.fields` gives them. Raises ValueError for others."""
    try:
        return read_rows(rows, "the negotiated prices", COLUMNS)
    except UsageError as error:
        raise ValueError(error.message) from error


def _read_csv(text: str, name: str, providers: Collection[str]) -> list[PriceRow]:
    try:
        reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
        return read_rows(list(reader), name, reader.fieldnames or (), providers)
    except csv.Error as error:
        raise UsageError(f"{name} is not valid CSV: {error}", next_step="save it as CSV with commas") from error
