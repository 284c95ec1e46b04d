"""What to do next: what is sent, what waits, and when it is over."""

from typing import Any

import pytest

from flows.domain.actions import (
    Action,
    Collect,
    Finish,
    Poll,
    Reconcile,
    Submit,
    Wait,
    next_actions,
)
from flows.domain.agenda import Agenda
from flows.domain.breaker import Breaker
from flows.domain.budget import Budget, Ceiling
from flows.domain.events import Event, Slice
from flows.domain.ledger import Ledger, replay
from flows.domain.prices import Rates
from flows.domain.ranges import Ranges
from tests.flows.domain.histories import AT, collected, ended, frozen, refused, submitted, submitting, unknown
from tests.flows.domain.simulation import Even, empty_ledger, rules

THEN = AT.timestamp()


def decide(
    ledger: Ledger, requests: int, agenda: Agenda | None = None, now: float = THEN, **limits: int | float | None
) -> list[Action]:
    chosen = rules(**limits)(ledger)  # type: ignore[arg-type]  # each is given as its own type
    return next_actions(ledger, Ranges([(0, requests)]), Even(), chosen, agenda or Agenda(), now)


def sent(*batches: list[Slice]) -> list[Event]:
    events: list[Event] = [frozen(100)]
    for number, slices in enumerate(batches, 1):
        events += [submitting(number, *slices), submitted(number)]
    return events


def test_nothing_to_do_is_the_end() -> None:
    """A run whose rows are all answered finishes without a reason."""
    assert decide(Ledger(), 0) == [Finish()]
    assert decide(replay([*sent([Slice(0, 10)]), ended(1), collected(1, ok=10)]), 10) == [Finish()]


def test_no_more_batches_than_allowed_are_with_the_provider() -> None:
    """Batches that are being sent, unknown or running count; one that ended only waits to be read."""
    assert len(decide(empty_ledger(100), 100, max_in_flight=3)) == 3
    events = [*sent([Slice(0, 5)], [Slice(5, 10)]), submitting(3, Slice(10, 15)), unknown(3), ended(2)]
    ledger = replay(events)
    agenda = Agenda(busy={1, 2, 3})
    assert decide(ledger, 100, agenda, max_in_flight=2) == [Wait(30.0)]
    assert decide(ledger, 100, agenda, max_in_flight=3) == [Submit([Slice(15, 20)])]


def test_each_batch_gets_what_its_state_asks_for() -> None:
    """Unknown ones are reconciled, running ones asked after, ended ones collected."""
    events = [*sent([Slice(0, 5)], [Slice(5, 10)]), submitting(3, Slice(10, 15)), unknown(3), ended(2)]
    assert decide(replay(events), 15) == [Poll(1), Collect(2), Reconcile(3)]


def test_a_batch_that_somebody_works_on_is_left_alone() -> None:
    """Nothing is done twice at a time."""
    agenda = Agenda(busy={1})
    assert decide(replay(sent([Slice(0, 5)], [Slice(5, 10)])), 10, agenda) == [Poll(2)]


def test_a_batch_is_asked_after_when_it_is_time() -> None:
    """Not before, and the wait is as long as that takes."""
    agenda = Agenda(due={1: THEN + 7, 2: THEN + 9})
    ledger = replay(sent([Slice(0, 5)], [Slice(5, 10)]))
    assert decide(ledger, 10, agenda) == [Wait(7.0)]
    assert decide(ledger, 10, agenda, now=THEN + 7) == [Poll(1)]
    assert decide(ledger, 10, agenda, now=THEN + 9) == [Poll(1), Poll(2)]


@pytest.mark.parametrize("busy", [submitted, ended])
def test_waiting_for_work_under_way_takes_time(busy: object) -> None:
    """A batch that is being asked after or collected is no reason to look again at once, and again."""
    events = sent([Slice(0, 5)])
    if busy is ended:
        events.append(ended(1))
    agenda = Agenda(busy={1}, collecting={1} if busy is ended else set(), due={1: THEN - 5})
    assert decide(replay(events), 5, agenda) == [Wait(30.0)]


def test_only_so_many_batches_are_collected_at_once() -> None:
    """Their answers are in memory."""
    events = [*sent([Slice(0, 5)], [Slice(5, 10)], [Slice(10, 15)]), ended(1), ended(2), ended(3)]
    assert decide(replay(events), 15, collectors=2) == [Collect(1), Collect(2)]
    agenda = Agenda(busy={1, 2}, collecting={1, 2})
    assert decide(replay(events), 15, agenda, collectors=2) == [Wait(30.0)]
    agenda = Agenda(busy={1}, collecting={1})
    assert decide(replay(events), 15, agenda, collectors=2) == [Collect(2)]


