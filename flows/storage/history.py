"""The history of an output: a small table beside its state with one row for each run, written in one step."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.errors import StateError
from flows.storage.files import open_plain
from flows.storage.tables import write_table

log = logging.getLogger("batchwerk")

MOST_RUNS = 10_000  # that are kept; older ones leave
USD = pa.decimal128(38, 12)
RUNS_SCHEMA = pa.schema(
    [
        ("at", pa.timestamp("us", "UTC")),  # when it ended
        ("run", pa.string()),
        ("model", pa.string()),
        ("emulated", pa.bool_()),
        ("exit", pa.int32()),
        ("ok", pa.int64()),  # rows of the output, by status
        ("failed", pa.int64()),
        ("skipped", pa.int64()),
        ("pending", pa.int64()),
        ("requests", pa.int64()),  # that it sent
        ("input_tokens", pa.int64()),  # of the answers that it collected
        ("output_tokens", pa.int64()),
        ("cost_usd", USD),  # of the same answers; null: unpriced
        ("estimate_usd", USD),  # before it sent anything
        ("total_cost_usd", USD),  # of all runs
        ("seconds", pa.float64()),
    ]
)


@dataclass(frozen=True)
class History:
    """The newest runs of an output, oldest first, and how many there were before them."""

    runs: list[dict[str, Any]]
    earlier: int = 0


def read_history(path: Path, most: int = MOST_RUNS) -> History:
    """What is known of the runs; empty if the table is missing. Raises StateError if it is damaged."""
    if not path.is_symlink() and not path.exists():
        return History([])
    runs = _read(path)
    newest = runs.slice(max(0, runs.num_rows - most))
    return History(newest.to_pylist(), runs.num_rows - newest.num_rows)


def add_to_history(path: Path, run: Mapping[str, Any], most: int) -> History:
    """Append a run; returns the newest ones. A table that is damaged is said and begun anew: no run fails for it."""
    row = pa.Table.from_pylist([dict(run)], schema=RUNS_SCHEMA)
    runs = row
    if path.is_symlink() or path.exists():
        try:
            runs = pa.concat_tables([_read(path), row])
        except StateError as error:
            log.warning("the history of runs begins anew: %s", error.message)
    runs = runs.slice(max(0, runs.num_rows - MOST_RUNS))
    try:
        write_table(path, runs)
    except OSError as error:
        log.warning("the history of runs can't be written: %s", error)
    newest = runs.slice(max(0, runs.num_rows - most))
    return History(newest.to_pylist(), runs.num_rows - newest.num_rows)


def _read(path: Path) -> pa.Table:
    try:
        with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as file:
            table = pq.ParquetFile(file, page_checksum_verification=True).read(use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise StateError(
            f"{path} can't be read: {error}", next_step="delete it: the next run begins it anew"
        ) from error
    if table.schema != RUNS_SCHEMA:
        raise StateError(f"{path} has other columns", next_step="delete it: the next run begins it anew")
    return table
