"""Money, exactly: integers of pico-dollars. One token at 0.05 USD per million is 50,000 of them.

An unknown price is None and stays None through every sum: an unpriced model must never look like a free one.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

PICO = 10**12  # pico-dollars in a dollar


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
    amount = 0
    for each in amounts:
        if each is None:
            return None
        amount += each
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
