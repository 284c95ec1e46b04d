"""What this process is working on, and when each batch is due again. Kept in memory only."""

from __future__ import annotations

from dataclasses import dataclass, field

from blocks.batch import PollPlan
from flows.domain.batches import Batch, State
from flows.domain.breaker import Breaker

# From HolySheep's tutorial: wait twice 0.5 s per request, and at least 600 s.
MIN_PATIENCE = 600.0
SECONDS_PER_REQUEST = 0.5

_LOOKED_AT_AGAIN = {State.SUBMITTED, State.UNKNOWN}


@dataclass(slots=True)
class Visit:
    """What work on a batch returns besides the recorded events."""

    batch: int
    look_again_at: float = 0.0  # seconds since the epoch; 0: no earliest time
    unresolved: str = ""  # why nobody can tell now what became of the batch, and what the user can do


@dataclass(slots=True)
class Agenda:
    """Decides when a batch is due. Times are seconds since the epoch."""

    polling: PollPlan = field(default_factory=PollPlan)
    busy: set[int] = field(default_factory=set)  # batches being worked on
    collecting: set[int] = field(default_factory=set)  # the busy batches whose answers are being read
    due: dict[int, float] = field(default_factory=dict)  # by batch: not polled before
    deadline: dict[int, float] = field(default_factory=dict)  # by batch: not waited for after
    unresolved: dict[int, str] = field(
        default_factory=dict
    )  # batches of which nobody can tell what became of them, and why
    breaker: Breaker = field(default_factory=Breaker)
    send_again_at: float = 0.0  # the provider asked not to be sent anything before
    accepted: int = 0  # batches that the provider has accepted: a list that shows one of them is worth more
    _looked_under: dict[int, int] = field(default_factory=dict)  # by batch: `accepted` when it was looked at
    _pauses: dict[int, float] = field(default_factory=dict)

    def begin(self, batch: int, *, collecting: bool = False) -> None:
        """Mark the batch as being worked on."""
        self.busy.add(batch)
        self._looked_under[batch] = self.accepted
        if collecting:
            self.collecting.add(batch)

    def finish(self, visit: Visit, batch: Batch, now: float) -> None:
        """Mark the batch as free and set when it is due again; the pause grows with each visit."""
        self.busy.discard(batch.number)
        self.collecting.discard(batch.number)
        if visit.unresolved:
            self.unresolved[batch.number] = visit.unresolved
        elif self.unresolved.pop(batch.number, ""):
            self.deadline.pop(batch.number, None)
        if batch.state in _LOOKED_AT_AGAIN:
            self.due[batch.number] = max(now + self._next_pause(batch.number), visit.look_again_at)
            self.deadline.setdefault(batch.number, now + patience(batch.requests, self.polling))
        elif batch.state is State.ENDED:
            self.due[batch.number] = max(visit.look_again_at, now + self.polling.longest * bool(visit.unresolved))
        else:
            self.send_again_at = max(self.send_again_at, visit.look_again_at)
        if batch.number in self.unresolved:
            self.deadline[batch.number] = now

    def is_due(self, batch: int, now: float) -> bool:
        """Whether the batch's pause is over."""
        return self.due.get(batch, 0.0) <= now or self._knows_more(batch)

    def is_waited_for(self, batch: int, now: float) -> bool:
        """Whether the batch is still within its patience. A batch that was never visited is."""
        return now < self.deadline.get(batch, now + 1) or self._knows_more(batch)

    def _knows_more(self, batch: int) -> bool:
        """Whether a batch was accepted since it was last looked what became of this one."""
        return batch in self.unresolved and self.accepted > self._looked_under.get(batch, 0)

    def _next_pause(self, batch: int) -> float:
        last = self._pauses.get(batch)
        pause = self.polling.first if last is None else self.polling.next_pause(last)
        self._pauses[batch] = pause
        return pause


def patience(requests: int, polling: PollPlan) -> float:
    """Seconds to wait for a batch: set by the provider, else by the batch size."""
    if polling.patience is not None:
        return polling.patience
    return max(MIN_PATIENCE, 2 * SECONDS_PER_REQUEST * requests)
