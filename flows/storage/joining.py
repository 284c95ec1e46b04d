"""Rows joined with the results of their requests: the columns that an output adds to its input."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows.domain.outcomes import Outcome
from flows.storage.lookup import ResultLookup
from flows.storage.output import COST, FAILED, OK, PENDING, SKIPPED, OutputSummary
from flows.storage.tables import Flags, Numbers

LOST = "its answer was lost; --retry-failed requests it again"  # a failure that has no result to say why


def added_columns(asked: pa.Table, lookup: ResultLookup, model: str) -> tuple[list[pa.Array], OutputSummary]:
    """The answer's columns and the status columns for rows of a plan, and their summary."""
    request = asked.column("request").fill_null(-1).to_numpy()
    results = lookup.results_of(distinct(request))
    best = _best_results(results)
    place = _places(results, best, request)
    # Row by row the best result of its request; nulls if there is none.
    taken = results.take(pa.array(best)).take(pa.array(np.maximum(place, 0), mask=place < 0))
    ok = np.array(taken.column("outcome").to_pylist(), dtype=object) == Outcome.OK
    status = _statuses(asked, ok, lookup.is_final(request))
    first = asked.column("first").to_numpy().astype(bool)
    attempts, tokens_in, tokens_out, cost = _sums(results, place)
    own_cost, shared_cost = _split(cost, first)
    good, repeated = _good_costs(results, best, place[first])
    columns = [
        *_answers(taken, ok),
        pa.array(status, pa.string()),
        _errors(asked, taken, status),
        pc.if_else(pa.array(place >= 0), model, pa.scalar(None, pa.string())),
        attempts,
        _split(tokens_in, first)[0],
        _split(tokens_out, first)[0],
        _usd(own_cost),
    ]
    return columns, OutputSummary(Counter(status.tolist()), _exact_sum(own_cost), shared_cost, good, repeated)


def _statuses(asked: pa.Table, ok: Flags, final: Flags) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    status = np.where(ok, OK, np.where(final, FAILED, PENDING)).astype(object)
    status[asked.column("skipped").is_valid().to_numpy()] = SKIPPED
    status[asked.column("unsendable").is_valid().to_numpy()] = FAILED
    return status


def _answers(taken: pa.Table, ok: Flags) -> list[pa.Array]:
    """A column for each field of the answers; null if there is no good answer."""
    answer, good = taken.column("answer").combine_chunks(), pa.array(ok)
    nulls = [pa.scalar(None, field.type) for field in answer.type]
    return [pc.if_else(good, answer.field(index), null) for index, null in enumerate(nulls)]


def _errors(asked: pa.Table, taken: pa.Table, status: np.ndarray[tuple[int], np.dtype[np.object_]]) -> pa.Array:
    lost = pc.if_else(pa.array(status == FAILED), LOST, pa.scalar(None, pa.string()))
    reasons = [asked.column("skipped"), asked.column("unsendable"), taken.column("error"), lost]
    return pc.coalesce(*reasons).combine_chunks()


def distinct(requests: Numbers) -> Numbers:
    """The requests that rows ask for, ascending, each once; they usually come like that. -1 is no request."""
    requests = requests[requests >= 0]
    if not (np.diff(requests) > 0).all():
        requests = np.sort(requests)
    return requests[_starts(requests)]


def _best_results(results: pa.Table) -> Numbers:
    """The index of each request's oldest good result, else of its newest one; by request."""
    request = results.column("request").to_numpy()
    ok = np.array(results.column("outcome").to_pylist(), dtype=object) == Outcome.OK
    index = np.arange(len(request))
    # By request, then good ones before others, then by age: the oldest good one first, or the newest of the others.
    order = np.lexsort((np.where(ok, index, -index), ~ok, request))
    return order[_starts(request[order])]


def _starts(ascending: Numbers) -> Numbers:
    """Where a new number begins."""
    return np.flatnonzero(np.diff(ascending, prepend=-1) != 0)


def _places(results: pa.Table, best: Numbers, request: Numbers) -> Numbers:
    """For each row the place of its request's result in `best`, -1 if there is none."""
    known = results.column("request").to_numpy()[best]
    if not len(known):
        return np.full(len(request), -1)
    at = np.minimum(np.searchsorted(known, request), len(known) - 1)
    return np.where(known[at] == request, at, -1)


def _sums(results: pa.Table, place: Numbers) -> list[pa.Array]:
    """By row: the attempts of its request, and input tokens, output tokens and cost (pico-dollars) of all of them.

    Null if nothing is known: not sent, or without usage.
    """
    starts = _starts(results.column("request").to_numpy())
    none = place < 0
    if not len(starts):
        return [pa.array(np.zeros(len(place)), pa.int32()), *(pa.nulls(len(place), pa.int64()) for _ in range(3))]
    attempts = np.maximum.reduceat(results.column("attempt").to_numpy(), starts)
    sums = [pa.array(np.where(none, 0, attempts[place]), pa.int32())]
    for name in ("input_tokens", "output_tokens", "cost"):
        column = results.column(name)
        total = np.add.reduceat(column.fill_null(0).to_numpy(), starts)
        known = np.logical_or.reduceat(column.is_valid().to_numpy(), starts)
        sums.append(pa.array(total[place], pa.int64(), mask=none | ~known[place]))
    return sums


def _good_costs(results: pa.Table, best: Numbers, place: Numbers) -> tuple[int, int]:
    """What the good answers at these places cost, and what further good answers to their requests did.

    An accidental copy of a batch is no part of either.
    """
    ok = np.array(results.column("outcome").to_pylist(), dtype=object) == Outcome.OK
    cost = results.column("cost").fill_null(0).to_numpy() - results.column("copied").fill_null(0).to_numpy()
    starts, mine = _starts(results.column("request").to_numpy()), place[place >= 0]
    if not len(starts):
        return 0, 0
    good = int((cost * ok)[best[mine]].sum())
    return good, int(np.add.reduceat(cost * ok, starts)[mine].sum()) - good


def _split(values: pa.Array, first: Flags) -> tuple[pa.Array, int]:
    """Values on the first row of each request and 0 on its duplicates; and the sum that the duplicates would have."""
    numbers = values.fill_null(0).to_numpy()
    own = pa.array(np.where(first, numbers, 0), pa.int64(), mask=values.is_null().to_numpy(zero_copy_only=False))
    return own, _exact_sum(pa.array(numbers[~first]))


def _exact_sum(values: pa.Array) -> int:
    """A sum that may have more than 64 bits."""
    return int(pc.sum(values.cast(pa.decimal128(38, 0))).as_py() or 0)


def _usd(pico: pa.Array) -> pa.Array:
    """Pico-dollars as exact dollars: the same digits, with the decimal point twelve places further left."""
    digits = pico.cast(pa.decimal128(19, 0))
    return pa.Array.from_buffers(COST, len(digits), digits.buffers(), digits.null_count, digits.offset)
