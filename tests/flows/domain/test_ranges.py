"""Ranges against a plain set of numbers."""

from hypothesis import given
from hypothesis import strategies as st

from flows.domain.ranges import Ranges, size
from tests.flows.domain.numbers import from_numbers

numbers = st.integers(0, 60)
pairs = st.tuples(numbers, numbers)


def members(ranges: Ranges) -> set[int]:
    return {number for start, stop in ranges for number in range(start, stop)}


@given(st.lists(pairs, max_size=25))
def test_a_growing_set_holds_what_was_added(added: list[tuple[int, int]]) -> None:
    """Whatever the order, ranges are the set of all numbers, sorted, disjoint and merged where they touch."""
    ranges, model = Ranges(), set[int]()
    for start, stop in added:
        ranges.add(start, stop)
        model.update(range(start, stop))
    assert members(ranges) == model
    assert len(ranges) == len(model)
    assert list(ranges) == from_numbers(sorted(model))


@given(st.lists(pairs, max_size=12), pairs)
def test_overlap_and_missing_split_a_range(added: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    """A range is cut into what the set has and what it lacks, in order and without a gap."""
    ranges = Ranges(added)
    wanted = set(range(*asked))
    inside, outside = list(ranges.overlap(*asked)), list(ranges.missing_from(*asked))
    assert inside == from_numbers(sorted(wanted & members(ranges)))
    assert outside == from_numbers(sorted(wanted - members(ranges)))


@given(st.sets(numbers))
def test_from_numbers_is_the_inverse_of_counting(given_numbers: set[int]) -> None:
    """Ranges made from numbers hold these numbers and no others."""
    ranges = from_numbers(sorted(given_numbers))
    assert size(ranges) == len(given_numbers)
    assert members(Ranges(ranges)) == given_numbers


def test_an_empty_range_adds_nothing() -> None:
    """Neither [5, 5) nor a range whose end comes first is a member."""
    assert list(Ranges([(5, 5), (7, 3)])) == []
