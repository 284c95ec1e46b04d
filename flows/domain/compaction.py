"""Which results parts become one, so that an output of years has few of them and rewrites little each night."""

from __future__ import annotations

from collections.abc import Sequence

MOST_PARTS = 64  # that are left as they are; a window of rows may have to look into each of them
GROWTH = 8  # times as large as any of the parts that go into it is a merged one: a row is merged six times at most
LARGEST_PART = 1_000_000  # rows of a merged part: what one damaged file can cost, and one merging


def parts_to_merge(rows: Sequence[int]) -> list[int]:
    """The places of those to merge among parts of so many rows; none where there are few, or all too unlike in size.

    The smallest ones, as many as let the merged part grow enough. Where none do, each part is larger than a seventh
    of all smaller ones together: then there are about a hundred at most, and those too large to be merged.
    """
    if len(rows) <= MOST_PARTS:
        return []
    smallest_first = sorted(range(len(rows)), key=rows.__getitem__)
    total = worth = 0
    for count, place in enumerate(smallest_first, 1):
        total += rows[place]
        if total > LARGEST_PART:
            break
        if count > 1 and rows[place] * GROWTH <= total:
            worth = count
    return smallest_first[:worth]
