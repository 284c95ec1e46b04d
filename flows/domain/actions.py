"""What to do next: a pure decision over the ledger. Doing it, and writing it down, is for others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from flows.domain.breaker import Breaker
from flows.domain.events import Slice
from flows.domain.ledger import Batch, Ledger, State
from flows.domain.ranges import Ranges


@dataclass(frozen=True, slots=True)
class Submit:
    """Send these requests as one batch."""

    slices: list[Slice]


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Find out whether the batch was accepted."""

    batch: int


@dataclass(frozen=True, slots=True)
class Poll:
    """Ask where the batch stands."""

    batch: int


@dataclass(frozen=True, slots=True)
class Collect:
    """Read the results of the batch."""

    batch: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do for so many seconds, unless something under way is done before."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Finish:
    """There is nothing left to do, or nothing that can be done now; `reason` is empty when all is done."""

    reason: str = ""


Action = Submit | Reconcile | Poll | Collect | Wait | Finish


class Sizes(Protocol):
    """How large encoded requests are, without rendering them again."""

    def fit(self, start: int, stop: int, size: int) -> int:
        """The highest number up to `stop` so that requests from `start` below it take at most `size` bytes."""
        ...

    def total(self, start: int, stop: int) -> int:
        """Bytes of the requests from `start` up to `stop`."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits that a run keeps to."""

    batch_size: int  # requests
    max_in_flight: int  # batches
    max_bytes: int | None  # of a batch's body
    collectors: int  # batches whose answers are read at the same time
    gather: float  # seconds that repeats wait for company before they go as a batch that is not full
    max_queued_requests: int | None = None  # of all batches with the provider
    max_queued_bytes: int | None = None
    queue_pause: float = 30.0  # seconds to the next try when the provider's queue is full and no batch of ours ends
    let_go_at: float | None = None  # when to stop waiting; what can be done at once is done before
    give_up_after: float | None = None  # seconds that the provider may fail without a break
    longest_pause: float = 30.0  # seconds between two looks at the ledger


@dataclass(slots=True)
class Agenda:
    """What this process has under way and when it looks again; forgotten when it ends."""

    busy: set[int]  # batches that somebody works on
    collecting: set[int]  # those of them whose answers are being read
    poll_at: dict[int, float]
    deadline: dict[int, float]  # until when a batch is waited for
    breaker: Breaker = field(default_factory=Breaker)

    @classmethod
    def empty(cls) -> Agenda:
        """For a process that has just started."""
        return cls(set(), set(), {}, {})


def next_actions(
    ledger: Ledger, wanted: Ranges, sizes: Sizes, rules: Rules, agenda: Agenda, now: float
) -> list[Action]:
    """All that can be started now; one Wait or Finish where that is nothing.

    While the circuit breaker is open that is one probe when its time has come.
    """
    actions = _possible_actions(ledger, wanted, sizes, rules, agenda, now)
    if not agenda.breaker.is_open or isinstance(actions[0], Finish):
        return actions
    if rules.give_up_after is not None and now - agenda.breaker.since >= rules.give_up_after:
        return [Finish(f"the provider failed for {now - agenda.breaker.since:.0f} s ({agenda.breaker.reason})")]
    if agenda.busy or now < agenda.breaker.retry_at:
        return [Wait(min(max(agenda.breaker.retry_at - now, 0.1), rules.longest_pause))]
    return actions[:1]


def _possible_actions(
    ledger: Ledger, wanted: Ranges, sizes: Sizes, rules: Rules, agenda: Agenda, now: float
) -> list[Action]:
    actions: list[Action] = []
    open_batches = ledger.in_flight()
    collectors = rules.collectors - len(agenda.collecting)
    for batch in open_batches:
        for action in _follow(batch, agenda, now):
            collectors -= isinstance(action, Collect)
            if not isinstance(action, Collect) or collectors >= 0:
                actions.append(action)
    room = rules.max_in_flight - _with_provider(open_batches)
    actions.extend(Submit(slices) for slices in _cut(ledger, wanted, sizes, rules, now, room))
    if actions:
        return actions
    return [_pause(ledger, wanted, open_batches, rules, agenda, now)]


def _follow(batch: Batch, agenda: Agenda, now: float) -> Iterator[Action]:
    if batch.number in agenda.busy:
        return
    match batch.state:
        case State.UNKNOWN:
            if agenda.poll_at.get(batch.number, 0.0) <= now:
                yield Reconcile(batch.number)
        case State.ENDED:
            yield Collect(batch.number)
        case State.SUBMITTED:
            if agenda.poll_at.get(batch.number, 0.0) <= now:
                yield Poll(batch.number)


