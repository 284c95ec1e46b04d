"""The ledger: only what can follow follows, and nothing that is out, answered or final is sent again."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.errors import StateError
from flows.domain.actions import Submit, next_actions
from flows.domain.agenda import Agenda
from flows.domain.batches import Batch, State
from flows.domain.events import EVENTS, Event, Refused, Slice
from flows.domain.ledger import MOST_REPEATS, Ledger, replay
from flows.domain.ranges import Ranges
from tests.flows.domain.histories import (
    AT,
    collected,
    compacted,
    ended,
    frozen,
    lost,
    refused,
    reopened,
    restored,
    submitted,
    submitting,
    unknown,
)
from tests.flows.domain.simulation import Even, Simulation, requests_in, rules, taken

PART = Slice(0, 10)
WHOLE_WAY: list[Event] = [frozen(10), submitting(1, PART), submitted(1), ended(1), collected(1, ok=10)]
FOLLOWERS: dict[str, Any] = {
    "submitted": submitted,
    "refused": refused,
    "unknown": unknown,
    "ended": ended,
    "collected": collected,
}
LEGAL = {
    (): set[str](),
    ("submitting",): {"submitted", "refused", "unknown", "ended"},
    ("submitting", "unknown"): {"submitted", "refused", "unknown", "ended"},
    ("submitting", "submitted"): {"refused", "ended"},
    ("submitting", "submitted", "ended"): {"collected"},
    ("submitting", "submitted", "ended", "collected"): set[str](),
    ("submitting", "refused"): set[str](),
}


@pytest.mark.parametrize("before", LEGAL, ids="-".join)
@pytest.mark.parametrize("name", FOLLOWERS)
def test_only_what_can_follow_follows(before: tuple[str, ...], name: str) -> None:
    """reserved → submitting → submitted → ended → collected, and from submitting refused or unknown."""
    ledger = Ledger()
    for step in before:
        ledger.apply(submitting(1, PART) if step == "submitting" else FOLLOWERS[step](1))
    if name in LEGAL[before]:
        ledger.apply(FOLLOWERS[name](1))
        assert ledger.batches[1].state == name
    else:
        with pytest.raises(StateError, match="the journal says batch 1 is"):
            ledger.apply(FOLLOWERS[name](1))


def test_a_batch_is_sent_once() -> None:
    """A second intent for a batch is a damaged journal."""
    ledger = replay(WHOLE_WAY[:2])
    with pytest.raises(StateError, match="submits batch 1 twice"):
        ledger.apply(submitting(1, PART))


def test_an_intent_is_for_what_was_reserved() -> None:
    """What is written down is what was decided."""
    ledger = Ledger()
    ledger.reserve([PART])
    with pytest.raises(StateError, match="submits batch 1 twice"):
        ledger.apply(submitting(1, Slice(0, 11)))


def test_numbers_go_on_after_a_gap() -> None:
    """A number that a dead process reserved and another that it used leave the next one free."""
    ledger = replay([frozen(30), submitting(2, Slice(10, 20))])
    assert ledger.reserve([PART]).number == 3


@pytest.mark.parametrize(
    ("events", "left"),
    [
        (WHOLE_WAY[:1], [Slice(0, 10)]),
        (WHOLE_WAY[:2], []),
        (WHOLE_WAY[:3], []),
        (WHOLE_WAY[:4], []),
        (WHOLE_WAY, []),
        ([*WHOLE_WAY[:2], refused(1)], [Slice(0, 10)]),
        ([*WHOLE_WAY[:2], unknown(1)], []),
        ([*WHOLE_WAY[:4], collected(1, ok=9, retry=[Slice(3, 4, 2, 1, 1)])], [Slice(3, 4, 2, 1, 1)]),
        ([*WHOLE_WAY[:4], collected(1, ok=9, final=[Slice(3, 4, 3, 3, 1)])], []),
        (
            [*WHOLE_WAY[:4], collected(1, ok=9, final=[Slice(3, 4, 3, 3, 1)]), reopened(Slice(3, 4, 4, 0, 1))],
            [Slice(3, 4, 4, 0, 1)],
        ),
        ([frozen(5), submitting(1, Slice(0, 5)), frozen(12, start=5)], [Slice(5, 12)]),
    ],
)
def test_what_is_left_to_send(events: list[Event], left: list[Slice]) -> None:
    """What was never out, what was refused, what goes again; nothing else."""
    ledger = replay(events)
    assert list(ledger.unsent(Ranges([(0, ledger.frozen)]))) == left


def test_only_what_rows_ask_for_is_left() -> None:
    """Requests whose rows left the input are not sent, first ones and repeats alike."""
    ledger = replay([*WHOLE_WAY[:4], collected(1, retry=[Slice(0, 10, 2, 1, 1)]), frozen(20, start=10)])
    assert list(ledger.unsent(Ranges([(4, 6), (15, 16)]))) == [Slice(4, 6, 2, 1, 1), Slice(15, 16)]


def test_repeats_go_before_new_ones() -> None:
    """A row that failed is not left behind by a million that were never sent."""
    ledger = replay([*WHOLE_WAY[:4], collected(1, retry=[Slice(5, 6, 2, 1, 1)]), frozen(99, start=10)])
    assert next(ledger.unsent(Ranges([(0, 99)]))).start == 5


def test_whoever_was_submitting_when_the_process_died_is_unknown() -> None:
    """Nothing is sent blindly: the provider is asked first."""
    assert replay(WHOLE_WAY[:2]).batches[1].state is State.UNKNOWN
    assert replay(WHOLE_WAY[:3]).batches[1].state is State.SUBMITTED


def test_money_is_unknown_as_soon_as_a_part_is() -> None:
    """An unpriced batch never looks like a free one."""
    start: list[Event] = [frozen(20), submitting(1, PART), submitted(1), ended(1), collected(1, cost=5)]
    assert replay(start).spent() == 5
    second: list[Event] = [submitting(2, Slice(10, 20)), submitted(2), ended(2), collected(2, cost=None)]
    assert replay([*start, *second]).spent() is None
    assert Ledger().spent() == 0


def test_outcomes_are_summed_over_all_batches() -> None:
    """For the report: how all requests ended."""
    second: list[Event] = [
        submitting(2, Slice(10, 20)),
        submitted(2),
        ended(2),
        collected(2, outcomes={"ok": 3, "missing": 1}),
    ]
    events: list[Event] = [*WHOLE_WAY[:4], collected(1, outcomes={"ok": 2}), *second]
    assert replay(events).outcomes() == {"ok": 5, "missing": 1}


def test_a_batch_that_was_too_large_halves_all_that_follow() -> None:
    """And one that was sent before, and is refused later, doesn't make them larger again."""
    ledger = replay([frozen(40), submitting(1, Slice(0, 8)), submitting(2, Slice(8, 12)), submitting(3, Slice(12, 20))])
    ledger.apply(refused(1, too_large=True))
    assert ledger.max_requests == 4
    ledger.apply(refused(2, too_large=True))
    assert ledger.max_requests == 2
    ledger.apply(refused(3, too_large=True))
    assert ledger.max_requests == 2


