"""What a run may spend: what it did spend, and the most that its open batches can cost, never exceed its budgets.

A batch reserves the most that it can cost before it is sent: a token for each byte of its requests, as no tokenizer
makes more, and answers as long as the job allows. What it was billed takes the place of that once its answers have
been read. Whatever stays unknown stays reserved. A budget counts the batches that were decided on since some time: the
beginning of a run, or of a month. All amounts are pico-dollars.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from blocks.batch import LONGER
from flows.domain.batches import IN_FLIGHT, Batch, State
from flows.domain.events import Slice
from flows.domain.money import show_usd
from flows.domain.prices import Rates
from flows.domain.sizing import Sizes

ONCE_MORE = "run the same command again to spend as much once more, or with a larger budget"
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
class Month:
    """A month of the calendar, in UTC."""

    year: int
    number: int

    @classmethod
    def of(cls, at: float) -> Month:
        """The month of a time in seconds since the epoch."""
        day = datetime.fromtimestamp(at, UTC)
        return cls(day.year, day.month)

    @property
    def began(self) -> float:
        """Its first moment, in seconds since the epoch."""
        return datetime(self.year, self.number, 1, tzinfo=UTC).timestamp()

    def __str__(self) -> str:
        return f"{self.year}-{self.number:02d}"


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """How much of a budget is taken: spent, or reserved for what may still be billed."""

    title: str
    limit: int
    here: int  # taken by this output
    elsewhere: int  # by other outputs

    def words(self) -> str:
        """For people."""
        taken = f"{show_usd(self.here + self.elsewhere)} of {show_usd(self.limit)} spent or reserved"
        return f"{taken}{_by_others(self.elsewhere)}"


@dataclass(frozen=True, slots=True)
class Budget:
    """How much batches may cost that were decided on since some time."""

    limit: int
    since: float  # seconds since the epoch
    ceiling: Ceiling  # of what is sent now
    emulated: bool = False  # whose batches count: what the emulator's answers would have cost is no money
    earlier: Mapping[str, Ceiling] = field(default_factory=dict)  # of what was sent under other specs, by their names
    elsewhere: int = 0  # what other outputs have spent or reserved of it
    title: str = "the budget"
    next_step: str = ONCE_MORE

    def committed(self, batches: Iterable[Batch], sizes: Sizes) -> int:
        """What this output has spent or reserved of it."""
        return sum(self._committed(batch, sizes) for batch in batches if self._counts(batch))

    def left(self, batches: Iterable[Batch], sizes: Sizes) -> int:
        """What new batches may cost; negative if the provider billed more than it can have answered."""
        return self.limit - self.elsewhere - self.committed(batches, sizes)

    def sentence(self, batches: Iterable[Batch], sizes: Sizes) -> str:
        """Why nothing more is sent, and what to do."""
        taken = self.limit - self.left(batches, sizes)
        return (
            f"{self.title} of {show_usd(self.limit)} is reached: {show_usd(taken)} was spent or may still be billed"
            f"{_by_others(self.elsewhere)}, and another request could cost more than what is left; {self.next_step}"
        )

    def use(self, batches: Iterable[Batch], sizes: Sizes) -> BudgetUse:
        """What became of it."""
        return BudgetUse(self.title, self.limit, self.committed(batches, sizes), self.elsewhere)

    def boundless(self, batches: Iterable[Batch], spec: str) -> Batch | None:
        """A batch that counts and of which nobody can tell what it may cost; `spec`: what `ceiling` is about."""
        known = {"", spec, *self.earlier}
        return next((b for b in batches if self._counts(b) and b.spec not in known and not _is_settled(b)), None)

    def _counts(self, batch: Batch) -> bool:
        """Whose a reserved batch is, and since when, is only said with its intent: it is of this run."""
        return batch.state is State.RESERVED or (batch.emulated is self.emulated and batch.waiting_from >= self.since)

    def _committed(self, batch: Batch, sizes: Sizes) -> int:
        """What a batch was billed, and the most that may be billed for what is not known of it."""
        ceiling, result = self.earlier.get(batch.spec, self.ceiling), batch.result
        if batch.state is State.REFUSED:
            return ceiling.of(batch.slices, sizes) if batch.unsure else 0
        if batch.state is State.COLLECTED and result is not None and result.cost is not None:
            return result.cost + ceiling.of_some(result.unmetered, batch.slices, sizes)
        return ceiling.of(batch.slices, sizes) * (1 + len(batch.copies))


def _by_others(taken: int) -> str:
    return f", {show_usd(taken)} of it by other outputs" if taken else ""


def _is_settled(batch: Batch) -> bool:
    """Whether all is known of what it was billed."""
    if batch.state is State.REFUSED:
        return not batch.unsure
    return batch.result is not None and batch.result.cost is not None and not batch.result.unmetered


class Spending:
    """Hands out what is left of budgets, batch by batch: as much as the one with the least has."""

    def __init__(self, budgets: Sequence[Budget], batches: Collection[Batch], sizes: Sizes) -> None:
        self._ceiling = budgets[0].ceiling
        self._sizes = sizes
        self._left = min(budget.left(batches, sizes) for budget in budgets)
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
