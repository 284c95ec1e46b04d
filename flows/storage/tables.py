"""Parquet files in bounded memory: row groups of limited size, rows read by number, reading ahead, writing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flows.storage.files import replacing
from flows.storage.pandas_types import ready_for

T = TypeVar("T")
Numbers = np.ndarray[Any, np.dtype[np.int64]]  # of rows or of requests
Flags = np.ndarray[Any, np.dtype[np.bool_]]

# Limits of a row group in our own files: reading one row by its number reads the whole group.
NUMBERED_ROWS = 16_384
NUMBERED_BYTES = 16 * 1024 * 1024  # in memory


def decoded_bytes(table: pa.Table) -> int:
    """Bytes in memory if each row has its own values: a few rows of a dictionary column hold all of the dictionary."""
    return sum(_decoded_bytes(chunk) for column in table.columns for chunk in column.chunks)


def _decoded_bytes(values: pa.Array) -> int:
    if not pa.types.is_dictionary(values.type):
        return int(values.nbytes)
    return int(values.indices.nbytes + values.dictionary.nbytes * len(values) // max(1, len(values.dictionary)))


def fitting_rows(table: pa.Table, max_bytes: int) -> int:
    """How many rows like these fit into `max_bytes`; at least one."""
    fitting: int = table.num_rows * max_bytes // max(1, decoded_bytes(table))
    return max(1, fitting)


def write_table(path: Path, table: pa.Table) -> None:
    """Replace one of our own Parquet files, a `NumberedTable` from then on."""
    group_rows = min(NUMBERED_ROWS, fitting_rows(table, NUMBERED_BYTES))
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=group_rows, write_page_checksum=True)


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; a thread makes the next one in the meantime, which pays off if Arrow does the work."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        upcoming = thread.submit(next, items, end)
        while (item := upcoming.result()) is not end:
            upcoming = thread.submit(next, items, end)
            yield cast("T", item)


class Behind:
    """Calls a function in a thread, one call after another; the caller waits only for the previous call."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="behind")
        self._last: Future[Any] | None = None

    def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Begin a call. Raises what the previous one raised."""
        self.wait()
        self._last = self._thread.submit(function, *arguments, **options)

    def wait(self) -> None:
        """Wait for the last call. Raises what it raised."""
        last, self._last = self._last, None
        if last is not None:
            last.result()


class RowGroupWriter:
    """Writes tables of any size to a Parquet file whose row groups have at most `max_rows` and about `max_bytes`."""

    def __init__(self, path: Path, schema: pa.Schema, max_rows: int, max_bytes: int, **options: Any) -> None:
        self._writer = pq.ParquetWriter(path, schema, write_statistics=_of_fixed_width(schema), **options)
        self._behind = Behind()
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._pending = schema.empty_table()

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        self._pending = pa.concat_tables([self._pending, table])
        group_rows = min(self._max_rows, fitting_rows(self._pending, self._max_bytes))
        full = self._pending.num_rows - self._pending.num_rows % group_rows
        if full:
            groups, self._pending = self._pending.slice(0, full), self._pending.slice(full)
            self._behind.call(self._writer.write_table, groups, row_group_size=group_rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Complete the file; after an exception only close it."""
        try:
            self._behind.wait()
            if kind is None and self._pending.num_rows:
                self._writer.write_table(self._pending, row_group_size=self._max_rows)
        finally:
            self._writer.close()


def _of_fixed_width(schema: pa.Schema) -> list[str]:
    """The columns that have statistics: of texts they would take several times the memory of the longest one."""
    return [field.name for field in schema if pa.types.is_primitive(field.type) or pa.types.is_decimal(field.type)]


class NumberedWriter(RowGroupWriter):
    """Writes one of our own Parquet files, a `NumberedTable` from then on."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        super().__init__(path, schema, NUMBERED_ROWS, NUMBERED_BYTES, compression="zstd", write_page_checksum=True)
        self._schema = schema

    def write(self, table: pa.Table) -> None:
        """Append rows, cast to the file's schema."""
        super().write(table.cast(self._schema))

    def add_metadata(self, metadata: Mapping[str, str]) -> None:
        """Add to the metadata of the file."""
        self._behind.wait()
        self._writer.add_key_value_metadata(dict(metadata))


class NumberedTable:
    """One of our own Parquet files, read by row number."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True)
        self.rows = self._file.metadata.num_rows
        self.groups = self._file.metadata.num_row_groups
        self.schema = self._file.schema_arrow
        ready_for(self.schema)
        self.metadata: Mapping[bytes, bytes] = self._file.metadata.metadata or {}

    @cached_property
    def _starts(self) -> Numbers:
        """The number of each row group's first row, then the number of rows."""
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self.groups)]
        return np.cumsum([0, *sizes], dtype=np.int64)

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows from `start` up to `stop`."""
        first, last = np.searchsorted(self._starts, [start, stop - 1], side="right") - 1
        table = self._file.read_row_groups(range(first, last + 1), columns=columns, use_threads=False)
        return table.slice(start - self._starts[first], stop - start)

    def rows_at(self, numbers: Sequence[int], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
        """The values of single rows by their numbers; each row group is read once."""
        if not columns:
            return {number: {} for number in numbers}
        groups = np.searchsorted(self._starts, numbers, side="right") - 1
        found: dict[int, dict[str, Any]] = {}
        for group in np.unique(groups).tolist():
            inside = [number for number, at in zip(numbers, groups, strict=True) if at == group]
            rows = self.read_group(group, columns).take(pa.array([n - self._starts[group] for n in inside]))
            found.update(zip(inside, rows.to_pylist(), strict=True))
        return found

    def rows_of(self, group: int) -> int:
        """How many rows a row group has."""
        return int(self._file.metadata.row_group(group).num_rows)

    def read_group(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        """One row group."""
        return self._file.read_row_group(group, columns=columns, use_threads=False)

    def spans(self, column: str) -> list[tuple[int, int]]:
        """The lowest and the highest value of a column in each row group, from the statistics of the file."""
        index = self._file.schema_arrow.names.index(column)  # a flat column before any nested one
        statistics = [self._file.metadata.row_group(group).column(index).statistics for group in range(self.groups)]
        return [(int(found.min), int(found.max)) for found in statistics]

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows of these columns in order, each row group once."""
        for group in range(self.groups):
            yield from self.read_group(group, columns).select(columns).to_batches()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_verified(paths: Sequence[Path], columns: Sequence[str]) -> pa.RecordBatchReader:
    """These columns of our own files, one after the other, for DuckDB, which would not look at their checksums."""
    with NumberedTable(paths[0]) as first:
        schema = pa.schema([first.schema.field(name) for name in columns])

    def batches() -> Iterator[pa.RecordBatch]:
        for path in paths:
            with NumberedTable(path) as table:
                yield from table.batches(columns)

    return pa.RecordBatchReader.from_batches(schema, batches())
