"""Disjoint slices in order, changed in one place at a time, so that a long journal is replayed in linear time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from flows.domain.events import Slice
from flows.domain.ranges import Ranges


def insert_slices(ordered: list[Slice], new: Sequence[Slice]) -> None:
    """Add slices. Those of one batch usually fit between two neighbours."""
    if not new:
        return
    new = sorted(new)
    at = bisect_left(ordered, new[0])
    ordered[at:at] = new
    after = at + len(new)
    if after < len(ordered) and ordered[after] < new[-1]:
        ordered.sort()


def remove_taken(ordered: list[Slice], taken: Ranges) -> None:
    """Remove the requests of these ranges; looks only at the slices between the first and the last of them."""
    spans = list(taken)
    if not spans:
        return
    first = bisect_right(ordered, spans[0][0], key=lambda piece: piece.stop)
    last = bisect_left(ordered, spans[-1][1], key=lambda piece: piece.start)
    ordered[first:last] = [
        piece._replace(start=start, stop=stop)
        for piece in ordered[first:last]
        for start, stop in taken.missing_from(piece.start, piece.stop)
    ]
