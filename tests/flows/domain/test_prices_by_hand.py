"""What requests cost, computed by hand from the providers' prices: the arithmetic stands in each test's docstring.

USD per million tokens is the same as micro-dollars per token, which the sums below are in.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from blocks.batch import Usage
from blocks.providers.anthropic.codec import usage_of as anthropic_usage
from blocks.providers.chat import usage_of as openai_usage
from blocks.providers.gemini.answers import usage_of as gemini_usage
from flows.domain.events import Slice
from flows.domain.judging import BatchAnswers, Judge
from flows.domain.ledger import replay
from flows.domain.money import to_usd
from flows.domain.price_rows import COLUMNS, read_rows
from flows.domain.prices import ModelPrice, Service, price_of, prices_of
from flows.domain.schema import OutputSchema
from flows.storage.price_files import table_prices
from tests.flows.domain import histories
from tests.flows.domain.answers import GOOD, LABEL, answer

DAY = date(2026, 12, 1)
SERVICES = (Service.STANDARD, Service.FLEX, Service.PRIORITY)


def price(provider: str, model: str) -> ModelPrice:
    found = price_of(table_prices(), provider, model)
    assert found is not None
    return found


def usd(
    provider: str, model: str, usage: Usage | None, service: Service = Service.BATCH, day: date = DAY
) -> Decimal | None:
    """What the table makes of it."""
    assert usage is not None
    cost = price(provider, model).on(day).cost(usage, service)
    return None if cost is None else to_usd(cost)


@pytest.mark.parametrize(
    ("model", "single", "batch"),
    [
        ("claude-sonnet-4.5", "225.00", "112.50"),  # 10 x 15 + 5 x 15; 10 x 7.50 + 5 x 7.50
        ("gpt-4.1", "120.00", "60.00"),  # 10 x 8 + 5 x 8; 10 x 4 + 5 x 4
        ("deepseek-v3.2", "6.30", "3.15"),  # 10 x 0.42 + 5 x 0.42; 10 x 0.21 + 5 x 0.21
    ],
)
def test_the_tutorials_cost_table(model: str, single: str, batch: str) -> None:
    """10 M tokens in and 5 M out, as 10,000 requests of 1,000 and 500, at HolySheep's flat prices."""
    each = Usage(1_000, 500)
    found = [usd("holysheep", model, each, service) for service in (Service.STANDARD, Service.BATCH)]
    assert [10_000 * cost for cost in found if cost is not None] == [Decimal(single), Decimal(batch)]


def test_case_1_a_plain_batch() -> None:
    """gpt-4.1-mini in a batch, 0.20 in and 0.80 out: 1,234 x 0.20 + 56 x 0.80 = 246.8 + 44.8 = 291.6 micro-dollars."""
    assert usd("openai", "gpt-4.1-mini-2025-04-14", Usage(1_234, 56)) == Decimal("0.0002916")


def test_case_2_cache_reads_and_both_kinds_of_writes() -> None:
    """claude-haiku-4-5 in a batch: 41 plain x 0.50, 1,200 read x 0.05, 800 written 5m x 0.625, 400 written 1h x 1.

    20.5 + 60 + 500 + 400 = 980.5, and 9 out x 2.50 = 22.5: 1,003 micro-dollars.
    """
    told = {
        "input_tokens": 41,
        "output_tokens": 9,
        "cache_read_input_tokens": 1_200,
        "cache_creation_input_tokens": 1_200,
        "cache_creation": {"ephemeral_5m_input_tokens": 800, "ephemeral_1h_input_tokens": 400},
    }
    assert usd("anthropic", "claude-haiku-4-5-20251001", anthropic_usage(told)) == Decimal("0.001003")


def test_case_3_cached_tokens_inside_the_input() -> None:
    """gpt-5.4-mini in a batch: 2,000 in, of them 1,500 cached: 500 x 0.375 + 1,500 x 0.0375 + 100 out x 2.25.

    187.5 + 56.25 + 225 = 468.75 micro-dollars.
    """
    told = {"prompt_tokens": 2_000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 1_500}}
    assert usd("openai", "gpt-5.4-mini", openai_usage(told)) == Decimal("0.00046875")


def test_case_4_reasoning_inside_the_output() -> None:
    """OpenAI counts 300 reasoning tokens within 350 of output: 100 x 2.50 + 350 x 15 = 5,500, gpt-5.5 in a batch."""
    told = {
        "prompt_tokens": 100,
        "completion_tokens": 350,
        "completion_tokens_details": {"reasoning_tokens": 300},
    }
    assert usd("openai", "gpt-5.5", openai_usage(told)) == Decimal("0.0055")


def test_case_5_thoughts_beside_the_output() -> None:
    """Gemini counts 300 thoughts beside 50 candidates: 100 x 0.15 + (50 + 300) x 1.25 = 452.5, gemini-2.5-flash."""
    told = {"promptTokenCount": 100, "candidatesTokenCount": 50, "thoughtsTokenCount": 300, "totalTokenCount": 450}
    assert usd("gemini", "gemini-2.5-flash", gemini_usage(told)) == Decimal("0.0004525")


