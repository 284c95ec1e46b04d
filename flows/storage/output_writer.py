"""Writing an output, a pure function of input, plan and results: each row of the input with its request's result.

The input is streamed in windows, so memory is bounded by a window and a few row groups, never by the dataset.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa

from flows.domain.ledger import Ledger
from flows.storage.files import replacing
from flows.storage.joining import added_columns, distinct
from flows.storage.lookup import ResultLookup
from flows.storage.output import OutputFile, OutputLayout, OutputSummary
from flows.storage.results import ResultsStore
from flows.storage.tables import NumberedTable, RowGroupWriter

COMPARED_ROWS = 1_000_000  # rows of the plan in memory at once for a fingerprint
ROW_GROUP_BYTES = 32 * 1024 * 1024  # in memory; a row group is full at this or at the layout's rows


class OutputWriter:
    """Writes files of an output from the plan's rows and the results that the ledger lists."""

    def __init__(self, rows_file: Path, results: ResultsStore, ledger: Ledger, layout: OutputLayout) -> None:
        self._rows = NumberedTable(rows_file)
        self._lookup = ResultLookup(results, ledger, layout.schema)
        self._layout = layout

    def fingerprint(self, file: OutputFile) -> str:
        """A fingerprint of everything that determines the file; if it is unchanged, the file need not be rewritten."""
        digest = blake2b(digest_size=16)
        for value in (file.source.identity, *self._layout.values()):
            digest.update(f"{value}\0".encode())
        for start in range(file.start, file.stop, COMPARED_ROWS):
            asked = self._rows.read(start, min(start + COMPARED_ROWS, file.stop))
            request = asked.column("request").fill_null(-1).to_numpy()
            digest.update(request.tobytes())
            digest.update(asked.column("first").to_numpy().astype(np.bool_).tobytes())
            for name in ("skipped", "unsendable"):
                column = asked.column(name)
                if column.null_count < len(column):
                    digest.update(orjson.dumps(column.to_pylist()))
            digest.update(self._lookup.fingerprint(distinct(request)))
        return digest.hexdigest()

    def write(
        self, file: OutputFile, path: Path, before_replacing: Callable[[Path], None] = lambda _: None
    ) -> OutputSummary:
        """Write a file in one step. `before_replacing` is called with the complete file under its temporary name."""
        with replacing(path, mode=_mode_of(path if path.exists() else file.source.path)) as temporary:
            summary = self._write(file, temporary)
            before_replacing(temporary)
        return summary

    def _write(self, file: OutputFile, path: Path) -> OutputSummary:
        layout, start, summary = self._layout, file.start, OutputSummary()
        schema = layout.arrow_schema(file.source.schema)
        with RowGroupWriter(
            path, schema, layout.row_group_rows, ROW_GROUP_BYTES, compression=layout.compression
        ) as writer:
            for window in file.source.windows(limit=file.stop - file.start):
                for rows, asked in self._pieces(window, start):
                    added, held = added_columns(asked, self._lookup, layout.model)
                    summary.add(held)
                    writer.write(pa.Table.from_arrays([*rows.columns, *added], schema=schema))
                start += window.num_rows
        return summary

    def _pieces(self, window: pa.RecordBatch, start: int) -> Iterator[tuple[pa.RecordBatch, pa.Table]]:
        """Rows of the input with what the plan says of them, as many at once as their answers allow."""
        asked = self._rows.read(start, start + window.num_rows)
        size = self._lookup.rows_at_once(distinct(asked.column("request").fill_null(-1).to_numpy()))
        for at in range(0, window.num_rows, size):
            yield window.slice(at, size), asked.slice(at, size)

    def __enter__(self) -> OutputWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()


def _mode_of(path: Path) -> int:
    """Who may read and write a file."""
    return stat.S_IMODE(path.stat().st_mode) & 0o777
