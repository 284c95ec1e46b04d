"""Files that are whole or absent, and Parquet files that are read by row number."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar, cast
from uuid import uuid4

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

T = TypeVar("T")
Numbers = np.ndarray[Any, np.dtype[np.int64]]  # of rows or of requests

# What a row group of our own files has at most: reading by number brings in a whole one.
NUMBERED_ROWS = 16_384
NUMBERED_BYTES = 16 * 1024 * 1024  # in memory


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder that becomes `path` in one step, or leaves no trace."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file."""
    with replacing(path) as temporary:
        temporary.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def write_text(path: Path, text: str) -> None:
    """Replace a text file."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_part(path: Path, table: pa.Table) -> None:
    """Replace one of our own Parquet files."""
    with replacing(path) as temporary:
        pq.write_table(
            table, temporary, compression="zstd", row_group_size=_group_rows(table), write_page_checksum=True
        )


def _group_rows(table: pa.Table) -> int:
    """How many rows of this table a row group has."""
    return min(NUMBERED_ROWS, fitting_rows(table, NUMBERED_BYTES))


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; a thread makes the next one meanwhile, which pays where it is Arrow that makes it."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        upcoming = thread.submit(next, items, end)
        while (item := upcoming.result()) is not end:
            upcoming = thread.submit(next, items, end)
            yield cast("T", item)


class Behind:
    """Calls a function in a thread, one call after another; the caller waits only for the call before."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="behind")
        self._last: Future[Any] | None = None

    def call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Begin a call. Raises what the one before raised."""
        self.wait()
        self._last = self._thread.submit(function, *arguments, **options)

    def wait(self) -> None:
        """Until nothing is under way. Raises what the last call raised."""
        last, self._last = self._last, None
        if last is not None:
            last.result()


def decoded_bytes(table: pa.Table) -> int:
    """What the rows take in memory if each has its own value; of a dictionary, few rows hold as much as many."""
    return sum(_decoded_bytes(chunk) for column in table.columns for chunk in column.chunks)


def fitting_rows(table: pa.Table, most: int) -> int:
    """How many rows like these fit into so many bytes; one at least."""
    fitting: int = table.num_rows * most // max(1, decoded_bytes(table))
    return max(1, fitting)


def _decoded_bytes(values: pa.Array) -> int:
    if not pa.types.is_dictionary(values.type):
        return int(values.nbytes)
    return int(values.indices.nbytes + values.dictionary.nbytes * len(values) // max(1, len(values.dictionary)))


class NumberedTable:
    """One of our Parquet files, read by row number."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True)
        self.rows = self._file.metadata.num_rows
        self.groups = self._file.metadata.num_row_groups
        self.metadata: Mapping[bytes, bytes] = self._file.metadata.metadata or {}

    @cached_property
    def _starts(self) -> Numbers:
        """The number of each row group's first row, and how many rows there are."""
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self.groups)]
        return np.cumsum([0, *sizes], dtype=np.int64)

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows from `start` up to `stop`."""
        first, last = np.searchsorted(self._starts, [start, stop - 1], side="right") - 1
        table = self._file.read_row_groups(range(first, last + 1), columns=columns, use_threads=False)
        return table.slice(start - self._starts[first], stop - start)

    def read_group(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        """One row group."""
        return self._file.read_row_group(group, columns=columns, use_threads=False)

    def spans(self, column: str) -> list[tuple[int, int]]:
        """The lowest and highest value of a column in each row group, from the file's statistics."""
        index = self._file.schema_arrow.names.index(column)  # a flat column before any nested one
        statistics = [self._file.metadata.row_group(group).column(index).statistics for group in range(self.groups)]
        return [(int(found.min), int(found.max)) for found in statistics]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class NumberedWriter:
    """Writes rows of any batch size as a `NumberedTable`."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)
        self._behind = Behind()
        self._schema = schema
        self._pending = schema.empty_table()

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        self._pending = pa.concat_tables([self._pending, table.cast(self._schema)])
        group_rows = _group_rows(self._pending)
        full = self._pending.num_rows - self._pending.num_rows % group_rows
        if full:
            whole, self._pending = self._pending.slice(0, full), self._pending.slice(full)
            self._behind.call(self._writer.write_table, whole, row_group_size=group_rows)

    def close(self, metadata: Mapping[str, str]) -> None:
        """Write what is left, and the file's metadata."""
        self._behind.wait()
        if self._pending.num_rows:
            self._writer.write_table(self._pending, row_group_size=NUMBERED_ROWS)
        self._writer.add_key_value_metadata(dict(metadata))
        self._writer.close()
