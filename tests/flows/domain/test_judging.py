"""Judging answers: in any order, each once, nothing lost and every token counted."""

from random import Random
from typing import Any

import pytest

from blocks.batch import Answer, FailureKind, Usage
from flows.domain.events import BatchResult, Slice
from flows.domain.judging import BatchAnswers, Judge, JudgedBatch
from flows.domain.ledger import replay
from flows.domain.prices import UNPRICED, DayPrice, Rates
from flows.domain.schema import OutputSchema
from tests.flows.domain import histories
from tests.flows.domain.answers import GOOD, LABEL, PRICE, RUN, answer, failure
from tests.flows.domain.pricing import day_price


def judge(
    slices: list[Slice], answers: list[Answer], price: DayPrice = PRICE, failed: str | None = None
) -> tuple[list[dict[str, Any]], BatchResult]:
    ledger = replay([histories.submitting(7, *slices)])
    taken = BatchAnswers(ledger.batches[7], Judge(OutputSchema(LABEL), price, max_attempts=3))
    taken.take(answers)
    judged = taken.finish(failed=failed)
    assert judged.requests == sorted(n for s in slices for n in range(s.start, s.stop))
    return rows_of(judged), judged.result


def rows_of(judged: JudgedBatch) -> list[dict[str, Any]]:
    """A dictionary for each request."""
    rows = zip(judged.verdicts, judged.attempts, judged.costs, strict=True)
    return [{**verdict._asdict(), "attempt": attempt, "cost": cost} for verdict, attempt, cost in rows]


def test_answers_come_in_any_order() -> None:
    """They are put into the order of their requests."""
    answers = [answer(n, f'{{"label": "{n}"}}') for n in range(50)]
    Random(1).shuffle(answers)  # noqa: S311  # a test's dice
    rows, result = judge([Slice(0, 50)], answers)
    assert [row["values"]["label"] for row in rows] == [str(n) for n in range(50)]
    assert (result.ok, result.retry, result.final, result.strays) == (50, [], [], 0)
    assert result.outcomes == {"ok": 50}


@pytest.mark.parametrize(
    "custom_id",
    [
        f"{RUN}-7-9-1",
        f"{RUN}-7-1-2",
        f"{RUN}-7-1-0",
        f"{RUN}-7-1",
        f"{RUN}-7-1-1-1",
        f"{RUN}-8-1-1",
        f"{RUN}-1-1",
        f"{RUN}-7--1-1",
        f"{RUN}-7-x-1",
        f"{RUN}-7-1-x",
        f"{RUN}-71-1-1",
        f"{RUN}-7-01-1",
        f"{RUN}-7-\u0661-1",
        f"{RUN}-7-{'1' * 5000}-1",
        "otherrun-7-1-1",
        "1",
    ],
)
def test_an_answer_of_another_run_request_or_attempt_is_a_stray(custom_id: str) -> None:
    """It is counted and never put on a row."""
    rows, result = judge([Slice(1, 2)], [Answer(custom_id, GOOD, Usage(1, 1), None)])
    assert (result.strays, result.ok, result.outcomes) == (1, 0, {"missing": 1})
    assert rows[0]["values"] is None
    assert result.cost == 0


@pytest.mark.parametrize("order", [1, -1])
def test_an_answer_replaces_a_failure_in_whatever_order_they_come(order: int) -> None:
    """What both cost adds up; a line that comes twice is billed once."""
    failed = failure(1, FailureKind.TRANSIENT, Usage(30, 0))
    rows, result = judge([Slice(1, 2)], [failed, failed, answer(1, GOOD), answer(1, GOOD)][::order])
    assert (rows[0]["outcome"], result.ok, result.retry) == ("ok", 1, [])
    assert (result.input_tokens, result.output_tokens) == (130, 10)


def test_an_answer_that_nobody_can_read_was_billed() -> None:
    """It goes again, and its cost is unknown, not nothing; also where another line answers the request."""
    torn = failure(1, FailureKind.UNREADABLE)
    rows, result = judge([Slice(1, 2)], [torn])
    assert (rows[0]["outcome"], result.unmetered, result.lost) == ("unreadable", 1, 1)
    assert result.retry == [Slice(1, 2, 2, 1, 7)]
    _, result = judge([Slice(1, 2)], [torn, answer(1, GOOD)])
    assert (result.ok, result.unmetered, result.lost) == (1, 1, 1)


