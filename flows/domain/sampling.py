"""A few requests that stand for all, and what all of them will take by what those took.

A regression estimator: an answer's tokens and cost depend on the estimated size of its request, as far as those that
came back say so. Chance alone made the choice, so the range covers what later rows are like too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nsmallest
from math import fsum, sqrt

from flows.domain.ranges import Ranges

FEWEST = 8  # answers from which a slope and a range are told
ALL_BITS = (1 << 64) - 1  # of the numbers that lots are


def sample_of(wanted: Ranges, count: int) -> Ranges:
    """So many of the requests or all, drawn at random, the same ones each time; a larger sample holds the smaller one.

    The lot of a request is made of its number alone: when rows are added, most of the sample stays.
    """
    if count >= len(wanted):
        return wanted
    numbers = (number for start, stop in wanted for number in range(start, stop))
    return Ranges((number, number + 1) for number in sorted(nsmallest(count, numbers, key=_lot)))


def _lot(number: int) -> int:
    """64 bits that look like chance: a round of SplitMix64."""
    mixed = (number + 1) * 0x9E3779B97F4A7C15 & ALL_BITS
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & ALL_BITS
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & ALL_BITS
    return mixed ^ mixed >> 31


@dataclass(frozen=True, slots=True)
class Measured:
    """One request of a sample, all its attempts together."""

    planned: int  # input tokens, as counted or estimated before
    input: int
    output: int
    cost: int | None  # pico-dollars; None: unpriced


@dataclass(frozen=True, slots=True)
class Span:
    """What is expected, and a range: about 19 in 20 of them hold what comes. None where too little is known."""

    expected: int
    lowest: int | None = None
    highest: int | None = None


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """What all requests will take, those of the sample included. The cost is None for an unpriced model."""

    input_tokens: Span
    output_tokens: Span
    cost: Span | None


@dataclass(frozen=True, slots=True)
class Sampled:
    """What became of a sample, and what that says of all requests."""

    requests: int  # that were drawn
    of: int  # requests in all
    answered: int
    failed: int  # for good
    measured: int  # whose usage is known; the following are of these alone
    estimated_input: int
    estimated_output: int
    input: int
    output: int
    cost: int | None  # pico-dollars; None: unpriced
    all: Extrapolation | None  # None if nothing was measured

    @property
    def waiting(self) -> int:
        """Requests that have no answer yet, and have not failed for good."""
        return self.requests - self.answered - self.failed


def extrapolate(sample: Sequence[Measured], requests: int, planned: int) -> Extrapolation | None:
    """`requests`: how many there are in all; `planned`: their input tokens. None if nothing was measured."""
    if not sample:
        return None
    sizes = [each.planned for each in sample]
    costs = [each.cost for each in sample if each.cost is not None]
    return Extrapolation(
        _total(sizes, [each.input for each in sample], requests, planned),
        _total(sizes, [each.output for each in sample], requests, planned),
        _total(sizes, costs, requests, planned) if len(costs) == len(sample) else None,
    )


def _total(sizes: Sequence[int], values: Sequence[int], requests: int, planned: int) -> Span:
    """The sum of the values of all requests: those that are known, and the others by their size."""
    count, rest, known = len(sizes), requests - len(sizes), sum(values)
    if rest <= 0:
        return Span(known, known, known)
    size, value = fsum(sizes) / count, fsum(values) / count
    further = (planned - sum(sizes)) / rest - size  # by how much the others are larger, on average
    varied = fsum((each - size) ** 2 for each in sizes)
    if count < FEWEST:  # too few to tell a slope: in proportion to the size
        proportion = 1 + further / size if size else 1.0
        return Span(known + max(0, round(rest * value * proportion)))
    slope = fsum((x - size) * (y - value) for x, y in zip(sizes, values, strict=True)) / varied if varied else 0.0
    others = rest * (value + slope * further)
    left_over = fsum((y - value - slope * (x - size)) ** 2 for x, y in zip(sizes, values, strict=True)) / (count - 2)
    chance = rest * (1 + rest * (1 / count + (further**2 / varied if varied else 0.0)))
    off = _deviations(count - 2) * sqrt(left_over * chance)
    return Span(*(known + max(0, round(each)) for each in (others, others - off, others + off)))


def _deviations(freedom: int) -> float:
    """How many standard deviations hold 19 in 20, by Student's distribution: to 0.01 from eight degrees on."""
    return 1.96 + 2.37 / freedom + 2.8 / freedom**2
