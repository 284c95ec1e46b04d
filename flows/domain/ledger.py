"""The ledger: what was sent, what came back, what was paid. Replayed from the journal, never guessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import assert_never

from blocks.errors import StateError
from flows.domain import money
from flows.domain.batches import IN_FLIGHT, Batch, State
from flows.domain.events import (
    BatchResult,
    Collected,
    Compacted,
    Ended,
    Event,
    Frozen,
    Lost,
    Published,
    Refused,
    Reopened,
    Restored,
    Seal,
    Slice,
    Submitted,
    Submitting,
    Unknown,
)
from flows.domain.ranges import Ranges, size
from flows.domain.slices import insert_slices, remove_taken

RESTORE = "the journal was changed by hand or damaged; restore the state directory from a backup"
_Step = Submitted | Refused | Unknown | Ended | Collected | Lost  # what happens to a batch that was sent
_MAY_FOLLOW: dict[type, set[State]] = {
    Submitted: {State.SUBMITTING, State.UNKNOWN},
    Refused: {State.SUBMITTING, State.UNKNOWN, State.SUBMITTED},
    Unknown: {State.SUBMITTING, State.UNKNOWN},
    Ended: {State.SUBMITTING, State.UNKNOWN, State.SUBMITTED},
    Collected: {State.ENDED},
    Lost: {State.COLLECTED},
}


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
class Ledger:
    """All batches of an output, the requests to retry, and those that failed for good."""

    batches: dict[int, Batch] = field(default_factory=dict)
    sent: Ranges = field(default_factory=Ranges)  # requests that are, or were, part of an accepted or open batch
    retries: list[Slice] = field(default_factory=list)
    retries_since: float = 0.0  # when the oldest of `retries` was added
    final: list[Slice] = field(default_factory=list)
    frozen: int = 0  # requests that have a number
    generations: list[Frozen] = field(default_factory=list)  # that gave them their numbers, without a gap
    plan: Seal | None = None  # of the newest plan
    max_requests: int | None = None  # per batch, after the provider refused a larger batch
    queue_full_since: float | None = None  # when the provider refused a batch because its queue was full
    compactions: int = 0  # so far, over all schemas

    def reserve(self, slices: list[Slice]) -> Batch:
        """Number a batch and take its requests, in memory only."""
        number = max(self.batches, default=0) + 1
        batch = Batch(number, slices, State.RESERVED)
        self.batches[number] = batch
        self._take(batch)
        return batch

    def apply(self, event: Event) -> None:
        """Apply one event. Raises StateError if it can't follow the current state."""
        at = event.at.timestamp()
        match event:
            case Frozen():
                self._frozen(event)
            case Published():
                pass
            case Reopened():
                self.final = []
                self._put_back(event.slices, at)
            case Submitting():
                self._submitting(event, at)
            case Compacted():
                self._compacted(event)
            case Restored():
                self._restored(event)
            case _:
                self._step(self._expect(event), event, at)

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

    def next_part(self) -> str:
        """The name of the next compacted part; only an unfinished compaction of a dead process may have used it."""
        return f"compacted-{self.compactions + 1:06d}"

    def final_numbers(self) -> Ranges:
        """The requests that failed for good."""
        return Ranges((part.start, part.stop) for part in self.final)

    def reopened(self) -> list[Slice]:
        """The final requests as they would be retried with a new allowance of attempts."""
        return [part._replace(attempt=part.attempt + 1, used=0, excused=0) for part in self.final]

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

    def _step(self, batch: Batch, event: _Step, at: float) -> None:
        match event:
            case Submitted():
                batch.state, batch.id, batch.submitted_at, batch.reason = State.SUBMITTED, event.id, at, ""
                batch.copies = tuple(event.copies)
            case Unknown():
                batch.state, batch.reason = State.UNKNOWN, event.reason
            case Refused():
                self._refused(batch, event, at)
            case Ended():
                batch.state, batch.ended_at = State.ENDED, at
                batch.wording, batch.failed, batch.final = event.wording, event.failed, event.final
                batch.early = event.early
                self.queue_full_since = None
            case Collected():
                batch.state, batch.collected_at, batch.result = State.COLLECTED, at, event.result
                self._put_back(event.result.retry, at)
                insert_slices(self.final, event.result.final)
            case Lost():
                batch.lost, batch.reason = True, event.reason
                insert_slices(self.final, _good_answers(batch))
            case _:
                assert_never(event)

    def _frozen(self, event: Frozen) -> None:
        if event.start != self.frozen or event.stop < event.start:
            raise StateError(
                f"the journal freezes requests {event.start} to {event.stop} after {self.frozen}", next_step=RESTORE
            )
        if event.stop > event.start:
            self.generations.append(event)
        self.frozen, self.plan = event.stop, event.plan

    def _submitting(self, event: Submitting, at: float) -> None:
        batch = self.batches.get(event.batch)
        if batch is None:
            batch = self.batches[event.batch] = Batch(event.batch, event.slices, State.RESERVED)
            self._take(batch)
        elif batch.state is not State.RESERVED or batch.slices != event.slices:
            raise StateError(f"the journal submits batch {event.batch} twice", next_step=RESTORE)
        batch.state, batch.intended_at = State.SUBMITTING, at
        batch.tag, batch.sha256, batch.spec, batch.bytes = event.tag, event.sha256, event.spec, event.bytes
        batch.emulated = event.emulated

    def _refused(self, batch: Batch, event: Refused, at: float) -> None:
        batch.state, batch.reason = State.REFUSED, event.reason
        self._put_back(batch.slices, at)
        if event.too_large:
            half = max(1, batch.requests // 2)
            self.max_requests = min(half, self.max_requests or half)
        if event.queue_full:
            self.queue_full_since = at

    def _compacted(self, event: Compacted) -> None:
        for number in event.batches:
            batch = self.batches.get(number)
            if batch is None or batch.result is None or batch.result.schema_id != event.schema_id or batch.lost:
                raise StateError(
                    f"the journal compacts batch {number} into {event.part}, but it has no such results",
                    next_step=RESTORE,
                )
            batch.compacted = event.part
        self.compactions += 1

    def _restored(self, event: Restored) -> None:
        held = [batch for batch in self.batches.values() if batch.compacted == event.part]
        if not held:
            raise StateError(f"the journal restores {event.part}, which contains no batch", next_step=RESTORE)
        for batch in held:
            batch.compacted = batch.compacted if batch.lost else ""

    def _expect(self, event: _Step) -> Batch:
        batch = self.batches.get(event.batch)
        if batch is None or batch.state not in _MAY_FOLLOW[type(event)]:
            before = "was never sent" if batch is None else f"is {batch.state}"
            raise StateError(
                f"the journal says batch {event.batch} is {event.event}, but it {before}", next_step=RESTORE
            )
        return batch

    def _take(self, batch: Batch) -> None:
        taken = Ranges((piece.start, piece.stop) for piece in batch.slices)
        for start, stop in taken:
            self.sent.add(start, stop)
        remove_taken(self.retries, taken)

    def _put_back(self, slices: list[Slice], at: float) -> None:
        if slices and not self.retries:
            self.retries_since = at
        insert_slices(self.retries, slices)


def _good_answers(batch: Batch) -> list[Slice]:
    """The requests of a collected batch that are neither retried nor failed for good."""
    assert batch.result is not None  # noqa: S101  # only collected batches get here
    others = Ranges((piece.start, piece.stop) for piece in [*batch.result.retry, *batch.result.final])
    return [
        piece._replace(start=start, stop=stop, after=None)
        for piece in batch.slices
        for start, stop in others.missing_from(piece.start, piece.stop)
    ]


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
