"""Which results parts to merge, so that an output updated for years has few parts and rewrites little each time."""

from __future__ import annotations

from collections.abc import Sequence

MAX_PARTS = 64  # more are merged: a window of rows may have to look into each part
GROWTH = 8  # a merged part is at least this many times as large as each source: a row is merged at most six times
MAX_PART_ROWS = 1_000_000  # of a merged part: bounds the loss from a damaged file and the cost of one merge


def parts_to_merge(rows: Sequence[int]) -> list[int]:
    """Indexes of the parts to merge; `rows` has the row count of each part.

    Takes the smallest parts, as many as keep the growth factor. The result is empty if there are few parts, or if
    each part is larger than a seventh of all smaller ones together: then there are at most about a hundred, plus
    those that are too large to be merged.
    """
    if len(rows) <= MAX_PARTS:
        return []
    smallest_first = sorted(range(len(rows)), key=rows.__getitem__)
    total = worth = 0
    for count, place in enumerate(smallest_first, 1):
        total += rows[place]
        if total > MAX_PART_ROWS:
            break
        if count > 1 and rows[place] * GROWTH <= total:
            worth = count
    return smallest_first[:worth]
