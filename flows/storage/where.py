"""The condition of `--where`: SQL of the user, evaluated by DuckDB over the input and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import numpy as np

from blocks.errors import UsageError
from flows.storage.source import Source, SourceFile
from flows.storage.sql import escape_path, quote_name, quote_text
from flows.storage.tables import Numbers

NOT_SELECTED = "not selected by --where"
CHECK_SECONDS = 20.0  # for a look at a condition; no row is read
SECONDS = 600.0  # for all rows: minutes are enough for a hundred million of them


def selected_rows(source: Source, where: str) -> Numbers:
    """The numbers of the rows for which the condition holds, ascending. Raises UsageError for an invalid condition."""
    found, offset = [np.zeros(0, dtype=np.int64)], 0
    with _reading_only(source) as db, _deadline(db, SECONDS):
        for file in source.files:
            found.append(_query(db, file, where) + offset)
            offset += file.rows
    return np.concatenate(found)


def check_condition(source: Source, where: str) -> None:
    """Raises UsageError for an invalid condition on the columns of the input; reads no row."""
    with _reading_only(source) as db, _deadline(db, CHECK_SECONDS):
        _query(db, source.files[0], where, limit=0)


@contextmanager
def _deadline(db: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """A condition that has no end is given up. Raises UsageError."""
    timer = threading.Timer(seconds, db.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    except UsageError as error:
        if not isinstance(error.__cause__, duckdb.InterruptException):
            raise
        raise UsageError(
            f"the --where condition was not evaluated within {seconds:g} seconds",
            next_step="write a simpler one, without a sub-query that counts or repeats",
        ) from error
    finally:
        timer.cancel()


def _reading_only(source: Source) -> duckdb.DuckDBPyConnection:
    """A connection that can read the files of the input, no other file and no network."""
    db = duckdb.connect(config={"memory_limit": "256MB"})
    paths = [text for file in source.files for text in (str(file.path), escape_path(file.path))]
    db.execute(f"SET allowed_paths = [{', '.join(map(quote_text, paths))}]")
    db.execute("SET enable_external_access = false")
    return db


def _query(db: duckdb.DuckDBPyConnection, file: SourceFile, where: str, *, limit: int | None = None) -> Numbers:
    """Row numbers within one file. Partition values can be used like columns."""
    values = "".join(
        f", {'NULL' if value is None else quote_text(value)} AS {quote_name(key)}"
        for key, value in file.partition.items()
    )
    try:
        rows = db.from_parquet(escape_path(file.path), file_row_number=True, hive_partitioning=False)
        chosen = rows.select(f"*{values}").filter(where)  # parsed as one expression: it can't end the statement
        numbers = chosen.select("file_row_number").order("file_row_number")
        found = (numbers if limit is None else numbers.limit(limit)).to_arrow_table()
    except duckdb.Error as error:
        raise UsageError(
            f"invalid --where condition: {str(error).splitlines()[0]}",
            next_step="write what follows WHERE in SQL, for example --where \"language = 'de'\"",
        ) from error
    selected: Numbers = found.column(0).to_numpy()
    return selected
