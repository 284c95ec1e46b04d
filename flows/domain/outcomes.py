"""What happens to a request after its answer: done, retried, or failed for good."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from blocks.batch import FailureKind
from flows.domain.events import Slice

MAX_EXCUSES = 10  # further ones use up attempts too, so that no request is retried for ever


class Outcome(StrEnum):
    """How one request of one batch ended."""

    OK = "ok"
    REJECTED = "rejected"  # answered and billed, but the answer does not match the schema
    CUT_OFF = "cut_off"  # billed, but the answer reached the limit of output tokens
    REFUSED = "refused"  # the model declined to answer
    FILTERED = "filtered"  # the provider's content filter stopped it
    FAILED = "failed"  # the provider reported an error
    GONE = "gone"  # run and billed, but the provider no longer has the answer
    UNREADABLE = "unreadable"  # answered and billed, but the line can't be read
    VANISHED = "vanished"  # no answer in the results, though the provider counts more answers than it returned
    MISSING = "missing"  # no answer in the results
    EXPIRED = "expired"  # not run, not billed: expired, cancelled, the whole batch failed


OUTCOMES = {
    FailureKind.NOT_RUN: Outcome.EXPIRED,
    FailureKind.CUT_OFF: Outcome.CUT_OFF,
    FailureKind.REFUSED: Outcome.REFUSED,
    FailureKind.FILTERED: Outcome.FILTERED,
    FailureKind.UNREADABLE: Outcome.UNREADABLE,
    FailureKind.TRANSIENT: Outcome.FAILED,
    FailureKind.TERMINAL: Outcome.FAILED,
}
NEVER_RETRIED = {FailureKind.TERMINAL, FailureKind.REFUSED, FailureKind.FILTERED}


def after_failure(piece: Slice, kind: FailureKind, max_attempts: int) -> tuple[bool, Slice]:
    """Whether a failed request of the slice is retried, and the slice after the failure."""
    if kind is FailureKind.NOT_RUN and piece.excused < MAX_EXCUSES:
        return True, piece._replace(attempt=piece.attempt + 1, excused=piece.excused + 1)
    used = piece.used + 1
    cut_off_again = kind is FailureKind.CUT_OFF and piece.longer  # a larger limit did not help
    if kind in NEVER_RETRIED or cut_off_again or used >= max_attempts:
        return False, piece._replace(used=used)
    longer = piece.longer or kind is FailureKind.CUT_OFF
    return True, piece._replace(attempt=piece.attempt + 1, used=used, longer=longer)


def merge_slices(requests: Iterable[tuple[int, Slice]], batch: int) -> list[Slice]:
    """Merge requests that failed in `batch` (ascending, each with its new slice) into as few slices as possible."""
    slices: list[Slice] = []
    for number, piece in requests:
        last = slices[-1] if slices else None
        if last and last.stop == number and last == piece._replace(start=last.start, stop=number, after=batch):
            slices[-1] = last._replace(stop=number + 1)
        else:
            slices.append(piece._replace(start=number, stop=number + 1, after=batch))
    return slices
