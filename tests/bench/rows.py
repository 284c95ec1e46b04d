"""Generated rows for the benchmarks: distinct short reviews, the same for the same count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CHUNK = 50_000
WORDS = np.array(
    (
        *("good", "bad", "broken", "fine", "great", "slow", "fast", "cheap", "battery", "delivery", "price", "quality"),
        *("taste", "size", "colour", "sound", "screen", "handle", "box", "bottle", "would", "never", "always", "again"),
        *(
            "quite",
            "really",
            "not",
            "very",
            "a",
            "the",
            "it",
            "is",
            "was",
            "and",
            "but",
            "with",
            "after",
            "two",
            "days",
        ),
    )
)

JOB = """\
name: bench
model: gpt-4.1
system: You label product reviews.
prompt: |
  Review: {{ text }}
output:
  sentiment: {type: string, enum: [positive, negative, neutral]}
  topics: {type: array, items: {type: string}}
  stars: {type: integer}
max_output_tokens: 100
"""


def write_rows(path: Path, rows: int) -> None:
    """`rows` distinct reviews of about 200 characters."""
    random = np.random.default_rng(rows)
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            words = WORDS[random.integers(0, len(WORDS), (count, 36))]
            texts = [f"{start + i} {' '.join(line)}." for i, line in enumerate(words)]
            writer.write_table(pa.table({"id": range(start, start + count), "text": texts}, schema=schema))
