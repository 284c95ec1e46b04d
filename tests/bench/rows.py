"""Generated rows for the benchmarks: distinct short reviews, the same ones every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CHUNK = 50_000
VOCABULARY = (
    "good bad broken fine great slow fast cheap battery delivery price quality taste size colour sound screen handle"
    " box bottle would never always again quite really not very a the it is was and but with after two days"
)
WORDS = np.array(VOCABULARY.split())
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])


def write_rows(path: Path, stop: int, start: int = 0) -> None:
    """Distinct reviews of about 200 characters, those numbered from `start` up to `stop`.

    A longer file from the same `start` begins with the same rows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for first in range(start, stop, CHUNK):
            count = min(CHUNK, stop - first)
            words = WORDS[np.random.default_rng(first).integers(0, len(WORDS), (count, 36))]
            texts = [f"{first + i} {' '.join(line)}." for i, line in enumerate(words)]
            writer.write_table(pa.table({"id": range(first, first + count), "text": texts}, schema=SCHEMA))


def count_answered(path: Path) -> tuple[int, int]:
    """How many rows a contestant's output has, and how many of them have an answer."""
    column = pq.read_table(path, columns=["sentiment"]).column(0)
    return len(column), len(column) - column.null_count