def _cut(ledger: Ledger, wanted: Ranges, sizes: Sizes, rules: Rules, now: float, room: int) -> Iterator[list[Slice]]:
    """Full batches at once; one of repeats that is not full when nothing may fill it, or they waited long enough."""
    if ledger.queue_full_since is not None and now < ledger.queue_full_since + rules.queue_pause:
        return
    rows = min(rules.batch_size, ledger.largest or rules.batch_size, rules.max_queued_requests or rules.batch_size)
    most = min((size for size in (rules.max_bytes, rules.max_queued_bytes) if size is not None), default=None)
    batches = islice(cut_batches(ledger.backlog(wanted), sizes, rows, most), max(room, 0))
    company_may_come = any(True for _ in ledger.in_state(*_MAY_BRING_REPEATS))
    queue = _Queue.of(ledger, sizes, rules)
    for slices, full in batches:
        only_repeats = all(part.attempt > 1 for part in slices)
        waited = now - ledger.again_since >= rules.gather
        if full or not only_repeats or waited or not company_may_come:
            if not queue.takes(slices, sizes):
                return
            yield slices


@dataclass(slots=True)
class _Queue:
    """What the provider lets wait with it, over all batches. An empty queue takes any batch."""

    requests: int
    bytes: int
    rules: Rules

    @classmethod
    def of(cls, ledger: Ledger, sizes: Sizes, rules: Rules) -> _Queue:
        queue = cls(0, 0, rules)
        if rules.max_queued_requests is not None or rules.max_queued_bytes is not None:
            for batch in ledger.in_state(State.RESERVED, State.SUBMITTING, State.UNKNOWN, State.SUBMITTED):
                queue._add(batch.slices, sizes)
        return queue

    def takes(self, slices: list[Slice], sizes: Sizes) -> bool:
        """Whether a batch of these may be sent now; it is counted then."""
        if self.rules.max_queued_requests is None and self.rules.max_queued_bytes is None:
            return True
        empty = self.requests == 0
        self._add(slices, sizes)
        return empty or (
            self.requests <= (self.rules.max_queued_requests or self.requests)
            and self.bytes <= (self.rules.max_queued_bytes or self.bytes)
        )

    def _add(self, slices: list[Slice], sizes: Sizes) -> None:
        self.requests += sum(part.requests for part in slices)
        self.bytes += sum(sizes.total(part.start, part.stop) for part in slices)


_MAY_BRING_REPEATS = (State.RESERVED, State.SUBMITTING, State.SUBMITTED, State.ENDED)


def cut_batches(
    backlog: Iterator[Slice], sizes: Sizes, rows: int, max_bytes: int | None
) -> Iterator[tuple[list[Slice], bool]]:
    """The backlog in batches of at most so many rows and bytes, each with whether it is full."""
    slices: list[Slice] = []
    rows_left, bytes_left = rows, max_bytes
    for part in backlog:
        start = part.start
        while start < part.stop:
            stop = min(part.stop, start + rows_left)
            if bytes_left is not None:
                stop = sizes.fit(start, stop, bytes_left)
            if stop == start and not slices:
                stop = start + 1  # a request that fits nowhere goes alone: the provider is the judge
            if stop > start:
                slices.append(part._replace(start=start, stop=stop))
                rows_left -= stop - start
                if bytes_left is not None:
                    bytes_left -= sizes.total(start, stop)
                start = stop
            if rows_left <= 0 or start < part.stop:
                yield slices, True
                slices, rows_left, bytes_left = [], rows, max_bytes
    if slices:
        yield slices, False


def _pause(
    ledger: Ledger, wanted: Ranges, open_batches: list[Batch], rules: Rules, agenda: Agenda, now: float
) -> Wait | Finish:
    backlog = next(ledger.backlog(wanted), None) is not None
    waited_for = [batch for batch in open_batches if now < agenda.deadline.get(batch.number, now + 1)]
    may_send = backlog and _with_provider(open_batches) < rules.max_in_flight
    held = may_send and ledger.queue_full_since is not None
    if not agenda.busy and not waited_for and not held:
        if not open_batches and not backlog:
            return Finish()
        return Finish("the provider takes longer than expected" if open_batches else "nothing more is sent")
    if not agenda.busy and rules.let_go_at is not None and now >= rules.let_go_at:
        return Finish("let go while batches are with the provider")
    idle = (batch.number for batch in waited_for if batch.number not in agenda.busy)
    looks = [agenda.poll_at.get(number, now) for number in idle]
    if may_send:
        looks += [since + pause for since, pause in _held_back(ledger, rules)]
    pause = min((at for at in looks if at > now), default=now + rules.longest_pause) - now
    return Wait(min(pause, rules.longest_pause))


def _with_provider(open_batches: list[Batch]) -> int:
    """How many batches are with the provider, or on their way; those that ended only wait to be read."""
    return sum(batch.state is not State.ENDED for batch in open_batches)


def _held_back(ledger: Ledger, rules: Rules) -> Iterator[tuple[float, float]]:
    """Since when requests that could be sent are not, and for how long."""
    yield ledger.again_since, rules.gather
    if ledger.queue_full_since is not None:
        yield ledger.queue_full_since, rules.queue_pause
