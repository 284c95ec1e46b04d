"""When a batch that is not found counts as gone: the rules alone, by the clock and by the number of looks."""

from __future__ import annotations

import pytest

from flows.domain.batches import Batch, State
from flows.domain.vanishing import FRESH, LOOKS, PAUSE, SPAN, is_fresh, is_gone, is_waited_for, next_look

HOUR = 3600.0


def unfound(looks: int, since: float = 0.0) -> Batch:
    return Batch(1, [], State.SUBMITTED, looks=looks, unfound_since=since)


@pytest.mark.parametrize(
    ("looks", "seconds", "gone"),
    [(1, 100 * HOUR, False), (LOOKS - 1, SPAN, False), (LOOKS, SPAN - 1, False), (100, 60, False), (LOOKS, SPAN, True)],
)
def test_a_batch_is_gone_after_many_looks_over_hours(looks: int, seconds: float, *, gone: bool) -> None:
    """Many at once prove as little as one that is long ago."""
    assert is_gone(unfound(looks), seconds, risking=False) is gone


@pytest.mark.parametrize(("looks", "seconds", "gone"), [(1, HOUR, False), (2, FRESH - 1, False), (2, FRESH, True)])
def test_a_word_of_the_user_makes_it_sooner(looks: int, seconds: float, *, gone: bool) -> None:
    """But not at the first look: what was made a moment ago may not be found yet."""
    assert is_gone(unfound(looks), seconds, risking=True) is gone


def test_what_was_made_or_ended_a_moment_ago_is_fresh() -> None:
    """The end of a batch makes its results, which may not be there yet, however long it ran."""
    batch = Batch(1, [], State.SUBMITTED, submitted_at=0.0)
    assert is_fresh(batch, FRESH - 1)
    assert not is_fresh(batch, FRESH)
    batch.ended_at = 9 * HOUR
    assert is_fresh(batch, 9 * HOUR + FRESH - 1)
    assert not is_fresh(batch, 9 * HOUR + FRESH)


def test_a_run_waits_for_a_moment_and_then_looks_while_it_works() -> None:
    """At the usual pace first, then so rarely that the looks span hours."""
    assert is_waited_for(unfound(0, since=0.0), 100 * HOUR)
    assert is_waited_for(unfound(3), FRESH - 1)
    assert not is_waited_for(unfound(3), FRESH)
    assert next_look(unfound(3), FRESH - 1) == 0.0
    assert next_look(unfound(3), HOUR) == HOUR + PAUSE
