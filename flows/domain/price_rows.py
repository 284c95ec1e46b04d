"""One row of a price table, as text and checked: `data/prices.csv`, or a file of negotiated prices."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from blocks.errors import UsageError
from blocks.printable import SHORT, printable
from flows.domain.money import PICO

KINDS = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")  # of tokens
NEEDED = ("provider", "model", "service", "input", "output")
COLUMNS = ("provider", "model", "service", "from", "above_input_tokens", *KINDS, "source", "checked", "note")
SERVICES = ("standard", "batch", "flex", "priority")
PRICES_ARE_PER = 10**6  # tokens
ALWAYS = date.min  # of a price without a first day
LONGEST_NUMBER = 20  # characters


@dataclass(frozen=True, slots=True)
class PriceRow:
    """The price of one model, service and tier from a day on. Prices are USD per million tokens, None if not stated."""

    provider: str
    model: str
    service: str
    since: date
    above: int  # input tokens: for requests with more
    prices: Mapping[str, Decimal]  # by kind of token
    source: str = ""
    checked: str = ""  # the day on which the source was looked at
    note: str = ""

    def pico(self, kind: str) -> int:
        """Pico-dollars per token; of input if this kind has no price of its own."""
        return int(self.prices.get(kind, self.prices["input"]) * PICO / PRICES_ARE_PER)

    @property
    def place(self) -> tuple[str, str, str, date, int]:
        """What no two rows share."""
        return self.provider, self.model, self.service, self.since, self.above

    def fields(self) -> dict[str, str]:
        """The row as text, by column; inverse of `read_rows`."""
        shown = {kind: f"{self.prices[kind]:f}" if kind in self.prices else "" for kind in KINDS}
        since = "" if self.since == ALWAYS else self.since.isoformat()
        return {
            "provider": self.provider,
            "model": self.model,
            "service": self.service,
            "from": since,
            "above_input_tokens": str(self.above),
            **shown,
            "source": self.source,
            "checked": self.checked,
            "note": self.note,
        }


def read_rows(
    rows: Iterable[Mapping[Any, Any]], name: str, columns: Collection[str], providers: Collection[str] = ()
) -> list[PriceRow]:
    """The rows of a table called `name`. Raises UsageError for the first that is wrong, with its number.

    `providers`: those that a row may name; empty: any.
    """
    _check_columns(columns, name)
    found: dict[tuple[str, str, str, date, int], PriceRow] = {}
    for number, fields in enumerate(rows, 1):
        try:
            row = _read(fields, providers)
        except ValueError as error:
            raise UsageError(f"{name}, row {number}: {error}", next_step=_HELP) from error
        if found.setdefault(row.place, row) is not row:
            again = f"row {number}: an earlier row has its provider, model, service, first day and tier"
            raise UsageError(f"{name}, {again}", next_step="remove one of the two")
    for row in _without_a_base(found.values()):
        raise UsageError(
            f"{name}: {row.model} ({row.service}) has a price above {row.above:,} input tokens, but none below",
            next_step="add a row with 0 as above_input_tokens, with the same first day",
        )
    return list(found.values())


_HELP = "`batchwerk prices` shows rows as they have to be; prices are USD per million tokens"


def _check_columns(columns: Collection[str], name: str) -> None:
    unknown = [column for column in columns if column not in COLUMNS]
    missing = [column for column in NEEDED if column not in columns]
    if unknown or missing:
        problem = f"there is no column {printable(unknown[0], SHORT)!r}" if unknown else f"{missing[0]!r} is missing"
        raise UsageError(f"{name}: {problem}", next_step=f"the columns are {', '.join(COLUMNS)}")


def _read(fields: Mapping[Any, Any], providers: Collection[str]) -> PriceRow:
    if None in fields:
        raise ValueError("it has more values than there are columns")
    text = {str(column): str(value or "").strip() for column, value in fields.items()}
    for column in NEEDED:
        if not text.get(column):
            raise ValueError(f"{column} is empty")
    if providers and text["provider"] not in providers:
        raise ValueError(f"there is no provider {printable(text['provider'], SHORT)!r} among {', '.join(providers)}")
    if text["service"] not in SERVICES:
        raise ValueError(f"service {printable(text['service'], SHORT)!r} is none of {', '.join(SERVICES)}")
    return PriceRow(
        provider=text["provider"],
        model=text["model"],
        service=text["service"],
        since=_day(text.get("from", "")),
        above=_count(text.get("above_input_tokens", "")),
        prices={kind: _price(kind, text[kind]) for kind in KINDS if text.get(kind)},
        **{name: text.get(name, "") for name in ("source", "checked", "note")},
    )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text) if text else ALWAYS
    except ValueError:
        raise ValueError(f"from {printable(text, SHORT)!r} is no day such as 2026-11-22") from None


def _count(text: str) -> int:
    if text and (not (text.isascii() and text.isdecimal()) or len(text) > LONGEST_NUMBER):
        raise ValueError(f"above_input_tokens {printable(text, SHORT)!r} is not a whole number")
    return int(text or 0)


def _price(kind: str, text: str) -> Decimal:
    try:
        price = Decimal(text if len(text) <= LONGEST_NUMBER else "NaN")
    except InvalidOperation:
        price = Decimal("NaN")
    shown = printable(text, SHORT)
    if not price.is_finite():
        raise ValueError(f"{kind} {shown!r} is not a number of USD per million tokens")
    if price < 0:
        raise ValueError(f"{kind} {shown} is negative")
    if price > PRICES_ARE_PER:
        raise ValueError(f"{kind} {shown} is more than a dollar per token")
    pico = price * PICO / PRICES_ARE_PER
    if pico != pico.to_integral_value():
        raise ValueError(f"{kind} {shown} is finer than a pico-dollar per token")
    return price


def _without_a_base(rows: Iterable[PriceRow]) -> Iterator[PriceRow]:
    rows = list(rows)
    base = {row.place[:4] for row in rows if row.above == 0}
    return (row for row in rows if row.place[:4] not in base)
