"""Samples: chosen by chance, and the same ones again."""

from hypothesis import given
from hypothesis import strategies as st

from flows.domain.ranges import Ranges
from flows.domain.sampling import sample_of

RANGES = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 20)), max_size=8).map(
    lambda pairs: Ranges((start, start + size) for start, size in pairs)
)


def numbers(ranges: Ranges) -> list[int]:
    return [number for start, stop in ranges for number in range(start, stop)]


@given(wanted=RANGES, count=st.integers(1, 60), seed=st.text(max_size=3))
def test_a_sample_is_a_part_of_what_is_wanted(wanted: Ranges, count: int, seed: str) -> None:
    """As many as were asked for, or all, and the same ones for the same seed."""
    found = sample_of(wanted, count, seed)
    assert len(found) == min(count, len(wanted))
    assert set(numbers(found)) <= set(numbers(wanted))
    assert numbers(sample_of(wanted, count, seed)) == numbers(found)


def test_a_sample_is_taken_from_everywhere() -> None:
    """Not from the beginning, where rows may be of another kind; another seed takes others."""
    wanted = Ranges([(0, 500), (1_000, 1_500)])
    found = numbers(sample_of(wanted, 100, "a"))
    assert min(found) < 100
    assert max(found) > 1_400
    assert 25 < sum(number < 500 for number in found) < 75
    assert found != numbers(sample_of(wanted, 100, "b"))
