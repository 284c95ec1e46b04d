"""The input: a Parquet file or a folder of them, checked before anything else, read in windows that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.errors import UsageError
from flows.storage.pandas_types import ready_for
from flows.storage.roots import check_name
from flows.storage.tables import ahead
from flows.storage.windows import check_pages, windows_of

_FOOTER_BYTES = 64 * 1024
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"  # how Hive writes null
_TABLE_FORMATS = {"_delta_log/*": "Delta", ".hoodie/*": "Hudi", "metadata/*.metadata.json": "Iceberg"}  # by their logs


@dataclass(frozen=True)
class SourceFile:
    """A Parquet file as it was when it was opened."""

    path: Path
    name: str  # within the input, with forward slashes
    schema: pa.Schema
    rows: int
    identity: str  # size, modification time and footer hash: changes when the file does
    partition: Mapping[str, str | None]  # values in the names of its folders, `key=value`

    @classmethod
    def open(cls, path: Path, name: str) -> SourceFile:
        """Read a file's footer. Raises UsageError for anything that is not a readable Parquet file."""
        if not path.is_file():  # a named pipe would be waited for
            raise UsageError(f"{path} is not a regular file", next_step="give a .parquet file")
        check_name(path)
        try:
            with pq.ParquetFile(path) as file:
                metadata = file.metadata
                schema = file.schema_arrow
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise UsageError(
                f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}",
                next_step="give a .parquet file, for example one that pandas.DataFrame.to_parquet wrote",
            ) from error
        ready_for(schema)
        _check_names(path, schema.names)
        check_pages(path, metadata)
        partition = {key: value for key, value in _partition(name).items() if key not in schema.names}
        return cls(path, name, schema, metadata.num_rows, identity_of(path), partition)

    def windows(self, columns: Sequence[str] | None = None, limit: int | None = None) -> Iterator[pa.Table]:
        """The rows in order, a window at a time; none for no rows. `columns` may include partition keys."""
        left = self.rows if limit is None else min(limit, self.rows)
        own = None if columns is None else [name for name in columns if name not in self.partition]
        with pq.ParquetFile(self.path, pre_buffer=False) as file:
            for window in ahead(windows_of(self.path, file, own)):
                if left <= 0:
                    return
                table = window.slice(0, left)
                left -= table.num_rows
                yield table if columns is None else self._with_partition(table, columns)

    def _with_partition(self, table: pa.Table, columns: Sequence[str]) -> pa.Table:
        for name in columns:
            if name in self.partition:
                value = pa.scalar(self.partition[name], pa.string())
                table = table.append_column(name, pa.repeat(value, table.num_rows))
        return table


