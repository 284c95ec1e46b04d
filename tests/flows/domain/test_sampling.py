"""Samples: drawn at random, the same ones again, and what they say of everything."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.domain.ranges import Ranges
from flows.domain.sampling import FEWEST, Measured, extrapolate, sample_of

RANGES = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 20)), max_size=8).map(
    lambda pairs: Ranges((start, start + size) for start, size in pairs)
)


def numbers(ranges: Ranges) -> list[int]:
    return [number for start, stop in ranges for number in range(start, stop)]


@given(wanted=RANGES, count=st.integers(1, 60), more=st.integers(0, 60))
def test_a_sample_is_a_part_of_what_is_wanted(wanted: Ranges, count: int, more: int) -> None:
    """As many as were asked for, or all; a larger one holds it, so that nothing is asked twice."""
    found = sample_of(wanted, count)
    assert len(found) == min(count, len(wanted))
    assert set(numbers(found)) <= set(numbers(wanted))
    assert set(numbers(found)) <= set(numbers(sample_of(wanted, count + more)))


def test_a_sample_is_taken_from_everywhere() -> None:
    """Not from the beginning, where rows may be of another kind."""
    found = numbers(sample_of(Ranges([(0, 500), (1_000, 1_500)]), 100))
    assert min(found) < 100
    assert max(found) > 1_400
    assert 25 < sum(number < 500 for number in found) < 75


def test_a_few_rows_more_leave_most_of_a_sample_as_it_is() -> None:
    """Its answers are paid for."""
    before, after = (set(numbers(sample_of(Ranges([(0, rows)]), 100))) for rows in (1_000, 1_050))
    assert len(before & after) > 85


def measured(sizes: list[int], dice: Random, noise: float = 5.0) -> list[Measured]:
    """Requests of these sizes that are counted a tenth higher, whose answers grow with them and differ by chance."""
    found = []
    for size in sizes:
        given, came = round(size * 1.1), max(1, round(20 + size / 20 + dice.gauss(0, noise)))
        found.append(Measured(size, given, came, given * 10 + came * 40))
    return found


def test_what_depends_on_the_size_is_told_by_the_size() -> None:
    """Exactly where nothing is left to chance, though the sample is of other sizes than the rest."""
    everything = measured(list(range(100, 1_100)), Random(1), noise=0.0)  # noqa: S311  # a test's dice
    found = extrapolate(everything[:400:20], 1_000, sum(each.planned for each in everything))
    assert found is not None
    assert found.cost is not None
    for span, name in ((found.input_tokens, "input"), (found.output_tokens, "output"), (found.cost, "cost")):
        truth = sum(getattr(each, name) for each in everything)
        assert span.expected == pytest.approx(truth, rel=0.01)
        assert span.lowest is not None
        assert span.highest is not None
        assert span.lowest <= span.expected <= span.highest


def test_nineteen_in_twenty_ranges_hold_what_comes() -> None:
    """Over 400 samples of 30 from the same requests, give or take what chance does to that share."""
    dice = Random(7)  # noqa: S311  # a test's dice
    everything = measured([round(dice.lognormvariate(5, 0.6)) for _ in range(3_000)], dice)
    planned, truth = sum(each.planned for each in everything), sum(each.cost or 0 for each in everything)
    held = 0
    for _ in range(400):
        found = extrapolate(dice.sample(everything, 30), len(everything), planned)
        assert found is not None
        assert found.cost is not None
        assert found.cost.lowest is not None
        assert found.cost.highest is not None
        held += found.cost.lowest <= truth <= found.cost.highest
    assert 0.91 <= held / 400 <= 0.985


def test_too_few_answers_tell_no_range() -> None:
    """But what is likely, in proportion to the size."""
    few = [Measured(100, 110, 10, 1_500)] * (FEWEST - 1)
    found = extrapolate(few, 100, 20_000)
    assert found is not None
    assert found.cost is not None
    assert (found.cost.expected, found.cost.lowest, found.cost.highest) == (200 * 1_500, None, None)


def test_nothing_measured_tells_nothing() -> None:
    """Which is not that it costs nothing."""
    assert extrapolate([], 100, 10_000) is None


def test_an_unpriced_sample_tells_tokens_and_no_cost() -> None:
    """Nor does one whose cost is known in part."""
    found = extrapolate([Measured(100, 110, 10, 1_500), Measured(100, 110, 10, None)], 10, 1_000)
    assert found is not None
    assert (found.input_tokens.expected, found.output_tokens.expected, found.cost) == (1_100, 100, None)


def test_when_all_is_measured_nothing_is_left_to_chance() -> None:
    """The range is what was billed, however few there are."""
    found = extrapolate([Measured(100, 110, 10, 1_500)] * 3, 3, 300)
    assert found is not None
    assert found.cost is not None
    assert found.cost.lowest == found.cost.expected == found.cost.highest == 4_500


def test_requests_of_one_size_differ_by_their_answers_alone() -> None:
    """No slope can be told, and none is needed."""
    found = extrapolate([Measured(100, 100, answer, answer) for answer in (1, 3) * 10], 40, 4_000)
    assert found is not None
    assert found.cost is not None
    assert found.cost.expected == 80
    assert found.cost.lowest is not None
    assert 60 <= found.cost.lowest < 80
