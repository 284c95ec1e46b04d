"""How a run ended: the exit status, and a message if the output is not complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from blocks.errors import BatchwerkError
from blocks.printable import counted
from flows.storage.output import FAILED, PENDING, OutputSummary


class Exit(IntEnum):
    """Exit statuses of the command."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    ROWS_FAILED = 3
    WAITING = 4
    BUDGET = 5


SAMPLED = "only a sample was to be sent; the same command without --sample sends the rest"
ENDS = {Exit.DONE, Exit.ROWS_FAILED, Exit.BUDGET}  # nothing is still to come of this run


@dataclass(frozen=True)
class Ending:
    """Why work ended early; empty if it did not."""

    reason: str = ""
    unresolved: Mapping[int, str] = field(default_factory=dict)  # batches that may have been accepted, and why
    error: BatchwerkError | None = None
    is_over_budget: bool = False  # what is left could cost more than may be spent
    next_step: str = "run the same command again to continue"


def verdict(published: OutputSummary, ending: Ending, max_failed: float, *, sampled: bool = False) -> tuple[Exit, str]:
    """Exit status and message; `max_failed` is the share of rows that may fail. `sampled`: not all was to be sent."""
    if ending.error is not None:
        return Exit.ERROR, str(ending.error)
    if ending.unresolved:
        return Exit.ERROR, "; ".join(why for _, why in sorted(ending.unresolved.items()))
    if published.statuses[PENDING] and ending.is_over_budget:
        return Exit.BUDGET, ending.reason
    if published.statuses[PENDING] and not (sampled and not ending.reason):
        return Exit.WAITING, f"{ending.reason}; {ending.next_step}"
    failed, rows = published.statuses[FAILED], published.rows - published.statuses[PENDING]
    if failed > max_failed * rows:
        return Exit.ROWS_FAILED, f"{failed:,} of {counted(rows, 'row')} failed; the column _error says why"
    return Exit.DONE, SAMPLED if published.statuses[PENDING] else ""
