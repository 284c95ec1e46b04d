"""The input: one Parquet file, checked before anything else, read in windows that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.errors import UsageError

WINDOW_BYTES = 8 * 1024 * 1024  # uncompressed; what one window of rows may take in memory
WINDOW_ROWS = 8_192
_FOOTER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Source:
    """A Parquet file with the identity that it had when it was first looked at."""

    path: Path
    schema: pa.Schema
    rows: int
    identity: str  # size, modification time and footer hash: changes when the file does
    bytes_a_row: dict[str, float]  # uncompressed, by top-level column

    @classmethod
    def open(cls, path: Path) -> Source:
        """Look at a file. Raises UsageError with what to do for anything that is not a readable Parquet file."""
        _check_place(path)
        try:
            with pq.ParquetFile(path) as file:
                metadata = file.metadata
                schema = file.schema_arrow
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise UsageError(
                f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}",
                next_step="give a .parquet file, for example one that pandas.DataFrame.to_parquet wrote",
            ) from error
        _check_names(path, schema.names)
        return cls(path, schema, metadata.num_rows, identity_of(path), _bytes_a_row(metadata, schema.names))

    def window_rows(self, columns: Sequence[str] | None = None) -> int:
        """How many rows of these columns fit into a window."""
        names = self.schema.names if columns is None else columns
        width = sum(self.bytes_a_row.get(name, 0.0) for name in names)
        return max(1, min(WINDOW_ROWS, int(WINDOW_BYTES / max(width, 1.0))))

    def windows(self, columns: Sequence[str] | None, limit: int | None = None) -> Iterator[pa.Table]:
        """The rows in order, a window at a time; none for no rows."""
        left = self.rows if limit is None else min(limit, self.rows)
        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            batches = file.iter_batches(self.window_rows(columns), columns=columns, use_threads=False)
            for batch in batches:
                if left <= 0:
                    return
                table = pa.Table.from_batches([batch[:left]])
                left -= table.num_rows
                yield table

    def check_unchanged(self) -> bool:
        """Whether the file is still the one that was looked at."""
        return self.path.exists() and identity_of(self.path) == self.identity


def identity_of(path: Path) -> str:
    """Size, modification time and a hash of the end of the file, where Parquet keeps its footer."""
    stat = path.stat()
    with path.open("rb") as file:
        file.seek(max(0, stat.st_size - _FOOTER_BYTES))
        footer = blake2b(file.read(), digest_size=8).hexdigest()
    return f"{stat.st_size}-{stat.st_mtime_ns}-{footer}"


def column_values(column: pa.ChunkedArray) -> list[Any]:
    """A column as Python values."""
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError) as error:  # text that is no UTF-8, a date after the year 9999
        raise UsageError(
            f"a column that the job uses holds a value that can't be read: {error}",
            next_step="mend the value in the input, or leave the column out of the prompt",
        ) from error
    return values


def _check_place(path: Path) -> None:
    if not path.exists():
        raise UsageError(f"the input {path} does not exist", next_step="check the path; it is the first argument")
    if path.is_dir():
        raise UsageError(f"the input {path} is a folder", next_step="give one Parquet file inside it")


def _check_names(path: Path, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"the input {path} has two columns called {name!r}", next_step="rename one of them")


def _bytes_a_row(metadata: pq.FileMetaData, names: Sequence[str]) -> dict[str, float]:
    """Mean uncompressed bytes a row, by top-level column."""
    sizes: dict[str, float] = {}
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            path = column.path_in_schema
            name = path if path in names else _top_level(path, names)
            sizes[name] = sizes.get(name, 0.0) + column.total_uncompressed_size
    return {name: size / max(1, metadata.num_rows) for name, size in sizes.items()}


def _top_level(path: str, names: Sequence[str]) -> str:
    """The column that a nested value is part of; a name may have dots of its own."""
    return max((name for name in names if path.startswith(f"{name}.")), key=len, default=path)
