"""The cost of a run before it starts; more accurate once the provider has reported the usage of some answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from blocks.batch import Usage
from flows.domain.batches import Batch
from flows.domain.ledger import Ledger
from flows.domain.money import ModelPrice


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens and pico-dollars of requests that are still to be sent. Costs are None for an unpriced model."""

    requests: int
    input_tokens: int
    output_tokens: int
    cost: int | None
    single_cost: int | None


def estimate(
    requests: int,
    size: int,
    tokens_per_byte: float,
    output_tokens: int,
    price: ModelPrice | None,
    ledger: Ledger,
    *,
    emulated: bool = False,
) -> Estimate:
    """Estimate `requests` of `size` bytes in total, `output_tokens` per answer, corrected by the usage so far.

    `emulated`: whether the emulator will answer. What it counted says nothing of a real provider, and the reverse.
    """
    seen = (batch for batch in ledger.batches.values() if batch.emulated is emulated)
    input_rate, output_rate = _observed(seen) or (tokens_per_byte, float(output_tokens))
    tokens_in, tokens_out = ceil(size * input_rate), ceil(requests * output_rate)
    if price is None:
        return Estimate(requests, tokens_in, tokens_out, None, None)
    tier, usage = price.tier(tokens_in // requests if requests else 0), Usage(tokens_in, tokens_out)
    return Estimate(requests, tokens_in, tokens_out, tier.batch.cost(usage), tier.single.cost(usage))


def input_rate(ledger: Ledger) -> float | None:
    """Input tokens per byte, as observed so far; None without complete batches."""
    observed = _observed(ledger.batches.values())
    return None if observed is None else observed[0]


def _observed(batches: Iterable[Batch]) -> tuple[float, float] | None:
    """Input tokens per byte and output tokens per answer, from batches in which every request was answered."""
    size = answers = tokens_in = tokens_out = 0
    for batch in batches:
        if batch.result is not None and batch.result.ok == batch.requests and batch.bytes:
            size += batch.bytes
            answers += batch.result.ok
            tokens_in += batch.result.input_tokens
            tokens_out += batch.result.output_tokens
    return (tokens_in / size, tokens_out / answers) if answers else None