def test_batches_are_halved_until_they_fit() -> None:
    """A provider that calls a batch too large gets halves, and halves of these, down to one request."""
    ledger = empty_ledger(8)
    seen = []
    for number in range(1, 6):
        action = decide(ledger, 8, batch_size=8, max_in_flight=1, retry_linger=0.0)[0]
        assert isinstance(action, Submit)
        seen.append(sum(part.requests for part in action.slices))
        ledger.apply(submitting(number, *action.slices))
        ledger.apply(refused(number, too_large=True))
    assert seen == [8, 4, 2, 1, 1]


def test_repeats_wait_for_company() -> None:
    """A few failed requests don't go as a batch of their own while others may join them, but not for ever."""
    events = [*sent([Slice(0, 5)], [Slice(5, 10)]), ended(1), collected(1, ok=4, retry=[Slice(2, 3, 2, 1, 1)])]
    ledger, repeat = replay(events), Submit([Slice(2, 3, 2, 1, 1)])
    agenda = Agenda(due={2: THEN + 100})
    assert decide(ledger, 10, agenda, retry_linger=10.0) == [Wait(10.0)]
    assert decide(ledger, 10, agenda, now=THEN + 9.5, retry_linger=10.0) == [Wait(0.5)]
    assert decide(ledger, 10, agenda, now=THEN + 10, retry_linger=10.0) == [repeat]
    for event in (ended(2), collected(2, ok=5)):
        ledger.apply(event)
    assert decide(ledger, 10, agenda, retry_linger=10.0) == [repeat]


def test_a_full_batch_of_repeats_goes_at_once() -> None:
    """It needs no company."""
    events = [*sent([Slice(0, 5)], [Slice(5, 10)]), ended(1), collected(1, retry=[Slice(0, 5, 2, 1, 1)])]
    agenda = Agenda(busy={2})
    assert decide(replay(events), 10, agenda, batch_size=5) == [Submit([Slice(0, 5, 2, 1, 1)])]


def test_repeats_take_new_ones_with_them() -> None:
    """While there is something new there is company."""
    events = [*sent([Slice(0, 5)]), ended(1), collected(1, ok=4, retry=[Slice(2, 3, 2, 1, 1)])]
    (action,) = decide(replay(events), 7)
    assert action == Submit([Slice(2, 3, 2, 1, 1), Slice(5, 7)])


def test_a_provider_that_takes_too_long_is_let_go_of() -> None:
    """Past its deadline a batch is left to the next call; the run says so."""
    agenda = Agenda(due={1: THEN + 5}, deadline={1: THEN + 3})
    ledger = replay(sent([Slice(0, 5)]))
    assert decide(ledger, 5, agenda) == [Wait(5.0)]
    assert decide(ledger, 5, agenda, now=THEN + 4) == [Finish("the provider is taking longer than expected")]


def test_one_slow_batch_does_not_end_the_others() -> None:
    """While one is still within its time the run goes on, and what may be sent is sent."""
    agenda = Agenda(due={1: THEN + 9, 2: THEN + 9}, deadline={1: THEN - 1})
    ledger = replay(sent([Slice(0, 5)], [Slice(5, 10)]))
    assert decide(ledger, 10, agenda) == [Wait(9.0)]
    assert decide(ledger, 12, agenda) == [Submit([Slice(10, 12)])]


def test_work_under_way_is_never_let_go_of() -> None:
    """A batch that is being sent or collected is waited for, whatever the others' deadlines."""
    agenda = Agenda(busy={2}, due={1: THEN + 9}, deadline={1: THEN - 1})
    assert decide(replay(sent([Slice(0, 5)], [Slice(5, 10)])), 10, agenda) == [Wait(30.0)]


def submits(events: list[Event], sizes: Even | None = None, *, now: float = THEN, **limits: Any) -> list[int]:
    """How many requests each batch has that is sent now; requests have 10 bytes each."""
    ledger = replay(events)
    rule = rules(batch_size=5, max_in_flight=9, **limits)(ledger)
    actions = next_actions(ledger, Ranges([(0, 100)]), sizes or Even(), rule, Agenda(), now)
    return [sum(part.requests for part in action.slices) for action in actions if isinstance(action, Submit)]


ONE_UNDER_WAY: list[Event] = [frozen(100), submitting(1, Slice(0, 5)), submitted(1)]


def test_the_requests_that_a_provider_lets_wait_are_counted_over_all_batches() -> None:
    """No batch is sent that would make them more."""
    assert submits(ONE_UNDER_WAY, max_queued_requests=None) == [5] * 8
    assert submits(ONE_UNDER_WAY, max_queued_requests=19) == [5, 5]
    assert submits(ONE_UNDER_WAY, max_queued_requests=20) == [5, 5, 5]
    assert submits(ONE_UNDER_WAY, max_queued_requests=7) == []