def test_a_new_allowance_is_a_new_sending() -> None:
    """It has a custom_id of its own and all attempts again."""
    ledger = replay([*WHOLE_WAY[:4], collected(1, final=[Slice(3, 5, 3, 3, 1)])])
    assert ledger.reopened() == [Slice(3, 5, 4, 0, 1)]
    assert list(ledger.final_numbers()) == [(3, 5)]
    ledger.apply(reopened(*ledger.reopened()))
    assert list(ledger.final_numbers()) == []


def test_the_span_of_a_batch_covers_its_requests() -> None:
    """From the lowest number to one more than the highest."""
    ledger = replay([submitting(1, Slice(7, 9, 2), Slice(0, 2))])
    assert ledger.batches[1].span == (0, 9)
    assert ledger.batches[1].requests == 4


SECOND: list[Event] = [submitting(2, Slice(10, 20)), submitted(2), ended(2), collected(2, ok=10)]


def places(ledger: Ledger) -> list[str]:
    return [batch.compacted for batch in ledger.batches.values()]


def test_the_ledger_knows_which_part_holds_a_batch() -> None:
    """The newest compaction counts; after a restoring each batch has a part of its own."""
    ledger = replay([*WHOLE_WAY, *SECOND])
    assert places(ledger) == ["", ""]
    for _ in range(2):
        ledger.apply(compacted(ledger.next_part(), 1, 2))
    assert places(ledger) == ["compacted-000002"] * 2
    ledger.apply(restored("compacted-000002"))
    assert places(ledger) == ["", ""]
    assert ledger.next_part() == "compacted-000003"


def test_what_is_lost_stays_where_it_was_lost() -> None:
    """Its part may be the only copy: nothing else gets its name, and it is not taken for one that was replaced."""
    ledger = replay([*WHOLE_WAY, *SECOND, compacted("compacted-000001", 1, 2), lost(1), restored("compacted-000001")])
    assert places(ledger) == ["compacted-000001", ""]


