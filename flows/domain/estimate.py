"""The cost of a run before it starts; more accurate once the provider has reported the usage of some answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from blocks.batch import Usage
from flows.domain.batches import Batch
from flows.domain.ledger import Ledger
from flows.domain.prices import DayPrice, Rates, Service


@dataclass(frozen=True, slots=True)
class Unsent:
    """Requests that are still to be sent, and what is expected of them."""

    requests: int
    input_tokens: int  # as counted, or estimated, when they were planned
    output_tokens: int  # of one answer, guessed from its schema
    max_output_tokens: int | None = None  # of one answer, if the job has such a limit


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens and pico-dollars of requests that are still to be sent. Costs are None for an unpriced model."""

    requests: int
    input_tokens: int
    output_tokens: int
    cost: int | None
    single_cost: int | None
    ceiling: int | None = None  # the cost if every answer were as long as the job allows; None: it sets no limit


def estimate(unsent: Unsent, price: DayPrice, ledger: Ledger, *, emulated: bool = False) -> Estimate:
    """Corrected by the usage so far.

    `emulated`: whether the emulator will answer. What it counted says nothing of a real provider, and the reverse.
    """
    seen = _observed(batch for batch in ledger.batches.values() if batch.emulated is emulated)
    tokens_in = ceil(unsent.input_tokens * (seen.input_factor if seen else 1))
    tokens_out = ceil(unsent.requests * (seen.output_tokens if seen else unsent.output_tokens))
    size = tokens_in // unsent.requests if unsent.requests else 0
    rates, longest = price.rates(size), unsent.max_output_tokens
    return Estimate(
        unsent.requests,
        tokens_in,
        tokens_out,
        cost=_cost(rates, tokens_in, tokens_out),
        single_cost=_cost(price.rates(size, Service.STANDARD), tokens_in, tokens_out),
        ceiling=None if longest is None else _cost(rates, tokens_in, unsent.requests * longest),
    )


def _cost(rates: Rates | None, tokens_in: int, tokens_out: int) -> int | None:
    return None if rates is None else rates.cost(Usage(tokens_in, tokens_out))


@dataclass(frozen=True, slots=True)
class Observed:
    """What the provider counted in batches in which every request was answered."""

    input_factor: float  # input tokens, as a multiple of what was planned
    input_per_byte: float
    output_tokens: float  # of one answer


def input_rate(ledger: Ledger) -> float | None:
    """Input tokens per byte, as observed so far; None without complete batches."""
    seen = _observed(ledger.batches.values())
    return None if seen is None else seen.input_per_byte


def _observed(batches: Iterable[Batch]) -> Observed | None:
    planned = size = answers = tokens_in = tokens_out = 0
    for batch in batches:
        if batch.result is not None and batch.result.ok == batch.requests and batch.bytes:
            planned += batch.tokens
            size += batch.bytes
            answers += batch.result.ok
            tokens_in += batch.result.input_tokens
            tokens_out += batch.result.output_tokens
    if not answers:
        return None
    return Observed(tokens_in / planned if planned else 1.0, tokens_in / size, tokens_out / answers)
