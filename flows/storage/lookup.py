"""Results by request number, taken from the parts that may hold them: memory is bounded by a few row groups."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache

import numpy as np
import pyarrow as pa

from flows.domain.ledger import Ledger
from flows.domain.schema import OutputSchema
from flows.storage.results import ResultsStore, compacted_schema, reading
from flows.storage.tables import NUMBERED_ROWS, Flags, NumberedTable, Numbers

CACHED_GROUPS = 4  # row groups of parts that neighbouring windows share


class ResultLookup:
    """The results of an output as the ledger lists them. Requests are given ascending, each once."""

    def __init__(self, results: ResultsStore, ledger: Ledger, schema: OutputSchema) -> None:
        self._parts = results.parts(ledger)
        self._spans = [part.span for part in self._parts]
        batches = (batch for part in self._parts for batch in part.batches)
        slices = [(piece.start, piece.stop, batch.number) for batch in batches for piece in batch.slices]
        self._slices = np.array(slices, dtype=np.int64).reshape(-1, 3)
        self._schema = compacted_schema(schema)
        self._final = np.array(list(ledger.final_numbers()), dtype=np.int64).reshape(-1, 2)
        self._group = lru_cache(maxsize=CACHED_GROUPS)(self._read_group)

    def fingerprint(self, requests: Numbers) -> bytes:
        """A fingerprint of what is known of these requests: the batches with their results, and the final failures."""
        batches = np.unique(self._slices[_hit(self._slices, requests), 2])
        final = requests[self.is_final(requests)] if len(requests) else requests
        return batches.tobytes() + b"|" + final.tobytes()

    def results_of(self, requests: Numbers) -> pa.Table:
        """All results of these requests, by request and then oldest first."""
        found = [self._schema.empty_table()]
        if len(requests):
            low, high = int(requests[0]), int(requests[-1])
            for index, (start, stop) in enumerate(self._spans):
                if start <= high and stop > low:
                    found.extend(self._matching(index, requests))
        table = pa.concat_tables(found).combine_chunks()
        order = np.lexsort((table.column("batch").to_numpy(), table.column("request").to_numpy()))
        return table.take(pa.array(order))

    def rows_at_once(self, requests: Numbers) -> int:
        """How many rows may get the results of these requests at once: what a row group of the results holds."""
        low, high = (int(requests[0]), int(requests[-1])) if len(requests) else (0, 0)
        hit = [index for index, (start, stop) in enumerate(self._spans) if start <= high and stop > low]
        return min((self._rows_of_a_group(index) for index in hit), default=NUMBERED_ROWS)

    @cache  # noqa: B019  # lives as long as one publishing
    def _rows_of_a_group(self, index: int) -> int:
        """The first group, if it is not the only one, has as many rows as its bytes allow."""
        with NumberedTable(self._parts[index].path) as table:
            return table.rows_of(0) if table.groups > 1 else NUMBERED_ROWS

    def is_final(self, requests: Numbers) -> Flags:
        """Which of these requests, in any order, failed for good."""
        ranges = self._final
        at = np.searchsorted(ranges[:, 0], requests, side="right") - 1
        return (at >= 0) & (requests < ranges[np.maximum(at, 0), 1]) if len(ranges) else np.zeros(len(requests), bool)

    def _matching(self, index: int, requests: Numbers) -> Iterator[pa.Table]:
        for group, (low, high) in enumerate(self._group_spans(index)):
            if low <= requests[-1] and high >= requests[0]:
                table = self._group(index, group)
                inside = np.isin(table.column("request").to_numpy(), requests)
                if inside.any():
                    yield table if inside.all() else table.filter(pa.array(inside))

    @cache  # noqa: B019  # lives as long as one publishing
    def _group_spans(self, index: int) -> list[tuple[int, int]]:
        with NumberedTable(self._parts[index].path) as table:
            return table.spans("request")

    def _read_group(self, index: int, group: int) -> pa.Table:
        with reading(self._parts[index]) as table:
            return table.read_group(group, self._schema.names)


def _hit(ranges: Numbers, requests: Numbers) -> Flags:
    """Which ranges hold any of the requests."""
    return np.searchsorted(requests, ranges[:, 0]) < np.searchsorted(requests, ranges[:, 1])
