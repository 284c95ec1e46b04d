"""How much a run logs, and that nobody who stops listening can end it."""

from __future__ import annotations

import logging
from io import StringIO
from typing import TextIO

from rich.console import Console


def log_progress() -> None:
    """Log at level INFO; Prefect's handlers pass the lines on to the flow run."""
    logging.getLogger("batchwerk").setLevel(logging.INFO)
    logging.getLogger("stamina").setLevel(logging.ERROR)  # our own warnings say the same
    Console.on_broken_pipe = _write_nowhere  # type: ignore[method-assign, assignment]


class _Nowhere(StringIO):
    def write(self, text: str) -> int:
        return len(text)


def _write_nowhere(console: Console) -> None:
    """Rich would end the thread that logs: a lane or the loop, because the worker that read its lines was killed."""
    nowhere: TextIO = _Nowhere()
    console.file = nowhere
