"""How long to wait for a batch, and how large the next one should be, from what the last ones took."""

from __future__ import annotations

from flows.domain.ledger import Ledger

# HolySheep's tutorial: at least 600 s, else twice half a second a request.
SHORTEST_DEADLINE = 600.0
SECONDS_A_REQUEST = 0.5

AUTO_START, AUTO_LEAST = 1_000, 10
AUTO_TARGET = 300.0  # seconds that a batch should take at the provider
GROW_BELOW, GROW, SHRINK_ABOVE, SHRINK = 0.7, 1.5, 1.5, 0.7  # the tutorial's rule


def deadline(requests: int, patience: float | None) -> float:
    """Seconds that a batch is waited for before the run lets go of it: the provider's, else by its size."""
    return max(SHORTEST_DEADLINE, 2 * SECONDS_A_REQUEST * requests) if patience is None else patience


def auto_batch_size(ledger: Ledger, most: int) -> int:
    """The size of the next batch: larger after quick ones, smaller after slow ones."""
    size = float(min(AUTO_START, most))
    for _, batch in sorted(ledger.batches.items()):
        if batch.result is None or batch.failed is not None:
            continue
        share = (batch.ended_at - batch.submitted_at) / AUTO_TARGET
        if share < GROW_BELOW:
            size *= GROW
        elif share > SHRINK_ABOVE:
            size *= SHRINK
        size = min(max(size, AUTO_LEAST), most)
    return int(size)
