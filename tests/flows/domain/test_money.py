"""Money: exact, by request, and unknown where it is not known."""

import csv
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.batch import Usage
from flows.domain.money import PICO, ModelPrice, Rates, Tier, add, price_of, read_prices, show_usd, to_usd

TABLE = Path(__file__).resolve().parents[3] / "data" / "prices.csv"
MILLION = 10**6


@pytest.fixture(scope="module")
def prices() -> dict[tuple[str, str], ModelPrice]:
    with TABLE.open(newline="", encoding="utf-8") as file:
        return read_prices(csv.DictReader(file))


def row(**changes: str) -> dict[str, str]:
    usual = {"provider": "p", "model": "m", "above_input_tokens": "0", "input": "2", "output": "8"}
    batch = {"batch_input": "1", "batch_output": "4", "source": "s", "date": "2026-04-01"}
    cached = {f"{kind}cache_{name}": "" for kind in ("", "batch_") for name in ("read", "write_5m", "write_1h")}
    return {**usual, **batch, **cached, **changes}


def test_the_tutorials_example_is_exact(prices: dict[tuple[str, str], ModelPrice]) -> None:
    """10 M tokens in and 5 M out on claude-sonnet-4.5 cost 225.00 USD one by one and 112.50 in batches."""
    price = prices["holysheep", "claude-sonnet-4.5"]
    requests, tokens_in, tokens_out = 10_000, 1_000, 500
    tier = price.tier(tokens_in)
    assert to_usd(requests * tier.single.cost(Usage(tokens_in, tokens_out))) == Decimal("225.00")
    assert to_usd(requests * tier.batch.cost(Usage(tokens_in, tokens_out))) == Decimal("112.50")


def test_the_cheapest_token_is_a_whole_number(prices: dict[tuple[str, str], ModelPrice]) -> None:
    """One token at 0.05 USD per million is 50,000 pico-dollars; nothing is rounded."""
    assert prices["anthropic", "claude-haiku-5-5"].tier(1).batch.input == 50_000
    assert prices["openai", "gpt-4o-mini"].tier(1).batch.input == 75_000


def test_each_request_falls_into_its_own_tier(prices: dict[tuple[str, str], ModelPrice]) -> None:
    """Two requests of half the size are not one of the whole: the price is each request's own."""
    price = prices["gemini", "gemini-2.5-pro"]
    assert [price.tier(n).above for n in (0, 1, 199_999, 200_000, 200_001, 10**9)] == [0, 0, 0, 0, 200_000, 200_000]
    small, large = price.tier(150_000), price.tier(300_000)
    assert 2 * small.batch.cost(Usage(150_000)) < large.batch.cost(Usage(300_000))


def test_tiers_may_stand_in_any_order() -> None:
    """The table's order says nothing."""
    tiers = [row(above_input_tokens=above, input=above) for above in ("200", "0", "100")]
    price = read_prices(tiers)["p", "m"]
    assert [price.tier(n).above for n in (100, 101, 201)] == [0, 100, 200]


def test_a_price_finer_than_the_unit_is_refused() -> None:
    """Rounding a price would be a wrong sum over millions of tokens."""
    assert read_prices([row(input="0.000001")])["p", "m"].tier(0).single.input == 1
    with pytest.raises(ValueError, match="finer"):
        read_prices([row(input="0.0000015")])


def test_every_price_of_the_table_can_be_read(prices: dict[tuple[str, str], ModelPrice]) -> None:
    """A batch never costs more than its requests one by one, and no price is nothing."""
    for name, price in prices.items():
        assert price.tiers[0].above == 0, name
        for tier in price.tiers:
            for kind in ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"):
                assert 0 < getattr(tier.batch, kind) <= getattr(tier.single, kind), (name, kind)
            assert tier.batch.cache_read <= tier.batch.input, name
            assert tier.source


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.decimals("0", "1000", places=6),
    st.decimals("0", "1000", places=6),
)
def test_costs_are_exact(tokens_in: int, tokens_out: int, price_in: Decimal, price_out: Decimal) -> None:
    """Whole numbers of pico-dollars say the same as a calculation without rounding."""
    tier = read_prices([row(batch_input=str(price_in), batch_output=str(price_out))])["p", "m"].tiers[0]
    exact = (tokens_in * int(price_in.scaleb(6)) + tokens_out * int(price_out.scaleb(6))) * PICO // 10**12
    assert tier.batch.cost(Usage(tokens_in, tokens_out)) == exact
    assert int(to_usd(exact).scaleb(12)) == exact


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


def test_a_tier_knows_both_prices() -> None:
    """What a batch costs and what single requests would have."""
    tier = Tier(0, Rates(1, 2, 1, 1, 1), Rates(4, 8, 4, 4, 4), "")
    assert (tier.batch.cost(Usage(10, 100)), tier.single.cost(Usage(10, 100))) == (210, 840)


def test_tokens_of_a_cache_have_prices_of_their_own(prices: dict[tuple[str, str], ModelPrice]) -> None:
    """Of 1 M tokens 0.4 M were read, 0.2 M written for five minutes, 0.1 M for an hour; a batch costs half."""
    usage = Usage(1_000_000, 0, 400_000, 200_000, 100_000)
    rates = prices["anthropic", "claude-haiku-4-5"].tier(1)
    assert to_usd(rates.single.cost(usage)) == Decimal("0.3") + Decimal("0.04") + Decimal("0.25") + Decimal("0.2")
    assert 2 * rates.batch.cost(usage) == rates.single.cost(usage)


def test_cached_tokens_are_not_discounted_where_the_provider_says_so(prices: dict[tuple[str, str], ModelPrice]) -> None:
    """Gemini prices them as in single requests."""
    rates = prices["gemini", "gemini-2.5-flash"].tier(1)
    assert rates.batch.cache_read == rates.single.cache_read


def test_cached_tokens_without_a_price_cost_as_much_as_others() -> None:
    """An unknown price must not look like none."""
    rates = read_prices([row()])["p", "m"].tier(0).batch
    assert rates.cost(Usage(10, 0, 4, 2, 1)) == rates.cost(Usage(10))


@pytest.mark.parametrize(
    ("provider", "model", "known"),
    [
        ("anthropic", "claude-haiku-4-5", True),
        ("anthropic", "claude-haiku-4-5-20251001", True),
        ("openai", "gpt-4.1-mini-2025-04-14", True),
        ("gemini", "models/gemini-2.5-flash", True),
        ("openai", "claude-haiku-4-5", False),
        ("openai", "gpt-4.1-mini-mine", False),
        ("openai", "gpt-4.1-mini-2025", False),
        ("openai", "", False),
    ],
)
def test_a_dated_version_has_its_models_price(
    prices: dict[tuple[str, str], ModelPrice], provider: str, model: str, *, known: bool
) -> None:
    """Any other name that the table lacks has none."""
    assert (price_of(prices, provider, model) is not None) == known
