"""What to do next: a pure decision over the ledger. The caller carries it out and records it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from flows.domain.agenda import Agenda
from flows.domain.batches import Batch, State
from flows.domain.budget import Budget, Spending
from flows.domain.events import Slice
from flows.domain.ledger import Ledger
from flows.domain.ranges import Ranges
from flows.domain.sizing import BatchLimit, Queue, Sizes, cut_batches


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
    """Ask for the status of the batch."""

    batch: int


@dataclass(frozen=True, slots=True)
class Collect:
    """Read the results of the batch."""

    batch: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do for this many seconds, unless work under way ends earlier."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left to do, or nothing can be done now; `reason` is empty when everything is done."""

    reason: str = ""
    is_over_budget: bool = False  # what is left could cost more than may be spent


Action = Submit | Reconcile | Poll | Collect | Wait | Finish


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits that a run observes."""

    limit: BatchLimit
    max_in_flight: int  # batches
    collectors: int  # batches whose answers are read at the same time
    retry_linger: float  # seconds that retries wait for more before they go in a partial batch
    queue_pause: float = 30.0  # seconds until the next try if the provider's queue is full and no batch of ours ends
    stop_waiting_at: float | None = None  # when to stop waiting; whatever can be done at once is done first
    give_up_after: float | None = None  # seconds that the provider may keep failing
    max_pause: float = 30.0  # seconds between two looks at the ledger
    budgets: tuple[Budget, ...] = ()


def next_actions(
    ledger: Ledger, wanted: Ranges, sizes: Sizes, rules: Rules, agenda: Agenda, now: float
) -> list[Action]:
    """All actions that can start now, or a single Wait or Finish if there are none.

    While the circuit breaker is open, only one probe can start, once it is due.
    """
    actions = _possible_actions(ledger, wanted, sizes, rules, agenda, now)
    if isinstance(actions[0], Finish):
        return actions
    if agenda.breaker.failures and rules.stop_waiting_at is not None and now >= rules.stop_waiting_at:
        # what failed would be tried again and again
        return [Wait(rules.max_pause) if agenda.busy else Finish(f"stopped waiting ({agenda.breaker.reason})")]
    if not agenda.breaker.is_open:
        return actions
    if rules.give_up_after is not None and now - agenda.breaker.since >= rules.give_up_after:
        seconds = now - agenda.breaker.since
        return [Finish(f"the provider has been failing for {seconds:.0f} s ({agenda.breaker.reason})")]
    if agenda.busy or now < agenda.breaker.retry_at:
        return [Wait(min(max(agenda.breaker.retry_at - now, 0.1), rules.max_pause))]
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
    room = rules.max_in_flight - _with_provider(open_batches) if now >= agenda.send_again_at else 0
    actions.extend(_submissions(ledger, wanted, sizes, rules, now, room))
    if actions:
        return actions
    return [_pause(ledger, wanted, sizes, open_batches, rules, agenda, now)]


def _follow(batch: Batch, agenda: Agenda, now: float) -> Iterator[Action]:
    if batch.number in agenda.busy:
        return
    match batch.state:
        case State.UNKNOWN:
            if agenda.is_due(batch.number, now):
                yield Reconcile(batch.number)
        case State.ENDED:
            if agenda.is_due(batch.number, now):
                yield Collect(batch.number)
        case State.SUBMITTED:
            if agenda.is_due(batch.number, now):
                yield Poll(batch.number)


def _submissions(ledger: Ledger, wanted: Ranges, sizes: Sizes, rules: Rules, now: float, room: int) -> Iterator[Submit]:
    """Full batches at once; a partial batch of retries once nothing can fill it up, or after the linger."""
    if ledger.queue_full_since is not None and now < ledger.queue_full_since + rules.queue_pause:
        return
    more_may_come = any(True for _ in ledger.in_state(*_MAY_BRING_RETRIES))
    waited = now - ledger.retries_since >= rules.retry_linger
    queue = _queue_at_provider(ledger, sizes, rules)
    spending = Spending(rules.budgets, ledger.batches.values(), sizes) if rules.budgets else None
    for slices, full in islice(cut_batches(ledger, wanted, sizes, rules.limit), max(room, 0)):
        only_retries = all(piece.attempt > 1 for piece in slices)
        if full or not only_retries or waited or not more_may_come:
            affordable = slices if spending is None else spending.afford(slices)
            if not affordable or not queue.takes(affordable):
                return
            yield Submit(affordable)


def _queue_at_provider(ledger: Ledger, sizes: Sizes, rules: Rules) -> Queue:
    queue = Queue(rules.limit, sizes)
    if queue.is_limited:
        for batch in ledger.in_state(State.RESERVED, State.SUBMITTING, State.UNKNOWN, State.SUBMITTED):
            queue.add(batch.slices)
    return queue


_MAY_BRING_RETRIES = (State.RESERVED, State.SUBMITTING, State.SUBMITTED, State.ENDED)


def _pause(
    ledger: Ledger,
    wanted: Ranges,
    sizes: Sizes,
    open_batches: list[Batch],
    rules: Rules,
    agenda: Agenda,
    now: float,
) -> Wait | Finish:
    has_unsent = next(ledger.unsent(wanted), None) is not None
    waited_for = [batch for batch in open_batches if agenda.is_waited_for(batch.number, now)]
    may_send = has_unsent and _with_provider(open_batches) < rules.max_in_flight
    full_until = 0.0 if ledger.queue_full_since is None else ledger.queue_full_since + rules.queue_pause
    held = may_send and now < max(full_until, agenda.send_again_at)  # what is not sent after that, nothing will send
    if not agenda.busy and not waited_for and not held:
        if not open_batches and not has_unsent:
            return Finish()
        if open_batches:
            return Finish("the provider is taking longer than expected")
        if rules.budgets:
            batches = ledger.batches.values()
            tightest = min(rules.budgets, key=lambda budget: budget.left(batches, sizes))
            return Finish(tightest.sentence(batches, sizes), is_over_budget=True)
        return Finish("nothing more can be sent")
    if not agenda.busy and rules.stop_waiting_at is not None and now >= rules.stop_waiting_at:
        return Finish("stopped waiting while batches are still with the provider")
    idle = (batch.number for batch in waited_for if batch.number not in agenda.busy)
    looks = [agenda.due.get(number, now) for number in idle]
    if may_send:
        looks += [agenda.send_again_at, *(since + pause for since, pause in _held_back(ledger, rules))]
    pause = min((at for at in looks if at > now), default=now + rules.max_pause) - now
    return Wait(min(pause, rules.max_pause))


def _with_provider(open_batches: list[Batch]) -> int:
    """The number of batches at the provider or on their way; ended ones only wait to be read."""
    return sum(batch.state is not State.ENDED for batch in open_batches)


def _held_back(ledger: Ledger, rules: Rules) -> Iterator[tuple[float, float]]:
    """Why sendable requests are held back: (since when, for how many seconds) per reason."""
    yield ledger.retries_since, rules.retry_linger
    if ledger.queue_full_since is not None:
        yield ledger.queue_full_since, rules.queue_pause
