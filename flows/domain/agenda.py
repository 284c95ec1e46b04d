"""What this process has under way, and when it looks at each batch again. Forgotten when the process ends."""

from __future__ import annotations

from dataclasses import dataclass, field

from blocks.batch import PollPlan
from flows.domain.batches import Batch, State
from flows.domain.breaker import Breaker

# From HolySheep's tutorial: a batch is waited for twice half a second a request, and 600 s at the least.
MIN_PATIENCE = 600.0
SECONDS_PER_REQUEST = 0.5

_LOOKED_AT_AGAIN = {State.SUBMITTED, State.UNKNOWN}


@dataclass(slots=True)
class Visit:
    """What whoever worked on a batch brings back, beside the events that were recorded."""

    batch: int
    look_again_at: float = 0.0  # seconds since the epoch, where an earlier look is pointless
    unresolved: str = ""  # why nobody can tell whether the batch was accepted, and what the user can do


@dataclass(slots=True)
class Agenda:
    """The only place that knows when a batch is due. Times are seconds since the epoch."""

    polling: PollPlan = field(default_factory=PollPlan)
    busy: set[int] = field(default_factory=set)  # batches that somebody works on
    collecting: set[int] = field(default_factory=set)  # those of them whose answers are being read
    due: dict[int, float] = field(default_factory=dict)  # by batch: no look before
    deadline: dict[int, float] = field(default_factory=dict)  # by batch: no longer waited for after
    unresolved: dict[int, str] = field(default_factory=dict)  # batches that may have been accepted, and why
    breaker: Breaker = field(default_factory=Breaker)
    _pauses: dict[int, float] = field(default_factory=dict)

    def begin(self, batch: int, *, collecting: bool = False) -> None:
        """Somebody works on the batch from now on."""
        self.busy.add(batch)
        if collecting:
            self.collecting.add(batch)

    def finish(self, visit: Visit, batch: Batch, now: float) -> None:
        """The batch is free again. The pause to its next look grows from look to look."""
        self.busy.discard(batch.number)
        self.collecting.discard(batch.number)
        if visit.unresolved:
            self.unresolved[batch.number] = visit.unresolved
        if batch.state in _LOOKED_AT_AGAIN:
            self.due[batch.number] = max(now + self._next_pause(batch.number), visit.look_again_at)
            self.deadline.setdefault(batch.number, now + patience(batch.requests, self.polling))
        if batch.number in self.unresolved:
            self.deadline[batch.number] = now

    def is_due(self, batch: int, now: float) -> bool:
        """Whether it is time for a look, as far as the batch's own pauses go."""
        return self.due.get(batch, 0.0) <= now

    def is_waited_for(self, batch: int, now: float) -> bool:
        """Whether the batch may still take its time. One that was never looked at may."""
        return now < self.deadline.get(batch, now + 1)

    def _next_pause(self, batch: int) -> float:
        last = self._pauses.get(batch)
        pause = self.polling.first if last is None else self.polling.next_pause(last)
        self._pauses[batch] = pause
        return pause


def patience(requests: int, polling: PollPlan) -> float:
    """Seconds that a batch is waited for before the run lets go of it: the provider's, else by its size."""
    if polling.patience is not None:
        return polling.patience
    return max(MIN_PATIENCE, 2 * SECONDS_PER_REQUEST * requests)
