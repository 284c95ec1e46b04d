"""How much a run logs, that it is safe to print, and that nobody who stops listening can end the run."""

from __future__ import annotations

import logging
from io import StringIO
from typing import TextIO

from rich.console import Console

from blocks.printable import LONGEST_LINE, printable


def log_progress() -> None:
    """Log at level INFO; Prefect's handlers pass the lines on to the flow run."""
    logging.getLogger("batchwerk").setLevel(logging.INFO)
    logging.getLogger("stamina").setLevel(logging.ERROR)  # our own warnings say the same
    Console.on_broken_pipe = _write_nowhere  # type: ignore[method-assign, assignment]
    for name in ["batchwerk", *logging.root.manager.loggerDict]:
        if name.partition(".")[0] == "batchwerk":  # a filter sees the records of its own logger only
            logging.getLogger(name).addFilter(_one_line)  # adding it again changes nothing


class _Nowhere(StringIO):
    def write(self, text: str) -> int:
        return len(text)


def _write_nowhere(console: Console) -> None:
    """Rich would end the thread that logs: a lane or the loop, because the worker that read its lines was killed."""
    nowhere: TextIO = _Nowhere()
    console.file = nowhere


def _one_line(record: logging.LogRecord) -> bool:
    """Every line may quote a provider or a file name."""
    record.msg, record.args = printable(record.getMessage(), LONGEST_LINE), ()
    return True
