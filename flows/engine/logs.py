"""How much a run logs, and that what it logs is safe to print."""

from __future__ import annotations

import logging

from blocks.printable import printable

LONGEST_LINE = 2_000  # characters


def log_progress() -> None:
    """Log at level INFO; Prefect's handlers pass the lines on to the flow run."""
    logging.getLogger("batchwerk").setLevel(logging.INFO)
    logging.getLogger("stamina").setLevel(logging.ERROR)  # our own warnings say the same
    for name in ["batchwerk", *logging.root.manager.loggerDict]:
        if name.partition(".")[0] == "batchwerk":  # a filter sees the records of its own logger only
            logging.getLogger(name).addFilter(_one_line)  # adding it again changes nothing


def _one_line(record: logging.LogRecord) -> bool:
    """Every line may quote a provider or a file name."""
    record.msg, record.args = printable(record.getMessage(), LONGEST_LINE), ()
    return True
