"""How events change what is known of an output's batches and requests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import assert_never

from blocks.errors import StateError
from flows.domain.batches import Batch, State
from flows.domain.events import (
    BatchResult,
    Collected,
    Compacted,
    Ended,
    Event,
    Frozen,
    Gone,
    Lost,
    Published,
    Recovered,
    Refused,
    Reopened,
    Restored,
    Seal,
    Seen,
    Slice,
    Submitted,
    Submitting,
    Unfound,
    Unknown,
    Unread,
)
from flows.domain.ranges import Ranges
from flows.domain.slices import insert_slices, remove_taken

RESTORE = "the journal was changed by hand or damaged; restore the state directory from a backup"
# What happens to a batch that was sent.
_Step = Submitted | Refused | Unknown | Ended | Unread | Unfound | Seen | Gone | Collected | Lost | Recovered
_MAY_FOLLOW: dict[type, set[State]] = {
    Submitted: {State.SUBMITTING, State.UNKNOWN},
    Refused: {State.SUBMITTING, State.UNKNOWN, State.SUBMITTED},
    Unknown: {State.SUBMITTING, State.UNKNOWN},
    Ended: {State.SUBMITTING, State.UNKNOWN, State.SUBMITTED},
    Unread: {State.ENDED},
    Unfound: {State.SUBMITTED, State.ENDED},
    Seen: {State.SUBMITTED, State.ENDED},
    Gone: {State.SUBMITTED, State.ENDED},
    Collected: {State.ENDED},
    Lost: {State.COLLECTED},
    Recovered: {State.COLLECTED},
}


@dataclass(slots=True)
class Books:
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
                remove_taken(self.final, ranges_of(event.slices))
                self._put_back(event.slices, at)
            case Submitting():
                self._submitting(event, at)
            case Compacted():
                self._compacted(event)
            case Restored():
                self._restored(event)
            case _:
                self._step(self._expect(event), event, at)

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
            case Unread():
                batch.unread_since, batch.unread = batch.unread_since or at, batch.unread + 1
                batch.reason = event.reason
            case Unfound() | Seen() | Gone():
                _looked_for(batch, event, at)
            case Collected():
                self._collected(batch, event.result, at)
            case Lost():
                batch.lost, batch.reason = True, event.reason
                insert_slices(self.final, _good_answers(batch))
            case Recovered():
                self._recovered(batch, event.result, at)
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
        batch.tag, batch.sha256, batch.spec, batch.emulated = event.tag, event.sha256, event.spec, event.emulated
        batch.key = event.key
        batch.waiting_from, batch.sending_from = event.waiting_from or at, event.sending_from or at
        batch.bytes, batch.tokens = event.bytes, event.tokens

    def _refused(self, batch: Batch, event: Refused, at: float) -> None:
        batch.state, batch.reason = State.REFUSED, event.reason
        batch.unsure, batch.as_whole = event.unsure, event.as_whole
        self._put_back(batch.slices, at)
        if event.too_large:
            half = max(1, batch.requests // 2)
            self.max_requests = min(half, self.max_requests or half)
        if event.queue_full:
            self.queue_full_since = at

    def _collected(self, batch: Batch, result: BatchResult, at: float) -> None:
        batch.state, batch.collected_at, batch.result = State.COLLECTED, at, result
        batch.reason = batch.reason if result.lost else ""
        self._put_back(result.retry, at)
        insert_slices(self.final, result.final)

    def _recovered(self, batch: Batch, result: BatchResult, at: float) -> None:
        """Of a lost batch only the file was missing: what was retried or failed for good is dealt with already."""
        remove_taken(self.final, ranges_of(written_off(batch)))
        batch.compacted, batch.reason = "", ""
        if batch.lost:
            batch.lost = False
        else:
            batch.gone = ""
            self._collected(batch, result, at)

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
        taken = ranges_of(batch.slices)
        for start, stop in taken:
            self.sent.add(start, stop)
        remove_taken(self.retries, taken)

    def _put_back(self, slices: list[Slice], at: float) -> None:
        if slices and not self.retries:
            self.retries_since = at
        insert_slices(self.retries, slices)


def _looked_for(batch: Batch, event: Unfound | Seen | Gone, at: float) -> None:
    match event:
        case Unfound():
            batch.unfound_since, batch.looks, batch.reason = batch.unfound_since or at, batch.looks + 1, event.reason
        case Seen():
            batch.unfound_since, batch.looks, batch.reason = 0.0, 0, ""
        case Gone():
            batch.state, batch.ended_at = State.ENDED, batch.ended_at or at
            batch.gone = batch.reason = event.reason


def written_off(batch: Batch) -> list[Slice]:
    """The requests of a collected batch that failed for good because its answers were gone, or lost afterwards."""
    assert batch.result is not None  # noqa: S101  # only collected batches get here
    return _good_answers(batch) if batch.lost else list(batch.result.final)


def _good_answers(batch: Batch) -> list[Slice]:
    """The requests of a collected batch that are neither retried nor failed for good."""
    assert batch.result is not None  # noqa: S101  # only collected batches get here
    others = ranges_of([*batch.result.retry, *batch.result.final])
    return [
        piece._replace(start=start, stop=stop, after=None)
        for piece in batch.slices
        for start, stop in others.missing_from(piece.start, piece.stop)
    ]


def ranges_of(slices: Iterable[Slice]) -> Ranges:
    """The requests of the slices."""
    return Ranges((piece.start, piece.stop) for piece in slices)
