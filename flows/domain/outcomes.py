"""What becomes of a request after its answer: it is good, goes again, or is final."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from blocks.batch import FailureKind
from flows.domain.events import Slice

MAX_EXCUSES = 10  # failures beyond these use up attempts too, so that no request goes on for ever


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
    FailureKind.NOT_RUN: Outcome.EXPIRED,
    FailureKind.CUT_OFF: Outcome.CUT_OFF,
    FailureKind.REFUSED: Outcome.REFUSED,
    FailureKind.FILTERED: Outcome.FILTERED,
    FailureKind.TRANSIENT: Outcome.FAILED,
    FailureKind.TERMINAL: Outcome.FAILED,
}
NEVER_RETRIED = {FailureKind.TERMINAL, FailureKind.REFUSED, FailureKind.FILTERED}


def after_failure(piece: Slice, kind: FailureKind, max_attempts: int) -> tuple[bool, Slice]:
    """Whether a request of the slice that failed goes again, and the slice as it is after the failure."""
    if kind is FailureKind.NOT_RUN and piece.excused < MAX_EXCUSES:
        return True, piece._replace(attempt=piece.attempt + 1, excused=piece.excused + 1)
    used = piece.used + 1
    cut_off_again = kind is FailureKind.CUT_OFF and piece.longer  # a larger limit did not help
    if kind in NEVER_RETRIED or cut_off_again or used >= max_attempts:
        return False, piece._replace(used=used)
    longer = piece.longer or kind is FailureKind.CUT_OFF
    return True, piece._replace(attempt=piece.attempt + 1, used=used, longer=longer)


def merge_slices(requests: Iterable[tuple[int, Slice]], batch: int) -> list[Slice]:
    """Ascending requests that failed in `batch`, each with its slice after that, as few slices."""
    slices: list[Slice] = []
    for number, piece in requests:
        last = slices[-1] if slices else None
        if last and last.stop == number and last == piece._replace(start=last.start, stop=number, after=batch):
            slices[-1] = last._replace(stop=number + 1)
        else:
            slices.append(piece._replace(start=number, stop=number + 1, after=batch))
    return slices
