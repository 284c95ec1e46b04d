"""How much a run logs."""

from __future__ import annotations

import logging


def log_progress() -> None:
    """Log at level INFO; Prefect's handlers pass the lines on to the flow run."""
    logging.getLogger("batchwerk").setLevel(logging.INFO)
    logging.getLogger("stamina").setLevel(logging.ERROR)  # our own warnings say the same
