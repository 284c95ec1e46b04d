"""Merging results parts. One window of requests is in memory at a time, however much the parts hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from blocks.errors import StateError
from flows.domain.schema import OutputSchema
from flows.storage.files import replacing
from flows.storage.results import Part, compacted_schema, reading, tags_metadata
from flows.storage.tables import NUMBERED_ROWS, NumberedTable, NumberedWriter, Numbers

WINDOW_ROWS = NUMBERED_ROWS  # results that are merged at a time


def merge_parts(parts: Sequence[Part], target: Path, schema: OutputSchema) -> None:
    """Write the rows of the parts as one part: by request, then oldest first."""
    columns = compacted_schema(schema)
    metadata = tags_metadata(batch for part in parts for batch in part.batches)
    with replacing(target) as temporary, NumberedWriter(temporary, columns.with_metadata(metadata)) as writer:
        for window in _windows(parts, columns.names):
            writer.write(window)


def check_part(path: Path, batches: Mapping[int, int]) -> None:
    """Read all of a compacted part. Raises StateError unless it is in order and has these rows of each batch."""
    found: Counter[int] = Counter()
    last = (-1, -1)
    with NumberedTable(path) as table:
        for group in range(table.groups):
            rows = table.read_group(group)
            request, batch = (rows.column(name).to_numpy() for name in ("request", "batch"))
            if (int(request[0]), int(batch[0])) <= last or not _ascends(request, batch):
                raise StateError(f"{path} is not in order")
            last = int(request[-1]), int(batch[-1])
            found.update(dict(zip(*(each.tolist() for each in np.unique(batch, return_counts=True)), strict=True)))
    if found != batches:
        raise StateError(f"{path} does not contain the merged rows")


def _windows(parts: Sequence[Part], columns: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of all parts in order, cut between requests."""
    requests = [_requests(part) for part in parts]
    together = np.sort(np.concatenate(requests))
    cuts = np.unique(together[WINDOW_ROWS::WINDOW_ROWS])
    # For each part the positions of the cuts, from 0 to its number of rows.
    places = [[0, *np.searchsorted(numbers, cuts).tolist(), len(numbers)] for numbers in requests]
    for window in range(len(cuts) + 1):
        pieces = [
            _rows(part, at[window], at[window + 1], columns)
            for part, at in zip(parts, places, strict=True)
            if at[window] < at[window + 1]
        ]
        rows = pa.concat_tables(pieces).combine_chunks()
        order = np.lexsort((rows.column("batch").to_numpy(), rows.column("request").to_numpy()))
        yield rows.take(pa.array(order))


def _requests(part: Part) -> Numbers:
    """The request of each row, eight bytes per row."""
    with reading(part) as table:
        numbers: Numbers = table.requests().to_numpy()
        return numbers


def _rows(part: Part, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
    with reading(part) as table:
        rows = table.read(start, stop, columns)
    return rows.take(pa.array(np.arange(rows.num_rows)))  # a copy: a slice would keep all of its row group in memory


def _ascends(request: Numbers, batch: Numbers) -> bool:
    higher, equal = np.diff(request) > 0, np.diff(request) == 0
    return bool(np.all(higher | (equal & (np.diff(batch) > 0))))
