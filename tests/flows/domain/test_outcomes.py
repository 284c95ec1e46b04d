"""What becomes of a failed request: again, final, and what counts as an attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.batch import FailureKind
from flows.domain.events import Slice
from flows.domain.outcomes import MOST_EXCUSES, Verdict, as_slices, verdict


@pytest.mark.parametrize(
    ("kind", "attempt", "used", "expected"),
    [
        (FailureKind.PASSING, 1, 0, Verdict(again=True, used=1)),
        (FailureKind.PASSING, 2, 1, Verdict(again=True, used=2)),
        (FailureKind.PASSING, 3, 2, Verdict(again=False, used=3)),
        (FailureKind.FINAL, 1, 0, Verdict(again=False, used=1)),
        (FailureKind.EXCUSED, 1, 0, Verdict(again=True, used=0)),
        (FailureKind.EXCUSED, 3, 2, Verdict(again=True, used=2)),
        (FailureKind.PASSING, 4, 2, Verdict(again=False, used=3)),
    ],
)
def test_an_attempt_is_used_up_by_what_says_something_of_the_row(
    kind: FailureKind, attempt: int, used: int, expected: Verdict
) -> None:
    """Three attempts by default; what was not run or not billed is excused."""
    assert verdict(kind, attempt, used, max_attempts=3) == expected


def test_one_attempt_means_one() -> None:
    """With a single attempt a failure is final, unless it is excused."""
    assert not verdict(FailureKind.PASSING, 1, 0, max_attempts=1).again
    assert verdict(FailureKind.EXCUSED, 1, 0, max_attempts=1).again


@given(st.lists(st.sampled_from([FailureKind.PASSING, FailureKind.EXCUSED])), st.integers(1, 5))
def test_nothing_goes_on_for_ever(failures: list[FailureKind], max_attempts: int) -> None:
    """However a request fails, it is final after its attempts and the excuses that it has."""
    attempt, used, sent = 1, 0, 0
    for kind in [*failures, *[FailureKind.EXCUSED] * (MOST_EXCUSES + max_attempts)]:
        sent += 1
        judged = verdict(kind, attempt, used, max_attempts)
        assert used <= judged.used <= used + 1
        if not judged.again:
            break
        attempt, used = attempt + 1, judged.used
    else:
        pytest.fail("it would go again for ever")
    assert sent <= MOST_EXCUSES + max_attempts
    assert judged.used == max_attempts


def test_excuses_are_bounded() -> None:
    """A provider that never gets to a request is not asked for ever."""
    excused = [verdict(FailureKind.EXCUSED, attempt, 0, 3).used for attempt in range(1, MOST_EXCUSES + 2)]
    assert excused == [0] * MOST_EXCUSES + [1]


@pytest.mark.xfail(
    strict=True,
    reason="attempts from before --retry-failed count as excuses: after a few allowances there are none left",
)
def test_a_new_allowance_has_its_own_excuses() -> None:
    """A request that was given a new allowance on its twelfth sending is excused like any other."""
    assert verdict(FailureKind.EXCUSED, attempt=12, used=0, max_attempts=3).used == 0


def test_neighbours_on_the_same_attempt_share_a_slice() -> None:
    """A gap, another attempt or another count begins a new one."""
    requests = [(1, 2, 1), (2, 2, 1), (3, 3, 1), (5, 3, 1), (6, 3, 2)]
    assert as_slices(requests, after=7) == [
        Slice(1, 3, 2, 1, 7),
        Slice(3, 4, 3, 1, 7),
        Slice(5, 6, 3, 1, 7),
        Slice(6, 7, 3, 2, 7),
    ]
    assert as_slices([], after=7) == []
