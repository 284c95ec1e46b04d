"""Our books against a provider's bill, by model and day: who has more, and what nobody here knows.

A bill says when requests ran, our books when a batch was sent and when it ended. Batches that ran past midnight, UTC,
may be billed on either day, so their days are compared as one period.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from flows.domain.money import total

ALL = "*"  # the model of a line of a bill that names none: it is compared with all of them


@dataclass(frozen=True, slots=True)
class Amounts:
    """Requests, tokens and pico-dollars; None: not stated, or unknown."""

    requests: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: int | None = None

    def values(self) -> tuple[int | None, ...]:
        """In the order of the fields."""
        return self.requests, self.input_tokens, self.output_tokens, self.cost


@dataclass(frozen=True, slots=True)
class BilledLine:
    """What a bill says of a model and a day, or of one batch."""

    day: date
    model: str
    amounts: Amounts
    batch: str | None = None  # the provider's id


@dataclass(frozen=True, slots=True)
class BookedBatch:
    """A batch of ours that was sent to a real provider."""

    output: str
    number: int
    ids: tuple[str, ...]  # the provider's, those of copies included
    model: str
    first: date
    last: date
    amounts: Amounts
    uncertain: int  # requests that may be billed without our knowing the usage


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model in one period."""

    model: str
    first: date
    last: date
    ours: Amounts
    theirs: Amounts
    uncertain: int

    @property
    def difference(self) -> Amounts:
        """What they bill beyond our books; None where one of the two is not known."""
        pairs = zip(self.theirs.values(), self.ours.values(), strict=True)
        return Amounts(*(None if their is None or our is None else their - our for their, our in pairs))

    @property
    def foreign_requests(self) -> int:
        """Requests on the bill that can't be ours."""
        return max(0, (self.difference.requests or 0) - self.uncertain)

    def is_over(self, tolerance: Decimal) -> bool:
        """Whether anything differs by a larger share than allowed, or requests are not ours.

        What is on the bill for requests that are not settled here is no difference yet.
        """
        if self.foreign_requests:
            return True
        for their, our in zip(self.theirs.values(), self.ours.values(), strict=True):
            if their is None or our is None or (their > our and self.uncertain):
                continue
            if abs(their - our) > tolerance * max(their, our):
                return True
        return False


@dataclass(frozen=True)
class Reconciliation:
    """What came of it."""

    tolerance: Decimal
    lines: list[Comparison]
    foreign: list[BilledLine] = field(default_factory=list)  # batches on the bill that are in none of our books
    unbilled: list[BookedBatch] = field(default_factory=list)  # batches of ours that a bill by batch does not have
    outside: int = 0  # batches of ours on days that the bill does not cover

    @property
    def over(self) -> list[Comparison]:
        """The lines that differ by more than is allowed."""
        return [line for line in self.lines if line.is_over(self.tolerance)]

    @property
    def exit(self) -> int:
        """The exit status."""
        return int(bool(self.over or self.foreign or self.unbilled))


def reconcile(
    booked: Sequence[BookedBatch], billed: Sequence[BilledLine], days: tuple[date, date], tolerance: Decimal
) -> Reconciliation:
    """Compare the books with a bill that covers these days, the last one included."""
    inside = [batch for batch in booked if batch.last >= days[0] and batch.first <= days[1]]
    known = {id_ for batch in booked for id_ in batch.ids}
    on_bill = {line.batch for line in billed if line.batch is not None}
    return Reconciliation(
        tolerance=tolerance,
        lines=list(_compare(inside, billed)),
        foreign=[line for line in billed if line.batch is not None and line.batch not in known],
        unbilled=[batch for batch in inside if _is_missing(batch, on_bill)] if on_bill else [],
        outside=len(booked) - len(inside),
    )


def _is_missing(batch: BookedBatch, on_bill: set[str]) -> bool:
    return bool(batch.amounts.requests) and on_bill.isdisjoint(batch.ids)


def _compare(booked: Sequence[BookedBatch], billed: Sequence[BilledLine]) -> Iterator[Comparison]:
    named = [line for line in billed if line.model != ALL]
    sums = [line for line in billed if line.model == ALL]
    if named:
        for model in sorted({line.model for line in named} | {batch.model for batch in booked}):
            ours = [batch for batch in booked if batch.model == model]
            yield from _by_period(model, ours, [line for line in named if line.model == model], _stated(named))
    if sums:
        yield from _by_period(ALL, booked, sums, _stated(sums))


def _stated(lines: Iterable[BilledLine]) -> Amounts:
    """Zero for what a bill states anywhere: that is what it says of a period that it does not list."""
    columns = zip(*(line.amounts.values() for line in lines), strict=True)
    return Amounts(*(0 if any(value is not None for value in column) else None for column in columns))


def _by_period(
    model: str, ours: Sequence[BookedBatch], theirs: Sequence[BilledLine], nothing: Amounts
) -> Iterator[Comparison]:
    periods = _merged([(batch.first, batch.last) for batch in ours] + [(line.day, line.day) for line in theirs])
    booked: dict[int, list[BookedBatch]] = defaultdict(list)
    billed: dict[int, list[Amounts]] = defaultdict(list)
    starts = [first for first, _ in periods]
    for batch in ours:
        booked[bisect_right(starts, batch.first)].append(batch)
    for line in theirs:
        billed[bisect_right(starts, line.day)].append(line.amounts)
    for number, (first, last) in enumerate(periods, 1):
        here = booked[number]
        sums = _booked([batch.amounts for batch in here]), _billed([nothing, *billed[number]])
        yield Comparison(model, first, last, *sums, sum(batch.uncertain for batch in here))


def _merged(spans: Iterable[tuple[date, date]]) -> list[tuple[date, date]]:
    """Periods that share a day become one."""
    periods: list[tuple[date, date]] = []
    for first, last in sorted(set(spans)):
        if periods and first <= periods[-1][1]:
            periods[-1] = periods[-1][0], max(last, periods[-1][1])
        else:
            periods.append((first, last))
    return periods


def _booked(amounts: Sequence[Amounts]) -> Amounts:
    """The sum of our books: unknown as soon as a part is, zero if there is nothing."""
    return Amounts(*map(total, _columns([Amounts(0, 0, 0, 0), *amounts])))


def _billed(amounts: Sequence[Amounts]) -> Amounts:
    """The sum of a bill: of what its lines state, and nothing where none of them states it."""
    stated = [[value for value in column if value is not None] for column in _columns(amounts)]
    return Amounts(*(sum(values) if values else None for values in stated))


def _columns(amounts: Iterable[Amounts]) -> Iterator[tuple[int | None, ...]]:
    return zip(*(each.values() for each in amounts), strict=True)
