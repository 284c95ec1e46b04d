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
    FAILED = "failed"  # the provider says so
    MISSING = "missing"  # no answer in the results
    EXPIRED = "expired"  # not run, not billed: expired, cancelled, the whole batch failed


def after_failure(part: Slice, kind: FailureKind, max_attempts: int) -> tuple[bool, Slice]:
    """Whether a request that failed as part of a slice goes again, and the slice's terms after this failure."""
    if kind is FailureKind.EXCUSED and part.excused < MOST_EXCUSES:
        return True, part._replace(attempt=part.attempt + 1, excused=part.excused + 1)
    used = part.used + 1
    if kind is FailureKind.FINAL or used >= max_attempts:
        return False, part._replace(used=used)
    return True, part._replace(attempt=part.attempt + 1, used=used)


def merged(requests: Iterable[tuple[int, Slice]], after: int) -> list[Slice]:
    """Ascending request numbers with their terms as slices that follow batch `after`; equal neighbours share one."""
    slices: list[Slice] = []
    for number, terms in requests:
        last = slices[-1] if slices else None
        if last and last.stop == number and last[2:4] == terms[2:4] and last.excused == terms.excused:
            slices[-1] = last._replace(stop=number + 1)
        else:
            slices.append(terms._replace(start=number, stop=number + 1, after=after))
    return slices
