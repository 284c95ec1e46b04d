"""Numbers as ranges, the plain way: what the clever ones are compared with."""

from __future__ import annotations

from collections.abc import Iterable

from flows.domain.ranges import Range


def from_numbers(numbers: Iterable[int]) -> list[Range]:
    """Ascending numbers as ranges."""
    ranges: list[Range] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number:
            ranges[-1] = (ranges[-1][0], number + 1)
        else:
            ranges.append((number, number + 1))
    return ranges
