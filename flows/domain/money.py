"""Money, exactly: integers of pico-dollars. One token at 0.05 USD per million is 50,000 of them.

An unknown price is None and stays None through every sum: an unpriced model must never look like a free one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

PICO = 10**12  # pico-dollars in a dollar
PRICES_ARE_PER = 10**6  # tokens


@dataclass(frozen=True, slots=True)
class Tier:
    """Prices of one token in pico-dollars, for requests with more than `above` input tokens."""

    above: int
    input: int
    output: int
    batch_input: int
    batch_output: int
    source: str

    def cost(self, input_tokens: int, output_tokens: int) -> int:
        """What a request costs in a batch."""
        return input_tokens * self.batch_input + output_tokens * self.batch_output

    def single_cost(self, input_tokens: int, output_tokens: int) -> int:
        """What the same request would cost on its own."""
        return input_tokens * self.input + output_tokens * self.output


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """The price of a model: tiers by the input size of one request, so each request is priced by itself."""

    tiers: tuple[Tier, ...]  # ascending by `above`

    def tier(self, input_tokens: int) -> Tier:
        """The tier that a request with so many input tokens falls into."""
        chosen = self.tiers[0]
        for tier in self.tiers[1:]:
            if input_tokens > tier.above:
                chosen = tier
        return chosen


def read_prices(rows: Iterable[Mapping[str, str]]) -> dict[tuple[str, str], ModelPrice]:
    """Prices by (provider, model) from rows of the price table: USD per million tokens, as decimals."""
    tiers: dict[tuple[str, str], list[Tier]] = {}
    for row in rows:
        tier = Tier(
            above=int(row["above_input_tokens"] or 0),
            input=_pico_a_token(row["input"]),
            output=_pico_a_token(row["output"]),
            batch_input=_pico_a_token(row["batch_input"]),
            batch_output=_pico_a_token(row["batch_output"]),
            source=f"{row['source']}, {row['date']}",
        )
        tiers.setdefault((row["provider"], row["model"]), []).append(tier)
    return {name: ModelPrice(tuple(sorted(found, key=lambda tier: tier.above))) for name, found in tiers.items()}


def _pico_a_token(usd_per_million: str) -> int:
    pico = Decimal(usd_per_million) * PICO / PRICES_ARE_PER
    if pico != pico.to_integral_value():
        raise ValueError(f"{usd_per_million} USD per million tokens is finer than a pico-dollar a token")
    return int(pico)


def to_usd(pico: int) -> Decimal:
    """Pico-dollars as dollars, exact to twelve places."""
    return Decimal(pico).scaleb(-12)


def add(first: int | None, second: int | None) -> int | None:
    """A sum that is unknown as soon as one part is."""
    return None if first is None or second is None else first + second


def show_usd(pico: int | None) -> str:
    """For the eye: cents where there are dollars, more places where there are none; `unpriced` for the unknown."""
    if pico is None:
        return "unpriced"
    usd = to_usd(pico)
    places = 2 if usd >= 1 or usd == 0 else 4 if usd >= Decimal("0.01") else 6
    return f"${usd:,.{places}f}"
