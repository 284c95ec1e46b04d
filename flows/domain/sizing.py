"""The size of the next batch. `plan` announces and `run` sends exactly the batches that `cut_batches` cuts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Literal, Protocol

from blocks.batch import Limits
from flows.domain.estimate import input_rate
from flows.domain.events import Slice
from flows.domain.ledger import Ledger
from flows.domain.ranges import Ranges

AUTO_START, AUTO_MIN = 1_000, 10
AUTO_TARGET = 300.0  # seconds that a batch should take at the provider
GROW_BELOW, GROW, SHRINK_ABOVE, SHRINK = 0.7, 1.5, 1.5, 0.7  # HolySheep's tutorial


class Sizes(Protocol):
    """The sizes of encoded requests, without rendering them again."""

    def fit(self, start: int, stop: int, size: int) -> int:
        """The highest number up to `stop` such that the requests from `start` below it take at most `size` bytes."""
        ...

    def total(self, start: int, stop: int) -> int:
        """Bytes of the requests from `start` up to `stop`."""
        ...


@dataclass(frozen=True, slots=True)
class BatchLimit:
    """The largest batch that may be sent now, and how much may be queued at the provider in all batches."""

    requests: int
    bytes: int | None = None
    queued_requests: int | None = None
    queued_bytes: int | None = None

    def batches_of(self, requests: int) -> int:
        """About how many batches this many requests make, ignoring their bytes."""
        return ceil(requests / self.requests)


def batch_limit(
    batch_size: int | Literal["auto"], limits: Limits, ledger: Ledger, tokens_per_byte: float
) -> BatchLimit:
    """The user's batch size, within the limits that the provider states or has shown so far.

    `tokens_per_byte` is the estimate used for limits in tokens until the provider has reported usage.
    """
    wanted = auto_batch_size(ledger, limits.max_requests) if batch_size == "auto" else batch_size
    queued_bytes = _queued_bytes(limits.max_queued_tokens, input_rate(ledger) or tokens_per_byte)
    return BatchLimit(
        requests=min(_known(wanted, limits.max_requests, ledger.max_requests, limits.max_queued_requests)),
        bytes=min(_known(limits.max_bytes, queued_bytes), default=None),
        queued_requests=limits.max_queued_requests,
        queued_bytes=queued_bytes,
    )


def _queued_bytes(tokens: int | None, tokens_per_byte: float) -> int | None:
    return None if tokens is None or not tokens_per_byte else int(tokens / tokens_per_byte)


def _known(*limits: int | None) -> list[int]:
    return [limit for limit in limits if limit is not None]


def auto_batch_size(ledger: Ledger, max_requests: int) -> int:
    """The size of the next batch: larger after quick batches, smaller after slow ones."""
    size = float(min(AUTO_START, max_requests))
    for _, batch in sorted(ledger.batches.items()):
        if batch.result is None or batch.failed is not None:
            continue
        share = (batch.ended_at - batch.submitted_at) / AUTO_TARGET
        if share < GROW_BELOW:
            size *= GROW
        elif share > SHRINK_ABOVE:
            size *= SHRINK
        size = min(max(size, AUTO_MIN), max_requests)
    return int(size)


def cut_batches(ledger: Ledger, wanted: Ranges, sizes: Sizes, limit: BatchLimit) -> Iterator[tuple[list[Slice], bool]]:
    """All unsent requests as batches, each with whether it is full. A request over the limit gets its own batch.

    The provider decides what is too large, so no request is ever left out.
    """
    slices: list[Slice] = []
    requests_left, bytes_left = limit.requests, limit.bytes
    for piece in ledger.unsent(wanted):
        start = piece.start
        while start < piece.stop:
            stop = min(piece.stop, start + requests_left)
            if bytes_left is not None:
                stop = sizes.fit(start, stop, bytes_left)
            if stop == start and not slices:
                stop = start + 1
            if stop > start:
                slices.append(piece._replace(start=start, stop=stop))
                requests_left -= stop - start
                if bytes_left is not None:
                    bytes_left -= sizes.total(start, stop)
                start = stop
            if requests_left <= 0 or start < piece.stop:
                yield slices, True
                slices, requests_left, bytes_left = [], limit.requests, limit.bytes
    if slices:
        yield slices, False


@dataclass(slots=True)
class Queue:
    """What is queued at the provider, in all batches. An empty queue accepts any batch."""

    limit: BatchLimit
    sizes: Sizes
    requests: int = 0
    bytes: int = 0

    @property
    def is_limited(self) -> bool:
        """Whether the provider states a limit at all."""
        return self.limit.queued_requests is not None or self.limit.queued_bytes is not None

    def add(self, slices: list[Slice]) -> None:
        """Count a batch that is, or may be, at the provider."""
        self.requests += sum(piece.requests for piece in slices)
        self.bytes += sum(self.sizes.total(piece.start, piece.stop) for piece in slices)

    def takes(self, slices: list[Slice]) -> bool:
        """Whether a batch of these slices may be sent now; if so, it is counted."""
        if not self.is_limited:
            return True
        was_empty = self.requests == 0
        self.add(slices)
        return was_empty or (
            self.requests <= (self.limit.queued_requests or self.requests)
            and self.bytes <= (self.limit.queued_bytes or self.bytes)
        )
