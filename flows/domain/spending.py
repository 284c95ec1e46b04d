"""Where the money went: every pico-dollar that was paid has one reason, and the reasons add up to the total."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from flows.domain.batches import Batch
from flows.domain.outcomes import Outcome

GOOD, REPEATED, UNSHOWN = "good_rows", "repeated_answers", "answers_no_row_shows"
COPIES, LOST, OTHER = "accidental_copies", "lost_answers", "other_failures"
_REASONS = {Outcome.OK: GOOD, Outcome.REJECTED: "rejected_answers", Outcome.CUT_OFF: "cut_off_answers"}
WASTED = ("rejected_answers", "cut_off_answers", OTHER, REPEATED, COPIES, LOST)  # nobody has any use for these


def spending(batches: Iterable[Batch], good: int, repeated: int) -> dict[str, int] | None:
    """Pico-dollars by reason, all of them; None if a model is unpriced.

    `good`: of the answers that the output's rows show; `repeated`: of further good answers to the same requests.
    """
    sums: Counter[str] = Counter(dict.fromkeys((GOOD, *WASTED, UNSHOWN), 0))
    for batch in batches:
        result = batch.result
        if result is None:
            continue
        if result.costs is None or result.copies_cost is None:
            return None
        sums[COPIES] += result.copies_cost
        for outcome, cost in result.costs.items():
            reason = _REASONS.get(Outcome(outcome), OTHER)
            sums[LOST if reason is GOOD and batch.lost else reason] += cost
    # Rows that left the input, or that are not published yet.
    sums[UNSHOWN] = sums[GOOD] - good - repeated
    sums[GOOD], sums[REPEATED] = good, repeated
    return dict(sums)


def wasted(spent: Mapping[str, int] | None) -> int | None:
    """What was paid for answers that are of no use to anybody."""
    return None if spent is None else sum(spent[name] for name in WASTED)
