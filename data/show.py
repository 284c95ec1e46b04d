"""Shows a few rows of an enriched Parquet file: `python data/show.py out/reviews.parquet [ROWS]`."""

from __future__ import annotations

import sys

import pandas as pd

from blocks.printable import printable_lines


def main(path: str, rows: str = "8") -> None:
    """Print the first columns that matter: the text, what the job added, and how it went."""
    frame = pd.read_parquet(path)
    added = list(frame.columns[list(frame.columns).index("_status") - 3 :])
    shown = frame[["text", *added[:3], "_status", "_cost_usd"]].head(int(rows))
    sys.stdout.write(printable_lines(shown.to_string(max_colwidth=60, index=False)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
