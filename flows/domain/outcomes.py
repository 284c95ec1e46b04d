"""What becomes of a request after its answer: good, again, or final."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from blocks.batch import FailureKind
from flows.domain.events import Slice

MOST_EXCUSES = 10  # after so many, failures that say nothing about the row do use up attempts: nothing goes on for ever


class Outcome(StrEnum):
    """How one request of one batch ended."""

    OK = "ok"
    REJECTED = "rejected"  # answered and billed, but the answer breaks the schema
    CUT_OFF = "cut_off"  # billed, but the answer reached the limit of output tokens
    REFUSED = "refused"  # the model declined to answer
    FILTERED = "filtered"  # the provider's content filter stopped it
    FAILED = "failed"  # the provider says so
    GONE = "gone"  # run and billed, but the provider no longer has the answer
    MISSING = "missing"  # no answer in the results
    EXPIRED = "expired"  # not run, not billed: expired, cancelled, the whole batch failed


OUTCOMES = {
    FailureKind.EXCUSED: Outcome.EXPIRED,
    FailureKind.CUT_OFF: Outcome.CUT_OFF,
    FailureKind.REFUSED: Outcome.REFUSED,
    FailureKind.FILTERED: Outcome.FILTERED,
    FailureKind.PASSING: Outcome.FAILED,
    FailureKind.FINAL: Outcome.FAILED,
}
NEVER_AGAIN = {FailureKind.FINAL, FailureKind.REFUSED, FailureKind.FILTERED}


def after_failure(part: Slice, kind: FailureKind, max_attempts: int) -> tuple[bool, Slice]:
    """Whether a request that failed as part of a slice goes again, and the slice's terms after this failure."""
    if kind is FailureKind.EXCUSED and part.excused < MOST_EXCUSES:
        return True, part._replace(attempt=part.attempt + 1, excused=part.excused + 1)
    used = part.used + 1
    cut_off_again = kind is FailureKind.CUT_OFF and part.longer  # a larger limit was of no use
    if kind in NEVER_AGAIN or cut_off_again or used >= max_attempts:
        return False, part._replace(used=used)
    longer = part.longer or kind is FailureKind.CUT_OFF
    return True, part._replace(attempt=part.attempt + 1, used=used, longer=longer)


def merged(requests: Iterable[tuple[int, Slice]], after: int) -> list[Slice]:
    """Ascending request numbers with their terms as slices that follow batch `after`; equal neighbours share one."""
    slices: list[Slice] = []
    for number, terms in requests:
        last = slices[-1] if slices else None
        if last and last.stop == number and last == terms._replace(start=last.start, stop=number, after=after):
            slices[-1] = last._replace(stop=number + 1)
        else:
            slices.append(terms._replace(start=number, stop=number + 1, after=after))
    return slices
