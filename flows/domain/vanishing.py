"""When a batch that its provider does not find counts as gone: after several looks over hours, never after one.

A 404 comes from gateways, from restarts, and for batches and results that were made a moment ago.
"""

from __future__ import annotations

from flows.domain.batches import Batch

FRESH = 300.0  # seconds during which a provider may not yet find what it has just made, or just lost sight of
PAUSE = 1_800.0  # seconds between two looks after that
LOOKS, SPAN = 6, 3 * 3600.0  # how many looks over how many seconds prove that it is gone
LOOKS_AT_LEAST = 2  # if the user said that what is not known may be sent again


def is_fresh(batch: Batch, now: float) -> bool:
    """Whether the batch, or its results, may not be there to be found yet."""
    return now - (batch.ended_at or batch.submitted_at) < FRESH


def is_gone(batch: Batch, now: float, *, risking: bool) -> bool:
    """Whether a batch that was looked for in vain counts as gone. `risking`: its requests may be paid for twice."""
    looks, span = (LOOKS_AT_LEAST, FRESH) if risking else (LOOKS, SPAN)
    return batch.looks >= looks and now - batch.unfound_since >= span


def is_waited_for(batch: Batch, now: float) -> bool:
    """Whether a run waits for the batch to be found; later it goes on without it, and looks while it works."""
    return not batch.looks or now - batch.unfound_since < FRESH


def next_look(batch: Batch, now: float) -> float:
    """When to look again, at the earliest; 0 is at the batch's usual pace."""
    return 0.0 if is_waited_for(batch, now) else now + PAUSE