def test_an_answer_to_nobody_is_one_of_those_that_lack() -> None:
    """Of two requests without an answer at most one was billed."""
    _, result = judge([Slice(1, 4)], [answer(1, GOOD), Answer("", None, None, None)])
    assert result.outcomes == {"ok": 1, "vanished": 2}
    assert (result.nameless, result.unmetered, result.lost, result.strays) == (1, 1, 1, 0)


def test_a_second_answer_to_a_request_is_a_stray() -> None:
    """The first one counts."""
    rows, result = judge([Slice(1, 2)], [answer(1, '{"label": "first"}'), answer(1, '{"label": "second"}')])
    assert rows[0]["values"] == {"label": "first"}
    assert (result.ok, result.strays, result.input_tokens) == (1, 1, 100)


def test_each_failure_goes_its_way() -> None:
    """Missing and rejected ones go again and use up an attempt, excused ones don't, refused ones are final."""
    answers = [
        answer(0, GOOD),
        answer(1, "no json"),
        failure(3, FailureKind.NOT_RUN),
        failure(4, FailureKind.TERMINAL),
        failure(5, FailureKind.TRANSIENT),
    ]
    rows, result = judge([Slice(0, 6)], answers)
    assert [row["outcome"] for row in rows] == ["ok", "rejected", "missing", "expired", "failed", "failed"]
    assert result.ok == 1
    assert result.retry == [Slice(1, 3, 2, 1, 7), Slice(3, 4, 2, 0, 7, 1), Slice(5, 6, 2, 1, 7)]
    assert result.final == [Slice(4, 5, 1, 1, 7)]
    assert rows[1]["raw"] == "no json"
    assert rows[0]["raw"] is None
    assert rows[4]["error"] == "code: why"
    assert "no answer" in rows[2]["error"]


def test_what_stopped_an_answer_is_an_outcome_of_its_own() -> None:
    """A cut-off answer goes again and may be longer; what was declined or filtered is final. All three were billed."""
    used = Usage(100, 10)
    kinds = (FailureKind.CUT_OFF, FailureKind.REFUSED, FailureKind.FILTERED)
    rows, result = judge([Slice(0, 3)], [failure(n, kind, used) for n, kind in enumerate(kinds)])
    assert [row["outcome"] for row in rows] == ["cut_off", "refused", "filtered"]
    assert result.retry == [Slice(0, 1, 2, 1, 7, longer=True)]
    assert result.final == [Slice(1, 3, 1, 1, 7)]
    assert result.cost == result.rejected_cost == 3 * 1400
    assert result.unmetered == 0


def test_an_answer_that_was_cut_off_was_billed_also_where_nobody_says_how_much() -> None:
    """It is counted; a refusal without usage was not run."""
    _, result = judge([Slice(0, 2)], [failure(0, FailureKind.CUT_OFF), failure(1, FailureKind.REFUSED)])
    assert result.unmetered == 1


@pytest.mark.parametrize("kind", [FailureKind.TRANSIENT, FailureKind.TERMINAL, FailureKind.REFUSED])
def test_a_failure_that_an_answer_stands_behind_was_billed_also_where_nobody_says_how_much(kind: FailureKind) -> None:
    """An answer that is nobody's, or a refusal in the model's own words: its cost is unknown, not nothing."""
    _, result = judge([Slice(0, 2)], [failure(0, kind, billed=True), failure(1, kind)])
    assert (result.unmetered, result.lost) == (1, 0)


@pytest.mark.parametrize("order", [1, -1])
def test_a_refusal_by_the_model_counts_before_an_error_of_the_server(order: int) -> None:
    """It is final: what is asked again would be paid again."""
    answers = [failure(0, FailureKind.TRANSIENT), failure(0, FailureKind.REFUSED, billed=True)]
    rows, result = judge([Slice(0, 1)], answers[::order])
    assert (rows[0]["outcome"], result.retry, result.unmetered) == ("refused", [], 1)


