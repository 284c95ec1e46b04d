"""Gathering answers: in any order, each once, nothing lost and every token counted."""

from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest

from blocks.batch import Answer, Failure, FailureKind, Usage
from flows.domain.events import Slice
from flows.domain.ledger import replay
from flows.domain.money import ModelPrice, Rates, Tier
from flows.domain.schema import OutputSchema
from flows.storage.results import Gathered, Gatherer, Judge
from flows.storage.state import StateDirectory
from tests.flows.domain import histories
from tests.flows.storage.building import LABEL, PRICE, RUN, Collecting, answer

GOOD = '{"label": "x"}'


def gather(
    slices: list[Slice], answers: list[Answer], price: ModelPrice | None = PRICE, failed: str | None = None
) -> tuple[list[dict[str, Any]], Gathered]:
    ledger = replay([histories.submitting(7, *slices)])
    gatherer = Gatherer(ledger.batches[7], Judge(OutputSchema(LABEL), price, max_attempts=3))
    gatherer.take(answers)
    table, gathered = gatherer.finish(failed=failed)
    assert table.column("request").to_pylist() == sorted(n for s in slices for n in range(s.start, s.stop))
    return table.to_pylist(), gathered


def failure(number: int, kind: FailureKind, usage: Usage | None = None, attempt: int = 1) -> Answer:
    return Answer(f"{RUN}-7-{number}-{attempt}", None, usage, Failure(kind, "code", "why"))


def test_answers_come_in_any_order() -> None:
    """They are put into the order of their requests."""
    answers = [answer(n, f'{{"label": "{n}"}}') for n in range(50)]
    Random(1).shuffle(answers)  # noqa: S311  # a test's dice
    rows, gathered = gather([Slice(0, 50)], answers)
    assert [row["answer"]["label"] for row in rows] == [str(n) for n in range(50)]
    assert (gathered.ok, gathered.again, gathered.final, gathered.strays) == (50, [], [], 0)
    assert gathered.outcomes == {"ok": 50}


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
        "otherrun-7-1-1",
        "",
        "1",
    ],
)
def test_an_answer_of_another_run_request_or_attempt_is_a_stray(custom_id: str) -> None:
    """It is counted and never put on a row."""
    rows, gathered = gather([Slice(1, 2)], [Answer(custom_id, GOOD, Usage(1, 1), None)])
    assert (gathered.strays, gathered.ok, gathered.outcomes) == (1, 0, {"missing": 1})
    assert rows[0]["answer"] is None
    assert gathered.cost == 0


def test_a_second_answer_to_a_request_is_a_stray() -> None:
    """The first one counts."""
    rows, gathered = gather([Slice(1, 2)], [answer(1, '{"label": "first"}'), answer(1, '{"label": "second"}')])
    assert rows[0]["answer"] == {"label": "first"}
    assert (gathered.ok, gathered.strays, gathered.input_tokens) == (1, 1, 100)


def test_each_failure_goes_its_way() -> None:
    """Missing and rejected ones go again and use up an attempt, excused ones don't, refused ones are final."""
    answers = [
        answer(0, GOOD),
        answer(1, "no json"),
        failure(3, FailureKind.EXCUSED),
        failure(4, FailureKind.FINAL),
        failure(5, FailureKind.PASSING),
    ]
    rows, gathered = gather([Slice(0, 6)], answers)
    assert [row["outcome"] for row in rows] == ["ok", "rejected", "missing", "expired", "failed", "failed"]
    assert gathered.ok == 1
    assert gathered.again == [Slice(1, 3, 2, 1, 7), Slice(3, 4, 2, 0, 7, 1), Slice(5, 6, 2, 1, 7)]
    assert gathered.final == [Slice(4, 5, 1, 1, 7)]
    assert rows[1]["raw"] == "no json"
    assert rows[0]["raw"] is None
    assert rows[4]["error"] == "code: why"
    assert "no answer" in rows[2]["error"]


def test_what_stopped_an_answer_is_an_outcome_of_its_own() -> None:
    """A cut-off answer goes again and may be longer; what was declined or filtered is final. All three were billed."""
    used = Usage(100, 10)
    kinds = (FailureKind.CUT_OFF, FailureKind.REFUSED, FailureKind.FILTERED)
    rows, gathered = gather([Slice(0, 3)], [failure(n, kind, used) for n, kind in enumerate(kinds)])
    assert [row["outcome"] for row in rows] == ["cut_off", "refused", "filtered"]
    assert gathered.again == [Slice(0, 1, 2, 1, 7, longer=True)]
    assert gathered.final == [Slice(1, 3, 1, 1, 7)]
    assert gathered.cost == gathered.rejected_cost == 3 * 1400
    assert gathered.unmetered == 0


