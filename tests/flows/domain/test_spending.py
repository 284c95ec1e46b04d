"""Every pico-dollar has one reason, and the reasons add up to what was paid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flows.domain.events import Event, Slice
from flows.domain.ledger import Ledger
from flows.domain.spending import GOOD, LOST, UNSHOWN, spending, wasted
from tests.flows.domain.histories import collected, ended, lost, submitted, submitting


def ledger_of(*results: Mapping[str, Any], is_lost: Iterable[int] = ()) -> Ledger:
    ledger = Ledger()
    for number, result in enumerate(results, 1):
        events: list[Event] = [
            submitting(number, Slice(number, number + 1)),
            submitted(number),
            ended(number),
            collected(number, **result),
        ]
        for event in events:
            ledger.apply(event)
    for number in is_lost:
        ledger.apply(lost(number))
    return ledger


def test_the_reasons_add_up_to_the_total() -> None:
    """Failures by how they ended, copies apart, and of good answers those that rows show."""
    costs = {"ok": 100, "rejected": 20, "cut_off": 7, "refused": 3, "gone": 1}
    found = spending(ledger_of({"costs": costs, "copies_cost": 9, "cost": 140}).batches.values(), good=60, repeated=15)
    assert found == {
        "good_rows": 60,
        "repeated_answers": 15,
        "answers_no_row_shows": 25,
        "rejected_answers": 20,
        "cut_off_answers": 7,
        "other_failures": 4,
        "accidental_copies": 9,
        "lost_answers": 0,
    }
    assert sum(found.values()) == 140
    assert wasted(found) == 140 - 60 - 25


def test_good_answers_that_were_lost_are_of_no_use() -> None:
    """They were paid for, and no row shows them."""
    results = {"costs": {"ok": 100}, "cost": 100}
    found = spending(ledger_of(results, results, is_lost=[1]).batches.values(), good=100, repeated=0)
    assert found is not None
    assert (found[LOST], found[GOOD], found[UNSHOWN]) == (100, 100, 0)


def test_an_unpriced_batch_makes_all_unknown() -> None:
    """Not a part of the money with the rest at zero."""
    known, unknown = {"costs": {"ok": 1}}, {"costs": None, "copies_cost": None}
    assert spending(ledger_of(known, unknown).batches.values(), 1, 0) is None
    assert wasted(None) is None