def test_tokens_of_a_cache_are_priced_and_counted() -> None:
    """100 tokens, of which 40 were read from a cache and 30 written to it."""
    _, result = judge([Slice(0, 1)], [answer(0, GOOD, usage=Usage(100, 10, 40, 20, 10))])
    assert result.cost == 30 * 10 + 40 * 5 + 20 * 12 + 10 * 20 + 10 * 40
    assert (result.input_tokens, result.cached_tokens) == (100, 40)


def test_a_copy_of_a_batch_is_paid_and_fills_in_for_what_failed() -> None:
    """The same requests were accepted twice: both answers are money, the better one counts."""
    ledger = replay([histories.submitting(7, Slice(0, 4))])
    taken = BatchAnswers(ledger.batches[7], Judge(OutputSchema(LABEL), PRICE, max_attempts=3))
    taken.take([answer(0, GOOD), answer(1, "bad"), failure(2, FailureKind.TRANSIENT)])
    copy = [answer(0, "bad"), answer(1, '{"label": "copy"}'), failure(2, FailureKind.NOT_RUN), answer(3, GOOD)]
    taken.take_copy([*copy, answer(9, GOOD)])
    judged = taken.finish()
    rows, result = rows_of(judged), judged.result
    assert [row["outcome"] for row in rows] == ["ok", "ok", "failed", "ok"]
    assert [row["values"] and row["values"]["label"] for row in rows] == ["x", "copy", None, "x"]
    assert [row["cost"] for row in rows] == [2800, 2800, None, 1400]
    assert (result.ok, result.retry) == (3, [Slice(2, 3, 2, 1, 7)])
    assert result.cost == 5 * 1400


def test_a_request_that_is_too_large_by_itself_is_final() -> None:
    """It is never sent again, and says why."""
    ledger = replay([histories.submitting(7, Slice(0, 1))])
    taken = BatchAnswers(ledger.batches[7], Judge(OutputSchema(LABEL), PRICE, max_attempts=3))
    judged = taken.finish(failed="413: too large", final=True)
    assert judged.result.final == [Slice(0, 1, 1, 1, 7)]
    assert rows_of(judged)[0]["error"] == "batch_failed: 413: too large"


def test_attempts_are_those_of_the_slice() -> None:
    """The third failure is final."""
    answers = [answer(0, "bad", attempt=3), answer(1, "bad", attempt=3), answer(2, GOOD, attempt=5)]
    rows, result = judge([Slice(0, 1, 3, 2), Slice(1, 2, 3, 1), Slice(2, 3, 5, 0)], answers)
    assert result.final == [Slice(0, 1, 3, 3, 7)]
    assert result.retry == [Slice(1, 2, 4, 2, 7)]
    assert [row["attempt"] for row in rows] == [3, 3, 5]


def test_a_batch_that_failed_as_a_whole_costs_no_attempt() -> None:
    """Nothing ran, nothing was billed: everything goes again with the reason."""
    rows, result = judge([Slice(0, 3)], [], failed="internal error")
    assert result.retry == [Slice(0, 3, 2, 0, 7, 1)]
    assert result.outcomes == {"expired": 3}
    assert "internal error" in rows[0]["error"]
    assert result.cost == 0


def test_money_is_summed_request_by_request() -> None:
    """Rejected answers and billed failures cost as well; missing ones cost nothing."""
    answers = [
        answer(0, GOOD, usage=Usage(100, 10)),
        answer(1, "bad", usage=Usage(200, 20)),
        failure(2, FailureKind.TRANSIENT, Usage(50, 0)),
        failure(3, FailureKind.TERMINAL),
    ]
    rows, result = judge([Slice(0, 5)], answers)
    costs = [100 * 10 + 10 * 40, 200 * 10 + 20 * 40, 50 * 10]
    assert [row["cost"] for row in rows] == [*costs, None, None]
    assert (result.input_tokens, result.output_tokens) == (350, 30)
    assert (result.cost, result.rejected_cost) == (sum(costs), sum(costs[1:]))
    assert result.single_cost == 350 * 20 + 30 * 80
    assert result.unmetered == 0


