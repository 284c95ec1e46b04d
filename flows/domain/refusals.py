"""Batches that a provider accepts and then refuses as a whole: by an accident, or because none of them can run."""

from __future__ import annotations

from datetime import datetime

from flows.domain.batches import Batch, State
from flows.domain.ledger import Ledger

REFUSALS = 2  # without a batch that ran: what is refused once more is refused for good


def may_be_for_good(ledger: Ledger, batch: Batch, began: datetime) -> bool:
    """Whether a batch may have been refused for what all of its kind have in common: none of them ever ran.

    One that an earlier process sent says nothing: meanwhile the user may have mended the account.
    """
    alike = (other for other in ledger.batches.values() if other.spec == batch.spec)
    ran = any(other.state in {State.ENDED, State.COLLECTED} and other.failed is None for other in alike)
    return not ran and batch.intended_at >= began.timestamp()


def refused_as_whole(ledger: Ledger, batch: Batch, began: datetime) -> int:
    """How many batches like this one were refused since then."""
    since = began.timestamp()
    alike = (other for other in ledger.batches.values() if other.spec == batch.spec and other.intended_at >= since)
    return sum(other.as_whole for other in alike)
