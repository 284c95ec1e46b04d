"""Which requests are sent first to see what answers are like and what all of them will cost."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

from flows.domain.ranges import Ranges


def sample_of(wanted: Ranges, count: int, seed: str) -> Ranges:
    """So many of the requests, chosen by chance, or all if there are no more.

    The same ones for the same seed, in any version of Python: a sample that was interrupted goes on.
    """
    if count >= len(wanted):
        return wanted
    left, chosen, before = iter(sorted(_drawn(len(wanted), count, seed))), Ranges(), 0
    place = next(left, None)
    for start, stop in wanted:
        while place is not None and place < before + stop - start:
            number = start + place - before
            chosen.add(number, number + 1)
            place = next(left, None)
        before += stop - start
    return chosen


def _drawn(size: int, count: int, seed: str) -> Iterator[int]:
    """Different numbers below `size`: those that would be first if all were shuffled."""
    moved: dict[int, int] = {}
    for place in range(count):
        digest = blake2b(f"{seed} {place}".encode(), digest_size=16).digest()
        other = place + int.from_bytes(digest, "big") % (size - place)
        yield moved.get(other, other)
        moved[other] = moved.get(place, place)
