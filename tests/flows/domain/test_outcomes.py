"""What becomes of a failed request: again, final, and what counts as an attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.batch import FailureKind
from flows.domain.events import Slice
from flows.domain.outcomes import MAX_EXCUSES, after_failure, merge_slices


@pytest.mark.parametrize(
    ("kind", "part", "expected"),
    [
        (FailureKind.TRANSIENT, Slice(0, 1), (True, Slice(0, 1, attempt=2, used=1))),
        (FailureKind.TRANSIENT, Slice(0, 1, 2, 1), (True, Slice(0, 1, attempt=3, used=2))),
        (FailureKind.TRANSIENT, Slice(0, 1, 3, 2), (False, Slice(0, 1, attempt=3, used=3))),
        (FailureKind.TERMINAL, Slice(0, 1), (False, Slice(0, 1, attempt=1, used=1))),
        (FailureKind.NOT_RUN, Slice(0, 1), (True, Slice(0, 1, attempt=2, used=0, excused=1))),
        (FailureKind.NOT_RUN, Slice(0, 1, 3, 2), (True, Slice(0, 1, attempt=4, used=2, excused=1))),
        (FailureKind.REFUSED, Slice(0, 1), (False, Slice(0, 1, attempt=1, used=1))),
        (FailureKind.FILTERED, Slice(0, 1), (False, Slice(0, 1, attempt=1, used=1))),
        (FailureKind.CUT_OFF, Slice(0, 1), (True, Slice(0, 1, attempt=2, used=1, longer=True))),
        (FailureKind.CUT_OFF, Slice(0, 1, 2, 1, longer=True), (False, Slice(0, 1, 2, 2, longer=True))),
        (FailureKind.TRANSIENT, Slice(0, 1, 2, 1, longer=True), (True, Slice(0, 1, 3, 2, longer=True))),
        (FailureKind.TRANSIENT, Slice(0, 1, 4, 2, None, 1), (False, Slice(0, 1, attempt=4, used=3, excused=1))),
    ],
)
def test_an_attempt_is_used_up_by_what_says_something_of_the_row(
    kind: FailureKind, part: Slice, expected: tuple[bool, Slice]
) -> None:
    """Three attempts by default; what was not run or not billed is excused, what was cut off may be longer once."""
    assert after_failure(part, kind, max_attempts=3) == expected


def test_one_attempt_means_one() -> None:
    """With a single attempt a failure is final, unless it is excused."""
    assert not after_failure(Slice(0, 1), FailureKind.TRANSIENT, max_attempts=1)[0]
    assert after_failure(Slice(0, 1), FailureKind.NOT_RUN, max_attempts=1)[0]


@given(st.lists(st.sampled_from([FailureKind.TRANSIENT, FailureKind.NOT_RUN])), st.integers(1, 5))
def test_nothing_goes_on_for_ever(failures: list[FailureKind], max_attempts: int) -> None:
    """However a request fails, it is final after its attempts and the excuses that it has."""
    part, sent = Slice(0, 1), 0
    for kind in [*failures, *[FailureKind.NOT_RUN] * (MAX_EXCUSES + max_attempts)]:
        sent += 1
        again, after = after_failure(part, kind, max_attempts)
        assert part.used <= after.used <= part.used + 1
        assert after.attempt == part.attempt + again, "each sending has a serial number of its own"
        part = after
        if not again:
            break
    else:
        pytest.fail("it would go again for ever")
    assert sent <= MAX_EXCUSES + max_attempts
    assert part.used == max_attempts


def test_a_new_allowance_has_its_own_excuses() -> None:
    """A request that was given a new allowance on its twelfth sending is excused like any other."""
    assert after_failure(Slice(0, 1, attempt=12), FailureKind.NOT_RUN, max_attempts=3)[1].used == 0


def test_neighbours_on_the_same_terms_share_a_slice() -> None:
    """A gap, another attempt, another count or another number of excuses begins a new one."""
    terms = [Slice(0, 9, 2, 1), Slice(0, 9, 3, 1), Slice(0, 9, 3, 2), Slice(0, 9, 3, 2, None, 1)]
    requests = [(1, terms[0]), (2, terms[0]), (3, terms[1]), (5, terms[1]), (6, terms[2]), (7, terms[3])]
    assert merge_slices(requests, batch=7) == [
        Slice(1, 3, 2, 1, 7),
        Slice(3, 4, 3, 1, 7),
        Slice(5, 6, 3, 1, 7),
        Slice(6, 7, 3, 2, 7),
        Slice(7, 8, 3, 2, 7, 1),
    ]
    assert merge_slices([], batch=7) == []