@dataclass(frozen=True)
class Source:
    """A file, or the files of a folder in the order of their names; rows are numbered over all of them."""

    path: Path
    files: tuple[SourceFile, ...]
    is_folder: bool

    @classmethod
    def open(cls, path: Path) -> Source:
        """Open the input. Raises UsageError if it is missing, empty, or not Parquet."""
        if not path.exists():
            raise UsageError(f"the input {path} does not exist", next_step="check the path; it is the first argument")
        if not path.is_dir():
            return cls(path, (SourceFile.open(path, path.name),), is_folder=False)
        _check_no_table_format(path)
        names = parquet_files(path)
        if not names:
            raise UsageError(f"the folder {path} contains no .parquet file", next_step="check the path")
        return cls(path, tuple(SourceFile.open(path / name, name) for name in names), is_folder=True)

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)

    @cached_property
    def identity(self) -> str:
        """Changes when a file changes, is added or removed."""
        if not self.is_folder:
            return self.files[0].identity
        return _digest(f"{file.name}\0{file.identity}" for file in self.files)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns and partition keys that every file has, and that a prompt may use."""
        first = self.files[0]
        names = [*first.schema.names, *first.partition]
        return pa.schema([(name, self._type_of(name)) for name in names if self._everywhere(name)])

    def _everywhere(self, name: str) -> bool:
        return all(name in file.partition or name in file.schema.names for file in self.files)

    def _type_of(self, name: str) -> pa.DataType:
        """The common type of a column in all files; null if there is none."""
        types = [pa.string() if name in file.partition else file.schema.field(name).type for file in self.files]
        try:
            fields = [pa.schema([("x", kind)]) for kind in dict.fromkeys(types)]
            return pa.unify_schemas(fields, promote_options="permissive").field(0).type
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return pa.null()

    def check_columns(self, names: Sequence[str]) -> None:
        """Raises UsageError for a column whose types in the files have nothing in common."""
        for name in names:
            kinds = {file.schema.field(name).type: file.name for file in self.files if name in file.schema.names}
            if len(kinds) > 1 and pa.types.is_null(self.schema.field(name).type):
                (one, first), *_, (other, last) = kinds.items()
                raise UsageError(
                    f"the column {name!r} is {one} in {first} and {other} in {last}",
                    next_step="use one type in all files, or leave the column out of the prompt",
                )

    def windows(self, columns: Sequence[str], limit: int | None = None) -> Iterator[pa.Table]:
        """The rows of these columns in order, a window at a time; none for no rows."""
        left = self.rows if limit is None else limit
        for file in self.files:
            if left > 0:
                yield from file.windows(columns, left)
            left -= file.rows

    def check_unchanged(self) -> bool:
        """Whether the input is unchanged since it was opened."""
        if not self.path.exists() or self.path.is_dir() != self.is_folder:
            return False
        if self.is_folder and parquet_files(self.path) != [file.name for file in self.files]:
            return False
        return all(file.path.exists() and identity_of(file.path) == file.identity for file in self.files)


def parquet_files(folder: Path) -> list[str]:
    """The names of a folder's Parquet files at any depth, ascending, without hidden ones (`_` or `.`).

    Links to folders are followed. Raises UsageError for a link to a folder that contains it.
    """
    return sorted(path.relative_to(folder).as_posix() for path in _walk(folder, frozenset()))


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """`above`: device and inode of each folder on the way here."""
    found = folder.stat()
    identity = found.st_dev, found.st_ino
    if identity in above:
        raise UsageError(
            f"the input folder contains a link that leads back to a folder above it: {folder}",
            next_step="remove the link, or give the folder that holds the files",
        )
    for path in folder.iterdir():
        if path.name.startswith(("_", ".")):
            continue
        if path.is_dir():
            yield from _walk(path, above | {identity})
        elif path.name.endswith(".parquet"):
            yield path


def identity_of(path: Path) -> str:
    """Size, modification time, and a hash of the end of the file, which holds the Parquet footer."""
    stat = path.stat()
    if not path.is_file():
        return "no file"
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
            f"a column that the job uses contains a value that can't be read: {error}",
            next_step="fix the value in the input, or leave the column out of the prompt",
        ) from error
    return values


def _digest(texts: Iterator[str]) -> str:
    return blake2b("\n".join(texts).encode(), digest_size=16).hexdigest()


def _partition(name: str) -> dict[str, str | None]:
    """The `key=value` folders of a name, as Hive writes them."""
    pairs = (folder.partition("=") for folder in PurePosixPath(name).parts[:-1] if "=" in folder)
    return {unquote(key): None if value == _NO_PARTITION else unquote(value) for key, _, value in pairs}


def _check_no_table_format(path: Path) -> None:
    """The folder of a table format may hold files that no longer belong to the table."""
    for log, name in _TABLE_FORMATS.items():
        if any(path.glob(log)):
            raise UsageError(
                f"{path} is a {name} table: some of its files may no longer belong to it",
                next_step="export the rows to plain Parquet files",
            )


def _check_names(path: Path, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"the input {path} has two columns named {name!r}", next_step="rename one of them")
