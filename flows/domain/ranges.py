"""Half-open ranges of request numbers: sorted, disjoint, merged where they touch."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]  # (start, stop), stop excluded


def size(ranges: Iterable[Range]) -> int:
    """The count of numbers in the ranges."""
    return sum(stop - start for start, stop in ranges)


class Ranges:
    """A growing set of numbers, kept as ranges, so that memory grows with the gaps, not with the numbers."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in ranges:
            self.add(start, stop)

    def __iter__(self) -> Iterator[Range]:
        return zip(self._starts, self._stops, strict=True)

    def __len__(self) -> int:
        return size(self)

    def add(self, start: int, stop: int) -> None:
        """Add the numbers from `start` up to, but not including, `stop`."""
        if start >= stop:
            return
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def missing_from(self, start: int, stop: int) -> Iterator[Range]:
        """The parts of [start, stop) that are not in the set."""
        index = bisect_right(self._stops, start)
        while start < stop:
            if index == len(self._starts) or self._starts[index] >= stop:
                yield start, stop
                return
            if start < self._starts[index]:
                yield start, self._starts[index]
            start = self._stops[index]
            index += 1

    def overlap(self, start: int, stop: int) -> Iterator[Range]:
        """The parts of [start, stop) that are in the set."""
        index = bisect_right(self._stops, start)
        while start < stop and index < len(self._starts) and self._starts[index] < stop:
            yield max(start, self._starts[index]), min(stop, self._stops[index])
            index += 1
