"""Windows of rows that fit into memory, by what the file really holds and not by what it holds on average."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.errors import UsageError
from blocks.printable import SHORT, printable
from flows.storage.pages import LARGEST_PAGE, Unreadable, longest_in_dictionary, pages_of, rows_within
from flows.storage.tables import decoded_bytes

WINDOW_BYTES = 8 * 1024 * 1024  # what one window of rows may take in memory
WINDOW_ROWS = 8_192
CAREFUL_ROWS = 16  # at once, of a file whose pages can't be understood
TEXTS = ("BYTE_ARRAY",)  # the values whose size a footer does not tell


def windows_of(path: Path, file: pq.ParquetFile, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    """The rows of these columns in order: batches that are small for sure, put together as long as they fit."""
    window: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in _batches(path, file, columns):
        width = decoded_bytes(pa.Table.from_batches([batch]))
        if window and (rows + batch.num_rows > WINDOW_ROWS or size + width > WINDOW_BYTES):
            yield pa.Table.from_batches(window)
            window, rows, size = [], 0, 0
        window.append(batch)
        rows, size = rows + batch.num_rows, size + width
    if window:
        yield pa.Table.from_batches(window)


def check_pages(path: Path, metadata: pq.FileMetaData) -> None:
    """Raises UsageError for a file that can't be read in little memory: one with a page of hundreds of megabytes."""
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            chunk = row_group.column(index)
            if chunk.total_uncompressed_size > LARGEST_PAGE:
                _check_chunk(path, chunk)


def _check_chunk(path: Path, chunk: Any) -> None:
    try:
        largest = max((page.bytes for page in pages_of(path, chunk)), default=0)
    except Unreadable:
        return
    if largest > LARGEST_PAGE:
        name = printable(chunk.path_in_schema, SHORT)
        raise UsageError(
            f"{path} has a page of {largest:,} bytes in its column {name!r}: it can't be read in little memory",
            next_step="write the file anew with smaller pages, such as pandas and pyarrow write by default",
        )


def _batches(path: Path, file: pq.ParquetFile, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    limits = _Limits(path, file, columns)
    if file.metadata.num_rows == 0:
        return
    batches = file.iter_batches(limits.rows_at(0), columns=columns, use_threads=False)
    at = 0
    while (batch := next(batches, None)) is not None:
        yield batch
        at += batch.num_rows
        if at < file.metadata.num_rows:
            file.reader.set_batch_size(limits.rows_at(at))  # of the next batch: Arrow looks before each


class _Limits:
    """How many rows may be read at once, at each place of a file."""

    def __init__(self, path: Path, file: pq.ParquetFile, columns: Sequence[str] | None) -> None:
        self._path = path
        self._metadata = file.metadata
        names = file.schema_arrow.names
        chosen = set(names if columns is None else columns)
        leaves = [file.metadata.schema.column(index).path for index in range(file.metadata.num_columns)]
        self._leaves = [index for index, leaf in enumerate(leaves) if _top_level(leaf, names) in chosen]
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        self._starts = list(accumulate(sizes, initial=0))[:-1]
        self._group = 0
        self._rows_of = cache(self._measure)

    def rows_at(self, row: int) -> int:
        """For a batch that begins here, and may reach into the row groups that follow."""
        while self._group + 1 < len(self._starts) and self._starts[self._group + 1] <= row:
            self._group += 1
        rows = self._rows_of(self._group)
        for group in range(self._group + 1, len(self._starts)):
            before = self._starts[group] - row
            if before >= rows:
                break
            rows = min(rows, max(before, self._rows_of(group)))
        return rows

    def _measure(self, group: int) -> int:
        row_group = self._metadata.row_group(group)
        chunks = [row_group.column(index) for index in self._leaves]
        count = max(1, row_group.num_rows)
        average = sum(max(chunk.total_uncompressed_size, 8 * chunk.num_values) for chunk in chunks) / count
        rows = min(WINDOW_ROWS, int(WINDOW_BYTES / max(average, 1.0)))
        texts = [chunk for chunk in chunks if chunk.physical_type in TEXTS]
        for chunk in texts:
            within = _rows_in_pages(self._path, chunk)
            if within is not None:
                rows = min(rows, int(within / max(1.0, chunk.num_values / count)))
        return max(1, min(rows, self._rows_by_dictionary(group, texts, count, rows)))

    def _rows_by_dictionary(self, group: int, texts: list[Any], count: int, rows: int) -> int:
        """Each value from a dictionary may be its longest."""
        repeated = [
            chunk
            for chunk in texts
            if chunk.has_dictionary_page and chunk.total_uncompressed_size * rows > WINDOW_BYTES
        ]
        longest = longest_in_dictionary(self._path, group, [chunk.path_in_schema for chunk in repeated])
        width = sum(longest.get(c.path_in_schema, 0) * max(1.0, c.num_values / count) for c in repeated)
        return int(WINDOW_BYTES / max(1.0, width))


def _rows_in_pages(path: Path, chunk: Any) -> int | None:
    try:
        return rows_within(pages_of(path, chunk), WINDOW_BYTES)
    except Unreadable:
        return CAREFUL_ROWS


def _top_level(path: str, names: Sequence[str]) -> str:
    """The column that a nested value belongs to; names may contain dots."""
    if path in names:
        return path
    return max((name for name in names if path.startswith(f"{name}.")), key=len, default=path)
