"""Which parts are merged: there are never many, and no row is written again and again."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from flows.domain.compaction import GROWTH, MAX_PART_ROWS, MAX_PARTS, parts_to_merge


def settled(rows: list[int]) -> tuple[list[int], int]:
    """The parts when nothing is left to merge, and how many rows were written for it."""
    written = 0
    while places := parts_to_merge(rows):
        merged = sum(rows[place] for place in places)
        rows = [count for place, count in enumerate(rows) if place not in set(places)] + [merged]
        written += merged
    return rows, written


def test_few_parts_are_left_alone() -> None:
    """However small they are."""
    assert parts_to_merge([1] * MAX_PARTS) == []
    assert len(parts_to_merge([1] * (MAX_PARTS + 1))) == MAX_PARTS + 1


def test_a_large_part_is_not_rewritten_for_small_ones() -> None:
    """Those of a size become one."""
    rows = [1_000, 900_000, *[100] * MAX_PARTS]
    assert sorted(parts_to_merge(rows)) == list(range(2, len(rows)))


@given(st.lists(st.integers(1, 2_000_000), max_size=300))
def test_a_merged_part_has_grown_and_is_not_too_large(rows: list[int]) -> None:
    """At least eight times as large as any of those that it replaces, so that no row is merged often."""
    places = parts_to_merge(rows)
    merged = [rows[place] for place in places]
    assert len(set(places)) == len(places)
    assert not merged or (len(merged) > 1 and GROWTH * max(merged) <= sum(merged) <= MAX_PART_ROWS)


@given(st.lists(st.integers(1, 100_000), max_size=600))
def test_few_parts_are_left(rows: list[int]) -> None:
    """About a hundred, whatever their sizes are, and those that are too large to be merged."""
    left, _ = settled(rows)
    assert sum(count <= MAX_PART_ROWS // GROWTH for count in left) <= 105


def test_ten_years_of_nights_are_few_parts_and_little_work() -> None:
    """A part a night of any size: always some 64 of them, and each row was merged three times, not each night."""
    dice = Random(7)  # noqa: S311  # a test's dice
    rows: list[int] = []
    most = written = total = 0
    for _ in range(3_650):
        night = dice.randint(1, 1_000)
        rows, merged = settled([*rows, night])
        most, written, total = max(most, len(rows)), written + merged, total + night
    assert sum(rows) == total
    assert most <= MAX_PARTS + 8
    assert written < 3 * total
