"""Slices in order: what a batch adds or takes is found, not searched for."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flows.domain.events import Slice
from flows.domain.ledger import replay
from flows.domain.ranges import Ranges
from flows.domain.slices import insert_slices, remove_taken
from tests.flows.domain.histories import collected, ended, frozen, submitted, submitting

MANY = 10_000
numbers = st.sets(st.integers(0, 60))


class Compared(Slice):
    """Counts how often slices are compared."""

    times = 0

    def __lt__(self, other: Any) -> bool:
        Compared.times += 1
        return bool(tuple(self) < tuple(other))


@given(numbers, numbers)
def test_slices_stay_in_order(before: set[int], new: set[int]) -> None:
    """Wherever the new ones belong, in whatever order they come."""
    ordered = [Slice(number, number + 1) for number in sorted(before - new)]
    insert_slices(ordered, [Slice(number, number + 1) for number in new])
    assert [piece.start for piece in ordered] == sorted(before | new)


@given(numbers, numbers)
def test_what_is_taken_is_gone(before: set[int], taken: set[int]) -> None:
    """Nothing else is, and slices that are cut keep what they say of their requests."""
    ranges = Ranges((number, number + 1) for number in before)
    ordered = [Slice(start, stop, attempt=2 + start) for start, stop in ranges]
    attempts = {number: piece.attempt for piece in ordered for number in range(piece.start, piece.stop)}
    remove_taken(ordered, Ranges((number, number + 1) for number in taken))
    left = {number: piece.attempt for piece in ordered for number in range(piece.start, piece.stop)}
    assert left == {number: attempts[number] for number in before - taken}
    assert ordered == sorted(ordered)


def test_a_batch_is_added_without_looking_at_all_others() -> None:
    """Else the replay of a journal would take time with the square of its batches."""
    ordered: list[Slice] = [Compared(10 * number, 10 * number + 1) for number in range(MANY)]
    Compared.times = 0
    insert_slices(ordered, [Compared(50_000 + number, 50_001 + number) for number in range(1, 5)])
    assert 0 < Compared.times < 100
    assert ordered == sorted(ordered)
    assert len(ordered) == MANY + 4


def test_a_journal_of_final_failures_is_replayed() -> None:
    """Batches that are collected out of order leave the same ledger as in order."""
    batches = 50
    slices = {batch: [Slice(20 * batch + 2 * n, 20 * batch + 2 * n + 1) for n in range(10)] for batch in range(batches)}
    sent = [event for batch, held in slices.items() for event in (submitting(batch, *held), submitted(batch))]
    order = [*range(0, batches, 2), *range(1, batches, 2)]
    done = [event for batch in order for event in (ended(batch), collected(batch, final=slices[batch]))]
    ledger = replay([frozen(20 * batches), *sent, *done])
    assert ledger.final == sorted(piece for held in slices.values() for piece in held)
