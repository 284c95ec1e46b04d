"""The ledger: what was sent, what came back, what was paid. Replayed from the journal, never guessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flows.domain import money
from flows.domain.batches import IN_FLIGHT, Batch, State
from flows.domain.books import Books, ranges_of, written_off
from flows.domain.events import BatchResult, Event, Slice
from flows.domain.ranges import Ranges, size

MOST_REPEATS = 2  # of a request in one run, at the risk of paying for it again: a word of the user is no blank cheque
MOST_WITNESSES = 100  # batches that a provider's list may show as a proof of what it is worth


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of the requests that the rows ask for, by progress."""

    wanted: int
    unsent: int
    in_flight: int
    failed: int  # for good

    @property
    def answered(self) -> int:
        """Requests with a good answer."""
        return self.wanted - self.unsent - self.in_flight - self.failed


@dataclass(slots=True)
class Ledger(Books):
    """The books, and what is asked of them."""

    def in_state(self, *states: State) -> Iterator[Batch]:
        """Batches in any of these states, oldest first."""
        return (batch for batch in self.batches.values() if batch.state in states)

    def in_flight(self) -> list[Batch]:
        """Batches whose results have not been collected yet."""
        return [batch for batch in self.batches.values() if batch.state in IN_FLIGHT]

    def unsent(self, wanted: Ranges) -> Iterator[Slice]:
        """The wanted requests that are neither answered, final nor with the provider; retries first."""
        for piece in self.retries:
            for start, stop in wanted.overlap(piece.start, piece.stop):
                yield piece._replace(start=start, stop=stop)
        for start, stop in wanted:
            for first, last in self.sent.missing_from(start, stop):
                yield Slice(first, last)

    def has_work(self, wanted: Ranges) -> bool:
        """Whether anything still has to be sent or collected."""
        return bool(self.in_flight()) or next(self.unsent(wanted), None) is not None

    def tally(self, wanted: Ranges) -> Tally:
        """Count the requests that the rows ask for, by progress."""
        in_flight = [piece for batch in self.in_flight() for piece in batch.slices]
        return Tally(
            wanted=len(wanted),
            unsent=sum(piece.requests for piece in self.unsent(wanted)),
            in_flight=_overlap(wanted, in_flight),
            failed=_overlap(wanted, self.final),
        )

    def ids(self) -> frozenset[str]:
        """The provider's ids of all batches that are known to be ours."""
        return frozenset(batch.id for batch in self.batches.values() if batch.id is not None)

    def sent_under(self, key: str) -> dict[str, str]:
        """The newest batches that a provider accepted under a key: their tags by their ids."""
        known = [(b.id, b.tag) for _, b in sorted(self.batches.items()) if key and b.key == key and b.id and not b.gone]
        return dict(known[-MOST_WITNESSES:])

    def next_part(self) -> str:
        """The name of the next compacted part; only an unfinished compaction of a dead process may have used it."""
        return f"compacted-{self.compactions + 1:06d}"

    def final_numbers(self) -> Ranges:
        """The requests that failed for good."""
        return Ranges((part.start, part.stop) for part in self.final)

    def reopened(self) -> list[Slice]:
        """The final requests as they would be retried with a new allowance of attempts."""
        return [part._replace(attempt=part.attempt + 1, used=0, excused=0) for part in self.final]

    def reopened_gone(self, since: float) -> list[Slice]:
        """Those of the final requests that failed because their batch is gone, if they may be sent again."""
        gone = {number for number, batch in self.batches.items() if batch.gone}
        return [p for p in self.reopened() if p.after in gone and self.may_be_repeated([p], since)]

    def may_be_repeated(self, slices: Iterable[Slice], since: float) -> bool:
        """Whether what may have been paid may be sent again in the run that began at `since`.

        Not where that run has lost several batches with these requests: the next one would be lost and paid too.
        """
        numbers = ranges_of(slices)
        lost = [b for b in self.batches.values() if b.intended_at >= since and (b.gone or b.unsure)]
        return sum(_overlap(numbers, batch.slices) > 0 for batch in lost) < MOST_REPEATS

    def written_off(self) -> list[Batch]:
        """Batches whose answers are gone or lost, and whose requests were not sent again since."""
        return [
            batch
            for batch in self.batches.values()
            if batch.result and (batch.gone or batch.lost) and self._stands(batch)
        ]

    def _stands(self, batch: Batch) -> bool:
        numbers = ranges_of(written_off(batch))
        mine = {batch.number} if batch.gone else {None}
        return len(numbers) > 0 and _overlap(numbers, [p for p in self.final if p.after in mine]) == len(numbers)

    def collected(self, *, emulated: bool = False) -> list[BatchResult]:
        """The results of all batches of real providers, or of all that the emulator had, in the order of their numbers.

        What the emulator's answers would have cost is no money: the two are never summed.
        """
        batches = sorted(self.batches.items())
        return [b.result for _, b in batches if b.result is not None and b.emulated is emulated]

    def spent(self, *, emulated: bool = False) -> int | None:
        """Pico-dollars of everything collected so far, of one kind; None if a model is unpriced."""
        return money.total(result.cost for result in self.collected(emulated=emulated))

    def outcomes(self, *, emulated: bool = False) -> Counter[str]:
        """How the requests of all collected batches of one kind ended."""
        return sum((Counter(result.outcomes) for result in self.collected(emulated=emulated)), Counter())


def _overlap(wanted: Ranges, slices: Iterable[Slice]) -> int:
    return sum(size(wanted.overlap(piece.start, piece.stop)) for piece in slices)


def replay(events: Iterable[Event]) -> Ledger:
    """The ledger after these events, for a process that opens the journal.

    Batches left in `submitting` become `unknown`: the process that was submitting them has died.
    """
    ledger = Ledger()
    for event in events:
        ledger.apply(event)
    for batch in ledger.in_state(State.SUBMITTING):
        batch.state, batch.reason = State.UNKNOWN, "the process ended before it received a response"
    return ledger
