"""Money: exact, and unknown where it is not known."""

import pytest

from flows.domain.money import PICO, add, show_usd

MILLION = 10**6


@pytest.mark.parametrize(("one", "other", "total"), [(1, 2, 3), (None, 2, None), (1, None, None), (None, None, None)])
def test_what_is_unknown_stays_unknown(one: int | None, other: int | None, total: int | None) -> None:
    """An unpriced part never looks like a free one."""
    assert add(one, other) == total


@pytest.mark.parametrize(
    ("pico", "shown"),
    [
        (None, "unpriced"),
        (0, "$0.00"),
        (225 * PICO, "$225.00"),
        (1_234_567 * PICO, "$1,234,567.00"),
        (PICO // 20, "$0.0500"),
        (123 * MILLION, "$0.000123"),
        (1, "$0.000000"),
    ],
)
def test_money_for_the_eye(pico: int | None, shown: str) -> None:
    """Small sums keep places that large ones don't need, and the unknown has a word of its own."""
    assert show_usd(pico) == shown
