"""Price lists: in force from a day on, in tiers by the size of a request, and unknown where nobody stated them."""

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.batch import Usage
from blocks.errors import UsageError
from flows.domain.money import PICO, to_usd
from flows.domain.price_rows import COLUMNS, NEEDED, read_rows
from flows.domain.prices import ModelPrice, Prices, Service, price_of, prices_of
from flows.storage.price_files import price_table

DAY = date(2026, 12, 1)
USD = 10**6  # pico-dollars a token, of one dollar per million


@pytest.fixture(scope="module")
def prices() -> Prices:
    return prices_of(price_table())


def row(**changes: str) -> dict[str, str]:
    usual = {"provider": "p", "model": "m", "service": "batch", "input": "1", "output": "4"}
    return {**dict.fromkeys(COLUMNS, ""), **usual, **changes}


def since(day: str, **changes: str) -> dict[str, str]:
    return {**row(**changes), "from": day}


def price(*rows: dict[str, str]) -> ModelPrice:
    return prices_of(read_rows(rows, "the table", COLUMNS))["p", "m"]


def test_each_request_falls_into_its_own_tier(prices: Prices) -> None:
    """Two requests of half the size are not one of the whole: the price is each request's own."""
    day = prices["gemini", "gemini-2.5-pro"].on(DAY)
    sizes = (0, 1, 199_999, 200_000, 200_001, 10**9)
    found = [rates.input for size in sizes if (rates := day.rates(size)) is not None]
    assert found == [625_000] * 4 + [1_250_000] * 2


def test_tiers_may_stand_in_any_order() -> None:
    """The table's order says nothing."""
    day = price(*(row(above_input_tokens=above, input=usd) for above, usd in (("200", "3"), ("", "1"), ("100", "2"))))
    assert [day.on(DAY).cost(Usage(n)) for n in (100, 101, 201)] == [100 * USD, 101 * 2 * USD, 201 * 3 * USD]


def test_a_price_holds_from_its_first_day_until_that_of_the_next() -> None:
    """The day itself belongs to the new price; before the first one there is none, and that is no zero."""
    held = price(since("2026-06-01", input="3"), since("2026-03-01", input="2"))
    days = [date(2026, 2, 28), date(2026, 3, 1), date(2026, 5, 31), date(2026, 6, 1), date(2030, 1, 1)]
    assert [held.on(day).cost(Usage(1)) for day in days] == [None, 2 * USD, 2 * USD, 3 * USD, 3 * USD]


def test_a_list_holds_as_a_whole() -> None:
    """A tier of an older list is not taken over into a newer one."""
    held = price(row(), row(above_input_tokens="100", input="9"), since("2026-06-01", input="2"))
    assert held.on(date(2026, 5, 1)).cost(Usage(101)) == 101 * 9 * USD
    assert held.on(date(2026, 6, 1)).cost(Usage(101)) == 101 * 2 * USD


def test_negotiated_prices_replace_the_tables_from_their_first_day_on() -> None:
    """Of their service alone, tiers included; before that day, and for other services, the table holds."""
    table = price(row(), row(above_input_tokens="100", input="2"), row(service="standard", input="2"))
    ours = price(since("2026-06-01", input="0.5")).over(table)
    before, after = ours.on(date(2026, 5, 31)), ours.on(date(2026, 6, 1))
    assert (before.cost(Usage(102)), after.cost(Usage(102))) == (204 * USD, 51 * USD)
    assert before.cost(Usage(1), Service.STANDARD) == after.cost(Usage(1), Service.STANDARD) == 2 * USD


def test_a_service_without_a_price_is_unpriced() -> None:
    """A batch is not taken to cost half of a single request, nor a flexible one as much as a batch."""
    day = price(row(service="standard")).on(DAY)
    assert day.cost(Usage(1), Service.STANDARD) == USD
    assert (day.cost(Usage(1)), day.cost(Usage(1), Service.FLEX)) == (None, None)


