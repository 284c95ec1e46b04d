"""What requests will cost, before they are sent and while they are: corrected by the usage that came back.

A ratio estimator: tokens that were planned are scaled by what the provider counted of the same requests, and answers
that are still to come are as long as those that came on average. It tells what chance does, not that later rows are of
another kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, sqrt

from blocks.batch import Usage
from flows.domain.batches import IN_FLIGHT, Batch, State
from flows.domain.ledger import Ledger
from flows.domain.money import add
from flows.domain.prices import DayPrice, Rates, Service

FEWEST_ANSWERS = 30  # from which a range is told
DEVIATIONS = 2.0  # that a range has to both sides: it holds in 95 of 100 cases
INPUT_VARIES = 0.15  # how far one request's tokens are off, where they are estimated (docs/wire-protocols.md §9)
SENT = IN_FLIGHT - {State.RESERVED}  # under way, or perhaps
USUAL = (201, 200)  # answers that are billed, for requests that come to their end: a few of either say little
MOST_ANSWERS = 10.0  # of one request: with more of them nothing can be foretold


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
        cost=_with_cache(_cost(rates, tokens_in, tokens_out), seen),
        single_cost=_cost(price.rates(size, Service.STANDARD), tokens_in, tokens_out),
        ceiling=None if longest is None else _cost(rates, tokens_in, unsent.requests * longest),
    )


@dataclass(frozen=True, slots=True)
class Outlook:
    """What an output has cost and will have cost, in pico-dollars; None is unknown."""

    spent: int | None  # exact
    under_way: int | None  # about what batches will be billed that are sent and not collected yet
    total: int | None  # expected when all is answered
    lowest: int | None = None  # of `total`; None until enough has come back
    highest: int | None = None


def outlook(unsent: Unsent, price: DayPrice, ledger: Ledger, *, emulated: bool = False) -> Outlook:
    """What came back corrects what is to come: batches that are under way, and requests that are still to be sent."""
    mine = [batch for batch in ledger.batches.values() if batch.emulated is emulated]
    out = [batch for batch in mine if batch.state in SENT]
    waiting = Unsent(sum(b.requests for b in out), sum(b.tokens for b in out), unsent.output_tokens)
    spent = ledger.spent(emulated=emulated)
    under_way = estimate(waiting, price, ledger, emulated=emulated).cost
    once = add(under_way, estimate(unsent, price, ledger, emulated=emulated).cost)
    if spent is None or once is None:
        return Outlook(spent, under_way, None)
    seen, answers = _observed(mine), _answers_each(mine)
    rest = round(once * answers)
    if seen is None or seen.answers < FEWEST_ANSWERS or not waiting.requests + unsent.requests:
        known = not waiting.requests + unsent.requests
        return Outlook(spent, under_way, spent + rest, *((spent, spent) if known else (None, None)))
    varies = round(_varies(seen, waiting, unsent, price) * answers)
    return Outlook(spent, under_way, spent + rest, spent + max(0, rest - varies), spent + rest + varies)


def _varies(seen: Observed, waiting: Unsent, unsent: Unsent, price: DayPrice) -> float:
    """Pico-dollars by which chance may change the cost of what is to come: its mean is known from a sample only."""
    requests = waiting.requests + unsent.requests
    tokens_in = (waiting.input_tokens + unsent.input_tokens) * seen.input_factor
    rates = price.rates(int(tokens_in) // requests)
    if rates is None:
        return 0.0
    chance = sqrt(1 / seen.answers + 1 / requests)  # of the sample, and of what it is a sample for
    by_input = tokens_in * INPUT_VARIES * rates.input
    by_output = requests * seen.output_deviation * rates.output
    return DEVIATIONS * chance * sqrt(by_input**2 + by_output**2)


def _answers_each(batches: Iterable[Batch]) -> float:
    """How many answers will be billed for a request until it is answered well or given up, from what came back so far.

    A failure that is not billed costs nothing, however often it is repeated.
    """
    billed, ended = USUAL
    for batch in batches:
        if batch.result is not None:
            billed += batch.result.metered
            ended += batch.requests - sum(piece.requests for piece in batch.result.retry)
    return min(billed / ended, MOST_ANSWERS)


def _cost(rates: Rates | None, tokens_in: int, tokens_out: int) -> int | None:
    return None if rates is None else rates.cost(Usage(tokens_in, tokens_out))


def _with_cache(cost: int | None, seen: Observed | None) -> int | None:
    """Less what the prompt cache takes off, if it does as for the answers so far."""
    return cost if cost is None or seen is None or seen.paid == 1 else round(cost * seen.paid)


@dataclass(frozen=True, slots=True)
class Observed:
    """What the provider counted of answers so far."""

    answers: int
    input_factor: float  # input tokens, as a multiple of what was planned
    input_per_byte: float
    output_tokens: float  # of one answer, on average
    output_deviation: float  # of one answer's output tokens from that
    paid: float = 1  # share of what the same answers would have cost without a cache of the prompt


def input_rate(ledger: Ledger) -> float | None:
    """Input tokens per byte, as observed so far; None without answers."""
    seen = _observed(ledger.batches.values())
    return None if seen is None else seen.input_per_byte


def _observed(batches: Iterable[Batch]) -> Observed | None:
    """Requests that failed have bytes and no usage: of a batch counts what its answers are of it."""
    planned = size = 0.0
    answers = tokens_in = tokens_out = squares = paid = saved = 0
    for batch in batches:
        if batch.result is not None and batch.result.metered and batch.bytes:
            share = batch.result.metered / batch.requests
            planned += batch.tokens * share
            size += batch.bytes * share
            answers += batch.result.metered
            tokens_in += batch.result.input_tokens
            tokens_out += batch.result.output_tokens
            squares += batch.result.output_squares
            paid += batch.result.cost or 0
            saved += batch.result.cache_saved or 0
    if not answers:
        return None
    mean = tokens_out / answers
    deviation = sqrt(max(0.0, squares / answers - mean**2))
    share = paid / (paid + saved) if saved else 1
    return Observed(answers, tokens_in / planned if planned else 1.0, tokens_in / size, mean, deviation, share)