def test_an_answer_that_was_cut_off_was_billed_also_where_nobody_says_how_much() -> None:
    """It is counted; a refusal without usage was not run."""
    _, gathered = gather([Slice(0, 2)], [failure(0, FailureKind.CUT_OFF), failure(1, FailureKind.REFUSED)])
    assert gathered.unmetered == 1


def test_tokens_of_a_cache_are_priced_and_counted() -> None:
    """100 tokens, of which 40 were read from a cache and 30 written to it."""
    _, gathered = gather([Slice(0, 1)], [answer(0, GOOD, usage=Usage(100, 10, 40, 20, 10))])
    assert gathered.cost == 30 * 10 + 40 * 5 + 20 * 12 + 10 * 20 + 10 * 40
    assert (gathered.input_tokens, gathered.cached_tokens) == (100, 40)


def test_a_copy_of_a_batch_is_paid_and_fills_in_for_what_failed() -> None:
    """The same requests were accepted twice: both answers are money, the better one counts."""
    ledger = replay([histories.submitting(7, Slice(0, 4))])
    gatherer = Gatherer(ledger.batches[7], Judge(OutputSchema(LABEL), PRICE, max_attempts=3))
    gatherer.take([answer(0, GOOD), answer(1, "bad"), failure(2, FailureKind.PASSING)])
    copy = [answer(0, "bad"), answer(1, '{"label": "copy"}'), failure(2, FailureKind.EXCUSED), answer(3, GOOD)]
    gatherer.take_copy([*copy, answer(9, GOOD)])
    table, gathered = gatherer.finish()
    rows = table.to_pylist()
    assert [row["outcome"] for row in rows] == ["ok", "ok", "failed", "ok"]
    assert [row["answer"] and row["answer"]["label"] for row in rows] == ["x", "copy", None, "x"]
    assert [row["cost"] for row in rows] == [2800, 2800, None, 1400]
    assert (gathered.ok, gathered.again) == (3, [Slice(2, 3, 2, 1, 7)])
    assert gathered.cost == 5 * 1400


def test_a_request_that_is_too_large_by_itself_is_final() -> None:
    """It is never sent again, and says why."""
    ledger = replay([histories.submitting(7, Slice(0, 1))])
    gatherer = Gatherer(ledger.batches[7], Judge(OutputSchema(LABEL), PRICE, max_attempts=3))
    table, gathered = gatherer.finish(failed="413: too large", final=True)
    assert gathered.final == [Slice(0, 1, 1, 1, 7)]
    assert table.to_pylist()[0]["error"] == "batch_failed: 413: too large"


def test_attempts_are_those_of_the_slice() -> None:
    """The third failure is final."""
    answers = [answer(0, "bad", attempt=3), answer(1, "bad", attempt=3), answer(2, GOOD, attempt=5)]
    rows, gathered = gather([Slice(0, 1, 3, 2), Slice(1, 2, 3, 1), Slice(2, 3, 5, 0)], answers)
    assert gathered.final == [Slice(0, 1, 3, 3, 7)]
    assert gathered.again == [Slice(1, 2, 4, 2, 7)]
    assert [row["attempt"] for row in rows] == [3, 3, 5]


def test_a_batch_that_failed_as_a_whole_costs_no_attempt() -> None:
    """Nothing ran, nothing was billed: everything goes again with the reason."""
    rows, gathered = gather([Slice(0, 3)], [], failed="internal error")
    assert gathered.again == [Slice(0, 3, 2, 0, 7, 1)]
    assert gathered.outcomes == {"expired": 3}
    assert "internal error" in rows[0]["error"]
    assert gathered.cost == 0


def test_money_is_summed_request_by_request() -> None:
    """Rejected answers and billed failures cost as well; missing ones cost nothing."""
    answers = [
        answer(0, GOOD, usage=Usage(100, 10)),
        answer(1, "bad", usage=Usage(200, 20)),
        failure(2, FailureKind.PASSING, Usage(50, 0)),
        failure(3, FailureKind.FINAL),
    ]
    rows, gathered = gather([Slice(0, 5)], answers)
    costs = [100 * 10 + 10 * 40, 200 * 10 + 20 * 40, 50 * 10]
    assert [row["cost"] for row in rows] == [*costs, None, None]
    assert (gathered.input_tokens, gathered.output_tokens) == (350, 30)
    assert (gathered.cost, gathered.rejected_cost) == (sum(costs), sum(costs[1:]))
    assert gathered.single_cost == 350 * 20 + 30 * 80
    assert gathered.unmetered == 0


