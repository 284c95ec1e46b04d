"""What stays the same is said less and less often; what changes is said at once."""

from __future__ import annotations

from itertools import pairwise

from flows.report.thinning import LONGEST, Thinning

EVERY = 10.0


def shown(texts: list[tuple[float, str]]) -> list[float]:
    thinning = Thinning(EVERY)
    return [moment for moment, text in texts if thinning.is_due(text, moment)]


def test_a_day_of_the_same_is_told_a_few_times_an_hour() -> None:
    """8,640 looks at a batch that takes a day: the intervals double up to ten minutes."""
    moments = shown([(number * EVERY, "waiting") for number in range(8_640)])
    assert moments[:6] == [0.0, 10.0, 30.0, 70.0, 150.0, 310.0]
    assert len(moments) <= 24 * 6 + 8
    assert max(later - sooner for sooner, later in pairwise(moments)) == LONGEST


def test_a_change_is_told_at_the_next_look_and_begins_anew() -> None:
    """However long nothing had happened."""
    texts = [(number * EVERY, "waiting") for number in range(1_000)]
    texts += [(10_000.0, "collecting"), (10_010.0, "collecting"), (10_020.0, "collecting")]
    assert shown(texts)[-2:] == [10_000.0, 10_010.0]


def test_changes_come_no_faster_than_the_first_interval() -> None:
    """A batch a second is no line a second."""
    assert shown([(number * 1.0, f"{number} rows") for number in range(31)]) == [0.0, 10.0, 20.0, 30.0]