@pytest.mark.parametrize(
    "event", [compacted("p", 2), compacted("p", 1, 3), compacted("p", 4), restored("p")], ids=lambda event: event.event
)
def test_only_results_that_are_there_are_compacted(event: Event) -> None:
    """Batches that are lost, in flight or unknown, and parts that nobody made, are a damaged journal."""
    ledger = replay([*WHOLE_WAY, *SECOND, lost(2), frozen(30, start=10), submitting(3, Slice(20, 30))])
    with pytest.raises(StateError, match="the journal"):
        ledger.apply(event)


seeds = st.integers(0, 2**32)


@settings(max_examples=40)
@given(seeds, st.integers(1, 40), st.floats(0, 0.7), st.integers(1, 9), st.integers(1, 4))
def test_every_prefix_of_a_history_is_safe(seed: int, requests: int, trouble: float, size: int, flight: int) -> None:
    """Wherever a process dies, the next one sends nothing that is out, answered or final, and nothing twice."""
    history = Simulation(requests, rules(size, flight), seed, trouble).run().events
    wanted = Ranges([(0, requests)])
    for end in range(1, len(history) + 1):
        ledger = replay(history[:end])
        actions = next_actions(ledger, wanted, Even(), rules(size, flight, retry_linger=0.0)(ledger), Agenda(), 1e12)
        sent = [requests_in(action.slices) for action in actions if isinstance(action, Submit)]
        together = set().union(*sent)
        assert sum(map(len, sent)) == len(together)
        assert together.isdisjoint(taken(history[:end]))
        assert together <= set(range(requests))


@settings(max_examples=120)
@given(seeds, st.integers(1, 60), st.floats(0, 0.9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4))
def test_everything_ends_ok_or_final(
    seed: int, requests: int, trouble: float, size: int, flight: int, max_attempts: int
) -> None:
    """With any luck a provider and a process can have, no request is lost and none is paid for twice."""
    end = Simulation(requests, rules(size, flight), seed, trouble, max_attempts).run()
    assert end.answered | end.final == set(range(requests))
    assert end.answered.isdisjoint(end.final)
    assert set(requests_in(end.ledger.final)) == end.final
    assert sum(result.ok for result in end.ledger.collected()) == len(end.answered)
    assert end.ledger.in_flight() == []
    assert end.largest_in_flight <= flight


def said(ledger: Ledger) -> list[Batch]:
    """All batches that were ever sent, without the words that are for the eye."""
    return [replace(batch, reason="") for batch in ledger.batches.values() if batch.state is not State.RESERVED]


@settings(max_examples=20)
@given(seeds)
def test_a_ledger_that_was_replayed_is_the_one_that_lived(seed: int) -> None:
    """The journal holds everything: what a process knew, the next one knows."""
    end = Simulation(30, rules(), seed, 0.4).run()
    lines = [EVENTS.dump_json(event) for event in end.events]
    again = replay(EVENTS.validate_json(line) for line in lines)
    assert said(again) == said(end.ledger)
    assert sorted(again.retries) == sorted(end.ledger.retries)
    assert again.final == end.ledger.final
    assert list(again.sent) == list(end.ledger.sent)
    assert again.max_requests == end.ledger.max_requests


def test_a_batch_that_has_ended_has_not_been_collected_at_any_time() -> None:
    """Else its report would tell how long that took."""
    ledger = replay([submitting(1, Slice(0, 5)), submitted(1), ended(1)])
    assert ledger.batches[1].ended_at
    assert not ledger.batches[1].collected_at
    ledger.apply(collected(1, ok=5))
    assert ledger.batches[1].collected_at


def test_what_was_lost_twice_in_a_run_is_not_sent_a_third_time() -> None:
    """Request by request: a batch that has one of them is enough. What an earlier run lost does not count."""
    events: list[Event] = []
    for batch in range(1, MOST_REPEATS + 1):
        lost = Refused(at=AT, batch=batch, reason="no", unsure=True)
        events += [submitting(batch, Slice(7, 9, attempt=batch)), lost]
    ledger = replay([frozen(20), *events])
    began = AT.timestamp()
    assert not ledger.may_be_repeated([Slice(8, 20)], began)
    assert ledger.may_be_repeated([Slice(9, 20)], began)
    assert ledger.may_be_repeated([Slice(8, 20)], began + 1)
    assert replay([frozen(20), *events[:-2]]).may_be_repeated([Slice(8, 20)], began)