def test_so_are_their_bytes_which_stand_for_tokens() -> None:
    """A batch under way has 50 bytes."""
    assert submits(ONE_UNDER_WAY, max_queued_bytes=160) == [5, 5]
    assert submits(ONE_UNDER_WAY, max_queued_bytes=99) == []


def test_no_batch_alone_is_more_than_what_may_wait() -> None:
    """It is cut smaller, and where even one request is too much the provider is the judge."""
    assert submits([frozen(100)], max_queued_requests=3) == [3]
    assert submits([frozen(100)], max_queued_bytes=25) == [2]
    assert submits([frozen(100)], max_queued_bytes=5) == [1]


def test_what_a_full_queue_refused_waits_for_another_batch_to_end() -> None:
    """Or for a pause, where none of ours is in the queue; it keeps its attempt."""
    refusal = refused(2, queue_full=True)
    held: list[Event] = [*ONE_UNDER_WAY, submitting(2, Slice(5, 10)), submitted(2), refusal]
    assert submits(held, queue_pause=60) == []
    assert submits([*held, ended(1)], queue_pause=60) == [5] * 9
    assert submits(held, queue_pause=60, now=THEN + 61) == [5] * 8
    alone: list[Event] = [frozen(5), submitting(1, Slice(0, 5)), submitted(1), refused(1, queue_full=True)]
    rule = rules(queue_pause=60)(replay(alone))
    decided = next_actions(replay(alone), Ranges([(0, 5)]), Even(), rule, Agenda(), THEN + 40)
    assert decided == [Wait(20)], "it does not end while requests are held back"
    again = next_actions(replay(alone), Ranges([(0, 5)]), Even(), rule, Agenda(), THEN + 61)
    assert again == [Submit([Slice(0, 5)])]


def test_a_full_queue_is_no_reason_to_wait_for_what_a_budget_forbids() -> None:
    """After its pause nothing would ever send it: the run had waited for ever."""
    alone: list[Event] = [frozen(5), submitting(1, Slice(0, 5)), submitted(1), refused(1, queue_full=True)]
    broke = Budget(1, 0.0, Ceiling((Rates(3, 7, 1, 4, 6),), max_output_tokens=5, largest=10))
    rule = rules(queue_pause=60, budgets=(broke,))(replay(alone))
    pause, end = (
        next_actions(replay(alone), Ranges([(0, 5)]), Even(), rule, Agenda(), THEN + later) for later in (40, 61)
    )
    assert pause == [Wait(20)]
    assert isinstance(end[0], Finish)
    assert end[0].is_over_budget


def test_a_cancelled_run_does_not_wait_for_a_full_queue() -> None:
    """It sends nothing more."""
    alone: list[Event] = [frozen(5), submitting(1, Slice(0, 5)), submitted(1), refused(1, queue_full=True)]
    decided = next_actions(
        replay(alone), Ranges([(0, 5)]), Even(), rules(max_in_flight=0)(replay(alone)), Agenda(), THEN
    )
    assert decided == [Finish("nothing more can be sent")]


def test_what_a_provider_does_not_want_yet_is_sent_later() -> None:
    """It asked for a delay: running batches are asked after meanwhile, and the wait ends when the delay does."""
    ledger = replay(sent([Slice(0, 5)]))
    agenda = Agenda(send_again_at=THEN + 20)
    assert decide(ledger, 10, agenda) == [Poll(1)]
    agenda.due[1] = THEN + 25
    assert decide(ledger, 10, agenda) == [Wait(20.0)]
    assert decide(ledger, 10, agenda, now=THEN + 20) == [Submit([Slice(5, 10)])]


def test_a_run_that_does_not_wait_does_not_wait_for_a_delay_either() -> None:
    """Nor does it try again and again what fails; it says why it ends."""
    (action,) = decide(empty_ledger(10), 10, Agenda(send_again_at=THEN + 20), stop_waiting_at=THEN)
    assert isinstance(action, Finish)
    failing = Agenda(breaker=Breaker().failed(1, "it is busy", THEN))
    assert decide(empty_ledger(10), 10, failing, stop_waiting_at=THEN) == [Finish("stopped waiting (it is busy)")]
    failing.busy = {7}
    assert decide(empty_ledger(10), 10, failing, stop_waiting_at=THEN) == [Wait(30.0)]


def test_answers_that_are_not_there_yet_are_read_when_the_provider_says() -> None:
    """Not at once, and again at once."""
    ledger = replay([*sent([Slice(0, 10)]), ended(1)])
    assert decide(ledger, 10, Agenda(due={1: THEN + 9})) == [Wait(9.0)]
    assert decide(ledger, 10, Agenda(due={1: THEN + 9}), now=THEN + 9) == [Collect(1)]
