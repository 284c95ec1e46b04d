"""What the benchmark is told: where it works, how large and how often, and whom it tells how far it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tests.bench.rows import write_rows


@dataclass(frozen=True)
class Plan:
    """The same for all sections."""

    place: Path
    cache: Path
    sizes: tuple[int, ...]
    runs: int
    quick: bool
    console: Console

    @property
    def job(self) -> Path:
        """The job file."""
        return self.place / "job.yaml"

    @property
    def batch_size(self) -> int:
        """Rows in a batch."""
        return 500 if self.quick else 10_000

    def source(self, rows: int) -> Path:
        """A file of so many rows, written once."""
        path = self.place / f"{rows}.parquet"
        if not path.exists():
            write_rows(path, rows)
        return path

    def say(self, what: str) -> None:
        """A line on standard error."""
        self.console.print(f"{time.strftime('%H:%M:%S')}  {what}", highlight=False)
