"""When a batch is looked at again, and for how long it is waited for."""

import pytest

from blocks.batch import PollPlan
from flows.domain.agenda import Agenda, Visit, patience
from flows.domain.batches import Batch, State
from flows.domain.events import Slice

PLAN = PollPlan(first=2.0, factor=2.0, longest=10.0)
BATCH = Batch(1, [Slice(0, 5)], State.SUBMITTED)


def looks(agenda: Agenda, batch: Batch, visits: int) -> list[float]:
    """The pauses between looks that each take no time."""
    pauses, now = [], 100.0
    for _ in range(visits):
        agenda.begin(batch.number)
        agenda.finish(Visit(batch.number), batch, now)
        pauses.append(agenda.due[batch.number] - now)
        now = agenda.due[batch.number]
    return pauses


@pytest.mark.parametrize(("requests", "seconds"), [(1, 600), (600, 600), (601, 601), (10_000, 10_000)])
def test_a_batch_is_waited_for_as_the_tutorial_says(requests: int, seconds: float) -> None:
    """At least ten minutes, else a second a request."""
    assert patience(requests, PollPlan()) == seconds
    assert patience(requests, PollPlan(patience=90_000.0)) == 90_000, (
        "a provider that says how long batches take is believed"
    )


def test_pauses_between_looks_grow_up_to_the_longest() -> None:
    """A quick batch is seen soon, a slow one is not asked after all the time."""
    assert looks(Agenda(PLAN), BATCH, 5) == [2.0, 4.0, 8.0, 10.0, 10.0]


def test_a_batch_is_not_looked_at_before_it_makes_sense() -> None:
    """A provider that said when to ask again is not asked earlier."""
    agenda = Agenda(PLAN)
    agenda.finish(Visit(1, look_again_at=500.0), BATCH, 100.0)
    assert agenda.due[1] == 500.0
    assert not agenda.is_due(1, 499.0)
    assert agenda.is_due(1, 500.0)


def test_the_deadline_counts_from_the_first_look() -> None:
    """Looking again does not make a batch wait longer."""
    agenda = Agenda(PollPlan(patience=60.0))
    agenda.finish(Visit(1), BATCH, 100.0)
    agenda.finish(Visit(1), BATCH, 150.0)
    assert agenda.is_waited_for(1, 159.0)
    assert not agenda.is_waited_for(1, 160.0)


def test_a_batch_that_nobody_can_tell_about_is_not_waited_for() -> None:
    """The user has to decide, and is told why."""
    agenda = Agenda(PLAN)
    agenda.finish(Visit(1, unresolved="look in the console"), Batch(1, [Slice(0, 5)], State.UNKNOWN), 100.0)
    assert not agenda.is_waited_for(1, 100.0)
    assert agenda.unresolved == {1: "look in the console"}


def test_a_batch_is_free_after_a_visit() -> None:
    """Whatever was done with it."""
    agenda = Agenda(PLAN)
    agenda.begin(1, collecting=True)
    assert (agenda.busy, agenda.collecting) == ({1}, {1})
    agenda.finish(Visit(1), Batch(1, [Slice(0, 5)], State.COLLECTED), 100.0)
    assert (agenda.busy, agenda.collecting, agenda.due) == (set(), set(), {})