def test_every_price_of_the_table_can_be_read(prices: Prices) -> None:
    """A batch never costs more than its requests one by one, and no price is nothing, on any day."""
    for name, held in prices.items():
        for day in (date(2025, 1, 1), DAY, date(2027, 6, 1)):
            found = held.on(day)
            for tier in found.tiers[Service.BATCH]:
                single = found.rates(tier.above + 1, Service.STANDARD)
                for kind in ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"):
                    assert 0 < getattr(tier.rates, kind) <= getattr(single, kind), (name, kind)
                assert tier.rates.cache_read <= tier.rates.input, name


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.decimals("0", "1000", places=6),
    st.decimals("0", "1000", places=6),
)
def test_costs_are_exact(tokens_in: int, tokens_out: int, price_in: Decimal, price_out: Decimal) -> None:
    """Whole numbers of pico-dollars say the same as a calculation without rounding."""
    cost = price(row(input=f"{price_in:f}", output=f"{price_out:f}")).on(DAY).cost(Usage(tokens_in, tokens_out))
    exact = (tokens_in * int(price_in.scaleb(6)) + tokens_out * int(price_out.scaleb(6))) * PICO // 10**12
    assert cost == exact
    assert int(to_usd(exact).scaleb(12)) == exact


def test_cached_tokens_without_a_price_cost_as_much_as_others() -> None:
    """An unknown price must not look like none."""
    day = price(row()).on(DAY)
    assert day.cost(Usage(10, 0, 4, 2, 1)) == day.cost(Usage(10))


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
def test_a_dated_version_has_its_models_price(prices: Prices, provider: str, model: str, *, known: bool) -> None:
    """Any other name that the table lacks has none."""
    assert (price_of(prices, provider, model) is not None) == known


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"input": "0.0000015"}, "finer than a pico-dollar"),
        ({"input": "-1"}, "negative"),
        ({"output": ""}, "output is empty"),
        ({"output": "4 USD"}, "not a number"),
        ({"cache_read": "NaN"}, "not a number"),
        ({"input": "1e999"}, "dollar per token"),
        ({"input": "1" * 5_000}, "not a number"),
        ({"service": "cheap"}, "standard, batch, flex, priority"),
        ({"from": "1.1.2026"}, "no day"),
        ({"above_input_tokens": "-1"}, "whole number"),
        ({"above_input_tokens": "100"}, "none below"),
        ({"provider": "opnai"}, "no provider 'opnai'"),
    ],
)
def test_a_wrong_price_is_refused_in_a_sentence(changes: dict[str, str], problem: str) -> None:
    """A price that was mistyped would be a wrong sum over millions of tokens."""
    with pytest.raises(UsageError, match=problem) as error:
        read_rows([row(**changes)], "my.csv", COLUMNS, ("p", "openai"))
    assert error.value.message.startswith("my.csv")
    assert error.value.next_step


def test_the_finest_price_is_a_pico_dollar_per_token() -> None:
    """One token at 0.000001 USD per million costs exactly one of them."""
    assert price(row(input="0.000001")).on(DAY).cost(Usage(1)) == 1


@pytest.mark.parametrize(
    ("columns", "problem"), [((*NEEDED, "discount"), "no column 'discount'"), (NEEDED[1:], "'provider' is missing")]
)
def test_a_table_with_other_columns_is_refused(columns: tuple[str, ...], problem: str) -> None:
    """A column that is misspelled would be left out without a word."""
    with pytest.raises(UsageError, match=problem):
        read_rows([], "my.csv", columns)


def test_two_rows_for_the_same_are_refused() -> None:
    """Which of them holds nobody could say."""
    with pytest.raises(UsageError, match="row 2"):
        read_rows([row(), row(input="3")], "my.csv", COLUMNS)


def test_a_row_is_kept_as_it_was_read() -> None:
    """To the last digit, so that a batch is priced later as it was agreed when it was sent."""
    stated = since("2026-06-01", above_input_tokens="0", input="0.10", cache_read="0.000001", note="x, y")
    (found,) = read_rows([stated], "my.csv", COLUMNS)
    assert found.fields() == stated
