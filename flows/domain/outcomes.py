"""What becomes of a request after its answer: good, again, or final."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a failed request goes again, and how many attempts it has used up by then."""

    again: bool
    used: int


def verdict(kind: FailureKind, attempt: int, used: int, max_attempts: int) -> Verdict:
    """Judge a failure on sending number `attempt`, of which `used` had counted before."""
    excused = kind is FailureKind.EXCUSED and attempt - used <= MOST_EXCUSES
    now_used = used if excused else used + 1
    return Verdict(again=kind is not FailureKind.FINAL and now_used < max_attempts, used=now_used)


def as_slices(requests: Iterable[tuple[int, int, int]], after: int) -> list[Slice]:
    """Ascending (number, attempt, used) as slices; neighbours on the same attempt share one."""
    slices: list[Slice] = []
    for number, attempt, used in requests:
        last = slices[-1] if slices else None
        if last and (last.stop, last.attempt, last.used) == (number, attempt, used):
            slices[-1] = last._replace(stop=number + 1)
        else:
            slices.append(Slice(number, number + 1, attempt, used, after))
    return slices