def test_each_request_has_its_own_tier() -> None:
    """Two small requests are not priced as one large one."""
    tiers = [(above, Rates(above + 1, 1, 1, 1, 1), Rates(2 * above + 2, 2, 2, 2, 2)) for above in (0, 100)]
    rows, result = judge(
        [Slice(0, 2)], [answer(0, GOOD, usage=Usage(100, 0)), answer(1, GOOD, usage=Usage(101, 0))], day_price(*tiers)
    )
    assert [row["cost"] for row in rows] == [100, 101 * 101]
    assert result.cost == 100 + 101 * 101


def test_an_answer_without_usage_is_unmetered_not_free() -> None:
    """Its cost is not known: it is counted and stays null."""
    rows, result = judge([Slice(0, 3)], [answer(0, GOOD, usage=None), answer(1, "bad", usage=None), answer(2, GOOD)])
    assert result.unmetered == 2
    assert [row["cost"] for row in rows] == [None, None, 1400]
    assert [row["usage"] for row in rows] == [None, None, Usage(100, 10)]
    assert result.cost == 1400


def test_an_unpriced_model_costs_the_unknown() -> None:
    """The sums are None, never 0; the tokens are counted all the same."""
    rows, result = judge([Slice(0, 1)], [answer(0, GOOD)], price=UNPRICED)
    assert (result.cost, result.single_cost, result.rejected_cost) == (None, None, None)
    assert (rows[0]["cost"], result.input_tokens) == (None, 100)


@pytest.mark.parametrize(("tokens", "told"), [(10**8, True), (3 * 10**9, True), (6 * 10**9, False)])
def test_usage_that_would_cost_a_fortune_is_none(tokens: int, *, told: bool) -> None:
    """A hundred thousand dollars for one answer: its number is no usage, and its cost is not known."""
    rates = Rates(*[20_000_000] * 5)  # pico-dollars: 20 dollars for a million
    verdict = Judge(OutputSchema(LABEL), day_price((0, rates, rates)), 3).verdict(
        Answer("id", GOOD, Usage(tokens, 0), None)
    )
    assert verdict.values is not None
    assert (verdict.usage is not None) is told


def test_a_success_without_text_is_rejected() -> None:
    """A null answer that the provider calls a success was billed and holds nothing."""
    _, result = judge([Slice(0, 1)], [Answer(f"{RUN}-7-0-1", None, Usage(5, 0), None)])
    assert (result.ok, result.outcomes, result.input_tokens) == (0, {"rejected": 1}, 5)


def test_what_copies_and_caches_did_to_the_cost_is_told_apart() -> None:
    """A copy's part is in no outcome; the cache's part is the difference to as many tokens without one."""
    price = day_price((0, Rates(10, 40, 1, 12, 20), Rates(20, 80, 2, 24, 40)))
    ledger = replay([histories.submitting(7, Slice(0, 3))])
    taken = BatchAnswers(ledger.batches[7], Judge(OutputSchema(LABEL), price, max_attempts=3))
    taken.take([answer(0, GOOD, usage=Usage(100, 10, 50)), answer(1, "bad", usage=Usage(100, 10))])
    taken.take_copy([answer(0, GOOD, usage=Usage(100, 20)), answer(1, GOOD, usage=Usage(100, 30))])
    judged = taken.finish()
    result = judged.result
    assert result.costs == {"ok": 50 * 10 + 50 * 1 + 10 * 40 + 100 * 10 + 30 * 40}
    assert judged.copied == [100 * 10 + 20 * 40, 100 * 10 + 10 * 40, 0]
    assert result.copies_cost == sum(judged.copied)
    assert result.cost == sum(result.costs.values()) + result.copies_cost
    assert result.cache_saved == 50 * 9
    assert result.longest_output == 30


def test_what_a_provider_says_an_answer_costs_is_kept_beside_our_sum() -> None:
    """Only of answers that say it; our price stays the one that counts."""
    says, silent = Usage(100, 10, stated_cost=2_000), Usage(100, 10)
    _, result = judge([Slice(0, 2)], [answer(0, GOOD, usage=says), answer(1, GOOD, usage=silent)])
    each = 100 * 10 + 10 * 40
    assert (result.cost, result.stated_cost, result.cost_of_stated) == (2 * each, 2_000, each)
    _, nothing = judge([Slice(0, 1)], [answer(0, GOOD, usage=silent)])
    assert (nothing.stated_cost, nothing.cost_of_stated) == (0, 0)
