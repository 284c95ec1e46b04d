"""The keys of a plan, in DuckDB: which are new, and which request each row asks for.

Keys, numbers and reasons go through its joins and sorts, never texts. A key is two 64-bit halves, `hi` and `lo`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blocks.errors import StateError
from flows.storage.sql import quote_text
from flows.storage.tables import Numbers, read_verified

NEW_ROWS = 1_000_000  # new keys that are in memory at once, 24 bytes each
Halves = np.ndarray[Any, np.dtype[np.uint64]]

_TABLES = (
    "CREATE TABLE keys (row BIGINT, hi UBIGINT, lo UBIGINT)",  # of rows that ask for a request
    "CREATE TABLE skipped (row BIGINT, reason VARCHAR)",  # rows that don't
    "CREATE TABLE known (hi UBIGINT, lo UBIGINT, request BIGINT)",  # frozen requests
    "CREATE TABLE unsendable (hi UBIGINT, lo UBIGINT, reason VARCHAR)",  # requests that can't be sent
)


class NewKeys(NamedTuple):
    """Keys that no frozen request has, each with the first row that has it; ascending by row."""

    row: Numbers
    hi: Halves
    lo: Halves

    def split(self, row: int) -> tuple[NewKeys, NewKeys]:
        """Those of rows below `row`, and the others."""
        at = int(np.searchsorted(self.row, row))
        return (
            NewKeys(self.row[:at], self.hi[:at], self.lo[:at]),
            NewKeys(self.row[at:], self.hi[at:], self.lo[at:]),
        )


class KeyTables:
    """The tables of one plan. `scratch` is a folder for what does not fit into memory."""

    def __init__(self, db: duckdb.DuckDBPyConnection, scratch: Path) -> None:
        self._db = db
        self._scratch = scratch
        for table in _TABLES:
            db.execute(table)

    def add_rows(self, rows: Numbers, hi: Halves, lo: Halves) -> None:
        """Rows that ask for a request."""
        self._insert("keys", row=rows, hi=hi, lo=lo)

    def add_skipped(self, rows: Numbers, reasons: Sequence[str]) -> None:
        """Rows that ask for nothing."""
        self._insert("skipped", row=rows, reason=reasons)

    def add_unsendable(self, hi: Halves, lo: Halves, reasons: Sequence[str]) -> None:
        """Requests that can't be sent."""
        self._insert("unsendable", hi=hi, lo=lo, reason=reasons)

    def add_frozen(self, generations: Sequence[Path]) -> None:
        """Requests that have a number."""
        if generations:
            self._db.register("frozen", read_verified(generations, ["hi", "lo", "request"]))
            try:
                self._db.execute("INSERT INTO known SELECT hi, lo, request FROM frozen")
            except duckdb.InvalidInputException as error:  # how it passes on what the reader raised
                raise StateError(
                    f"the frozen requests are damaged: {str(error).splitlines()[0]}",
                    next_step="restore the state directory from a backup; nothing was sent",
                ) from error
            self._db.unregister("frozen")

    def new_keys(self) -> Iterator[NewKeys]:
        """The new keys by their first rows, in chunks that fit into memory."""
        path = self._scratch / "new.parquet"
        self._db.execute("CREATE TABLE first AS SELECT hi, lo, min(row) AS row FROM keys GROUP BY hi, lo")
        self._db.execute(
            "COPY (SELECT row, hi, lo FROM first ANTI JOIN known USING (hi, lo) ORDER BY row)"  # noqa: S608  # our own path
            f" TO {quote_text(str(path))} (FORMAT parquet, ROW_GROUP_SIZE 122880)"
        )
        self._db.execute("DROP TABLE first")
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(NEW_ROWS, use_threads=False):
                yield NewKeys(*(column.to_numpy() for column in batch.columns))

    def rows(self) -> pa.RecordBatchReader:
        """What each row asks for: (request, skipped, unsendable), in the order of the rows. Uses up the tables.

        One join and one sort after the other: DuckDB can do that in little memory, but not several joins at once.
        """
        self._db.execute(
            "CREATE TABLE asked AS SELECT keys.row, known.request, unsendable.reason AS unsendable FROM keys"
            " LEFT JOIN known USING (hi, lo) LEFT JOIN unsendable USING (hi, lo)"
        )
        self._db.execute("DROP TABLE keys")
        return self._db.sql(
            "SELECT request, skipped, unsendable FROM ("
            "  SELECT row, request, NULL::VARCHAR AS skipped, unsendable FROM asked"
            "  UNION ALL SELECT row, NULL, reason, NULL FROM skipped"
            ") ORDER BY row"
        ).to_arrow_reader(65_536)

    def _insert(self, table: str, **columns: Any) -> None:
        self._db.register("chunk", pa.table(columns))
        self._db.execute(f"INSERT INTO {table} SELECT * FROM chunk")  # noqa: S608  # our own name
        self._db.unregister("chunk")
