"""What may be spent, by a run or in a month: what was spent, and the most that open batches can cost, never exceed it.

A batch reserves the most that it can cost before it is sent: a token for each byte of its requests, as no tokenizer
makes more, and answers as long as the job allows. What it was billed takes the place of that once its answers have
been read. Whatever stays unknown stays reserved. All amounts are pico-dollars.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from blocks.batch import LONGER
from flows.domain.batches import IN_FLIGHT, Batch, State
from flows.domain.events import Slice
from flows.domain.money import show_usd
from flows.domain.prices import Rates
from flows.domain.sizing import Sizes

WORTH_SENDING = 2  # a batch that was cut down goes at once if one in so many of its requests is left


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most that requests can cost."""

    rates: tuple[Rates, ...]  # those of the largest request: of today, and those that are to come
    max_output_tokens: int  # of one answer
    largest: int  # bytes of a request

    def of(self, slices: Iterable[Slice], sizes: Sizes) -> int:
        """The most that a batch of these slices can cost."""
        tokens_in = tokens_out = 0
        for piece in slices:
            longest = self.max_output_tokens * (LONGER if piece.longer else 1)
            tokens_in += sizes.total(piece.start, piece.stop)
            tokens_out += piece.requests * longest
        return self._cost(tokens_in, tokens_out)

    def of_some(self, requests: int, slices: Sequence[Slice], sizes: Sizes) -> int:
        """The most that any so many requests of these slices can cost."""
        longest = self.max_output_tokens * (LONGER if any(piece.longer for piece in slices) else 1)
        dearest = self._cost(self.largest, longest)
        return min(requests * dearest, self.of(slices, sizes)) if requests else 0

    def _cost(self, tokens_in: int, tokens_out: int) -> int:
        """At the highest rate, whatever part of the input is read from, or written to, a cache."""
        return max(tokens_in * _dearest_input(rates) + tokens_out * rates.output for rates in self.rates)

    def fit(self, slices: Sequence[Slice], sizes: Sizes, left: int) -> list[Slice]:
        """The first requests of these slices that can't cost more than `left` together."""
        fitting: list[Slice] = []
        for piece in slices:
            stop = self._fit(piece, sizes, left)
            if stop > piece.start:
                fitting.append(piece._replace(stop=stop))
                left -= self.of(fitting[-1:], sizes)
            if stop < piece.stop:
                break
        return fitting

    def _fit(self, piece: Slice, sizes: Sizes, left: int) -> int:
        low, high = piece.start, piece.stop
        while low < high:
            middle = (low + high + 1) // 2
            if self.of([piece._replace(stop=middle)], sizes) <= left:
                low = middle
            else:
                high = middle - 1
        return low


def _dearest_input(rates: Rates) -> int:
    return max(rates.input, rates.cache_read, rates.cache_write_5m, rates.cache_write_1h)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much batches may cost that were begun since some time."""

    limit: int
    since: float  # seconds since the epoch
    ceiling: Ceiling
    emulated: bool = False  # whose batches count: what the emulator's answers would have cost is no money
    elsewhere: int = 0  # what other outputs that share it have spent, or may still be billed
    name: str = "the budget"
    next_step: str = "run the same command again to spend as much once more, or with a larger budget"

    def left(self, batches: Iterable[Batch], sizes: Sizes) -> int:
        """What new batches may cost; negative if the provider billed more than it can have answered."""
        return self.limit - self.elsewhere - self.committed(batches, sizes)

    def committed(self, batches: Iterable[Batch], sizes: Sizes) -> int:
        """What was billed of these batches, and the most that may still be."""
        return sum(self._committed(batch, sizes) for batch in batches if self._counts(batch))

    def sentence(self, batches: Iterable[Batch], sizes: Sizes) -> str:
        """Why nothing more is sent, and what now."""
        taken = self.limit - self.left(batches, sizes)
        return (
            f"{self.name} of {show_usd(self.limit)} is reached: {show_usd(taken)} was spent or may still be billed, "
            f"and another request could cost more than what is left; {self.next_step}"
        )

    def _counts(self, batch: Batch) -> bool:
        """Whose a reserved batch is, and since when, is only said with its intent: it is of this run."""
        return batch.state is State.RESERVED or (batch.emulated is self.emulated and batch.intended_at >= self.since)

    def _committed(self, batch: Batch, sizes: Sizes) -> int:
        """What a batch was billed, and the most that may be billed for what is not known of it."""
        if batch.state is State.REFUSED:
            return self.ceiling.of(batch.slices, sizes) if batch.unsure else 0
        if batch.state is State.COLLECTED and batch.result is not None:
            unknown = self.ceiling.of_some(batch.result.unmetered, batch.slices, sizes)
            return (batch.result.cost or 0) + unknown
        return self.ceiling.of(batch.slices, sizes) * (1 + len(batch.copies))


def scarcest(budgets: Sequence[Budget], batches: Collection[Batch], sizes: Sizes) -> Budget | None:
    """The one of which the least is left."""
    return min(budgets, key=lambda budget: budget.left(batches, sizes), default=None)


class Spending:
    """Hands out what is left of a budget, batch by batch."""

    def __init__(self, budget: Budget, batches: Collection[Batch], sizes: Sizes) -> None:
        self._ceiling = budget.ceiling
        self._sizes = sizes
        self._left = budget.left(batches, sizes)
        self._waits = any(batch.state in IN_FLIGHT for batch in batches)

    def afford(self, slices: Sequence[Slice]) -> list[Slice]:
        """As much of a batch as can be afforded now.

        Nothing if that is a small part of it and a batch is still out: what that one costs less than it could is
        worth waiting for.
        """
        if self._ceiling.of(slices, self._sizes) <= self._left:
            fitting = list(slices)
        else:
            fitting = self._ceiling.fit(slices, self._sizes, self._left)
            if self._waits and _count(fitting) * WORTH_SENDING < _count(slices):
                return []
        self._left -= self._ceiling.of(fitting, self._sizes)
        self._waits = self._waits or bool(fitting)
        return fitting


def _count(slices: Iterable[Slice]) -> int:
    return sum(piece.requests for piece in slices)