def test_case_6_flex_and_priority() -> None:
    """gpt-5.4-mini, 1,000 in of which 400 cached, 200 out.

    Standard: 600 x 0.75 + 400 x 0.075 + 200 x 4.50 = 450 + 30 + 900 = 1,380.
    Flex: 600 x 0.375 + 400 x 0.0375 + 200 x 2.25 = 225 + 15 + 450 = 690, half of it.
    Priority: 600 x 1.50 + 400 x 0.15 + 200 x 9 = 900 + 60 + 1,800 = 2,760, twice.
    """
    usage = Usage(1_000, 200, 400)
    found = [usd("openai", "gpt-5.4-mini", usage, service) for service in SERVICES]
    assert found == [Decimal("0.00138"), Decimal("0.00069"), Decimal("0.00276")]


def test_case_7_a_long_request_pays_the_higher_price_for_all_of_it() -> None:
    """gpt-5.5 in a batch: 272,000 in x 2.50 = 680,000, and one more token 272,001 x 5 = 1,360,005.

    With 10 out: 680,000 + 10 x 15 = 680,150; 1,360,005 + 10 x 22.50 = 1,360,230.
    """
    assert usd("openai", "gpt-5.5", Usage(272_000, 10)) == Decimal("0.68015")
    assert usd("openai", "gpt-5.5", Usage(272_001, 10)) == Decimal("1.36023")


def test_case_8_an_accidental_copy_is_a_request_of_its_own() -> None:
    """claude-haiku-5-5 in a batch, 60,000 in and 100 out, answered twice: each is below the tier above 100,000.

    2 x (60,000 x 0.05 + 100 x 0.25) = 2 x (3,000 + 25) = 6,050 micro-dollars; the 120,000 tokens of both
    together would cost 120,000 x 0.25 + 200 x 1.25 = 30,250, which nobody asks for.
    Single requests: 2 x (60,000 x 0.10 + 100 x 0.50) = 12,100.
    """
    ledger = replay([histories.submitting(7, Slice(0, 1))])
    judge = Judge(OutputSchema(LABEL), price("anthropic", "claude-haiku-5-5").on(DAY), max_attempts=3)
    taken = BatchAnswers(ledger.batches[7], judge)
    taken.take([answer(0, GOOD, usage=Usage(60_000, 100))])
    taken.take_copy([answer(0, GOOD, usage=Usage(60_000, 100))])
    judged = taken.finish()
    assert judged.costs == [judged.result.cost] == [6_050 * 10**6]
    assert judged.result.single_cost == 12_100 * 10**6
    assert (judged.result.input_tokens, judged.result.output_tokens) == (120_000, 200)


def test_case_9_the_day_on_which_the_batch_was_sent() -> None:
    """gemini-3.8-flash doubles on 1 January 2027: 1,000 x 0.375 + 100 x 1.875 = 562.5, then 1,125 micro-dollars.

    A batch of 23:59:59 UTC on 31 December costs the old price, whenever it ends.
    """
    day = {}
    for second in (-1, 0):
        at = datetime(2027, 1, 1, tzinfo=UTC).timestamp() + second
        ledger = replay([histories.submitting(7, Slice(0, 1))])
        ledger.batches[7].intended_at, ledger.batches[7].ended_at = at, at + 90_000
        day[second] = ledger.batches[7].sent_on
    found = [usd("gemini", "gemini-3.8-flash", Usage(1_000, 100), day=day[second]) for second in (-1, 0)]
    assert found == [Decimal("0.0005625"), Decimal("0.001125")]


def test_case_10_negotiated_prices() -> None:
    """gpt-4.1-mini at 0.18 in, 0.70 out and no price of its own for cached tokens, from 1 October 2026 in batches.

    On that day 1,000 in, 400 of them cached, and 100 out: 1,000 x 0.18 + 100 x 0.70 = 250 micro-dollars.
    The day before the table holds: 600 x 0.20 + 400 x 0.05 + 100 x 0.80 = 120 + 20 + 80 = 220.
    Single requests stay at 600 x 0.40 + 400 x 0.10 + 100 x 1.60 = 240 + 40 + 160 = 440.
    """
    fields = {"provider": "openai", "model": "gpt-4.1-mini", "service": "batch", "from": "2026-10-01"}
    rows = read_rows([{**fields, "input": "0.18", "output": "0.70"}], "agreed", COLUMNS)
    agreed = prices_of(rows)["openai", "gpt-4.1-mini"].over(price("openai", "gpt-4.1-mini"))
    usage = Usage(1_000, 100, 400)
    days = [agreed.on(date(2026, 9, 30)), agreed.on(date(2026, 10, 1))]
    assert [day.cost(usage) for day in days] == [220 * 10**6, 250 * 10**6]
    assert [day.cost(usage, Service.STANDARD) for day in days] == [440 * 10**6] * 2