def test_each_request_has_its_own_tier() -> None:
    """Two small requests are not priced as one large one."""
    tiers = tuple(Tier(above, Rates(above + 1, 1, 1, 1, 1), Rates(2 * above + 2, 2, 2, 2, 2), "") for above in (0, 100))
    rows, gathered = gather(
        [Slice(0, 2)], [answer(0, GOOD, usage=Usage(100, 0)), answer(1, GOOD, usage=Usage(101, 0))], ModelPrice(tiers)
    )
    assert [row["cost"] for row in rows] == [100, 101 * 101]
    assert gathered.cost == 100 + 101 * 101


def test_an_answer_without_usage_is_unmetered_not_free() -> None:
    """Its cost is not known: it is counted and stays null."""
    rows, gathered = gather([Slice(0, 3)], [answer(0, GOOD, usage=None), answer(1, "bad", usage=None), answer(2, GOOD)])
    assert gathered.unmetered == 2
    assert [row["cost"] for row in rows] == [None, None, 1400]
    assert [row["input_tokens"] for row in rows] == [None, None, 100]
    assert gathered.cost == 1400


def test_an_unpriced_model_costs_the_unknown() -> None:
    """Never nothing."""
    rows, gathered = gather([Slice(0, 1)], [answer(0, GOOD)], price=None)
    assert (gathered.cost, gathered.single_cost, gathered.rejected_cost) == (None, None, None)
    assert (rows[0]["cost"], gathered.input_tokens) == (None, 100)


def test_a_success_without_text_is_rejected() -> None:
    """A null answer that the provider calls a success was billed and holds nothing."""
    _, gathered = gather([Slice(0, 1)], [Answer(f"{RUN}-7-0-1", None, Usage(5, 0), None)])
    assert (gathered.ok, gathered.outcomes, gathered.input_tokens) == (0, {"rejected": 1}, 5)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"i": 1.0, "n": 2, "l": ["a"], "s": {"x": null}, "j": [1, {"a": "ä"}], "extra": 1}',
         {"i": 1, "n": 2.0, "l": ["a"], "s": {"x": None}, "j": '[1,{"a":"ä"}]'}),
        ('{"i": null, "n": null, "l": null, "s": null, "j": null}', dict.fromkeys("inlsj")),
        ("{}", dict.fromkeys("inlsj")),
    ],
)  # fmt: skip
def test_a_part_holds_typed_values_and_is_read_back(tmp_path: Path, text: str, value: dict[str, Any]) -> None:
    """Whatever the schema allows, its columns hold."""
    kinds = {
        "i": {"type": ["integer", "null"]},
        "n": {"type": ["number", "null"]},
        "l": {"type": ["array", "null"], "items": {"type": "string"}},
        "s": {"type": ["object", "null"], "properties": {"x": {"type": ["integer", "null"]}}},
        "j": {},
    }
    state = StateDirectory(tmp_path / "out.parquet")
    collecting = Collecting(state, {"type": "object", "properties": kinds})
    collecting.batch([Slice(0, 2)], [answer(0, text)])
    rows = pq.read_table(collecting.state.part("s", 1)).to_pylist()
    assert rows[0]["answer"] == value
    assert rows[1]["answer"] is None


def test_corrections_are_the_reasons_of_rejected_answers(tmp_path: Path) -> None:
    """And of no others."""
    collecting = Collecting(StateDirectory(tmp_path / "out.parquet"))
    collecting.batch([Slice(0, 4)], [answer(0, GOOD), answer(1, "{}"), failure(2, FailureKind.PASSING)])
    assert list(collecting.store.corrections(collecting.ledger.batches[1])) == [1]


def test_only_parts_that_the_ledger_lists_are_read(tmp_path: Path) -> None:
    """A part that a dead process left behind is written over, never counted."""
    collecting = Collecting(StateDirectory(tmp_path / "out.parquet"))
    collecting.batch([Slice(0, 1)], [answer(0, GOOD)])
    collecting.store.save(2, pq.read_table(collecting.state.part("s", 1)))
    assert [part.label for part in collecting.store.parts(collecting.ledger)] == ["batch 1"]


@pytest.mark.parametrize("text", ['{"label": ' + "[" * 900 + "]" * 900 + "}", "\x00", "[" * 100_000, "9" * 10_000])
def test_no_answer_stops_a_run(text: str) -> None:
    """However strange it is, it is rejected with a reason."""
    rows, gathered = gather([Slice(0, 2)], [answer(0, text), answer(1, GOOD)])
    assert [row["outcome"] for row in rows] == ["rejected", "ok"]
    assert len(rows[0]["error"]) <= 300
    assert gathered.ok == 1
