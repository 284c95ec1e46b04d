"""Money, exactly: integers of pico-dollars. One token at 0.05 USD per million is 50,000 of them.

An unknown price is None and stays None through every sum: an unpriced model must never look like a free one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from blocks.batch import Usage

PICO = 10**12  # pico-dollars in a dollar
PRICES_ARE_PER = 10**6  # tokens


@dataclass(frozen=True, slots=True)
class Rates:
    """Pico-dollars per token."""

    input: int
    output: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int

    def cost(self, usage: Usage) -> int:
        """Pico-dollars of a request with this usage."""
        read, write_5m, write_1h = usage[2:]
        if not (read or write_5m or write_1h):  # the usual case: no cache
            return usage[0] * self.input + usage[1] * self.output
        return (
            (usage[0] - read - write_5m - write_1h) * self.input
            + usage[1] * self.output
            + read * self.cache_read
            + write_5m * self.cache_write_5m
            + write_1h * self.cache_write_1h
        )


@dataclass(frozen=True, slots=True)
class Tier:
    """Prices of requests with more than `above` input tokens: in a batch, and as single requests."""

    above: int
    batch: Rates
    single: Rates
    source: str


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """The price of a model: tiers by the input size of one request, so each request is priced by itself."""

    tiers: tuple[Tier, ...]  # ascending by `above`

    def tier(self, input_tokens: int) -> Tier:
        """The tier that a request with this many input tokens falls into."""
        chosen = self.tiers[0]
        for tier in self.tiers[1:]:
            if input_tokens > tier.above:
                chosen = tier
        return chosen


def read_prices(rows: Iterable[Mapping[str, str]]) -> dict[tuple[str, str], ModelPrice]:
    """Prices by (provider, model) from rows of the price table: USD per million tokens, as decimals."""
    tiers: dict[tuple[str, str], list[Tier]] = {}
    for row in rows:
        source = f"{row['source']}, {row['date']}"
        tier = Tier(int(row["above_input_tokens"] or 0), _rates(row, "batch_"), _rates(row, ""), source)
        tiers.setdefault((row["provider"], row["model"]), []).append(tier)
    return {name: ModelPrice(tuple(sorted(found, key=lambda tier: tier.above))) for name, found in tiers.items()}


def _rates(row: Mapping[str, str], prefix: str) -> Rates:
    """Cached tokens cost as much as others if the table has no price for them."""
    names = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
    return Rates(*(_pico_a_token(row[f"{prefix}{name}"] or row[f"{prefix}input"]) for name in names))


_DATE = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2})$")


def price_of(table: Mapping[tuple[str, str], ModelPrice], provider: str, model: str) -> ModelPrice | None:
    """The price of a model, even if named by a dated version; None if the table lacks it."""
    name = model.removeprefix("models/")
    return table.get((provider, name)) or table.get((provider, _DATE.sub("", name)))


def _pico_a_token(usd_per_million: str) -> int:
    pico = Decimal(usd_per_million) * PICO / PRICES_ARE_PER
    if pico != pico.to_integral_value():
        raise ValueError(f"{usd_per_million} USD per million tokens is finer than a pico-dollar per token")
    return int(pico)


def from_usd(usd: float) -> int:
    """Dollars, as somebody typed them, as pico-dollars."""
    return int(Decimal(str(usd)) * PICO)


def to_usd(pico: int) -> Decimal:
    """Pico-dollars as dollars, exact to twelve places."""
    return Decimal(pico).scaleb(-12)


def add(first: int | None, second: int | None) -> int | None:
    """The sum; None if any amount is unknown."""
    return None if first is None or second is None else first + second


def total(amounts: Iterable[int | None]) -> int | None:
    """The sum; None if any amount is unknown."""
    amount: int | None = 0
    for each in amounts:
        amount = add(amount, each)
    return amount


def show_cost(pico: int | None, *, emulated: bool) -> str:
    """Like `show_usd`; what the emulator's answers would have cost says so."""
    return f"{show_usd(pico)} (emulated)" if emulated else show_usd(pico)


def show_usd(pico: int | None) -> str:
    """For display: cents from one dollar up, more places below; `unpriced` if unknown."""
    if pico is None:
        return "unpriced"
    usd = to_usd(pico)
    places = 2 if usd >= 1 or usd == 0 else 4 if usd >= Decimal("0.01") else 6
    return f"${usd:,.{places}f}"
