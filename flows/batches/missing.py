"""Batches that the provider does not find: looked for again, for hours, before they count as gone."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from blocks.batch import BatchProvider
from blocks.errors import NotFound, ProviderError
from flows.domain import vanishing
from flows.domain.agenda import Visit
from flows.domain.batches import Batch
from flows.domain.events import Gone, Seen, Unfound
from flows.engine.recorder import now
from flows.engine.run import Session

log = logging.getLogger("batchwerk")


def note_unfound(session: Session, batch: Batch, error: NotFound, visit: Visit) -> None:
    """Record a look in vain, and after the last one that the batch is gone: that one alone, and not for ever."""
    if vanishing.is_fresh(batch, time.time()):
        return
    session.recorder.record(Unfound(at=now(), batch=batch.number, reason=error.message))
    clock = time.time()
    if vanishing.is_gone(batch, clock, risking=session.risks_paying_twice):
        write_off(session, batch, f"{error.message}, at {batch.looks} looks since {_time_of(batch.unfound_since)}")
        return
    visit.look_again_at = vanishing.next_look(batch, clock)
    if not vanishing.is_waited_for(batch, clock):
        visit.unresolved = (
            f"batch {batch.number} is not found ({error.message}): it counts as gone after {vanishing.LOOKS} looks "
            f"over {vanishing.SPAN / 3600:.0f} hours, counted from {_time_of(batch.unfound_since)}, and the next run "
            f"looks again; with --on-unknown resubmit that sends its {batch.requests:,} requests again, at the risk "
            "of paying twice"
        )


def note_found(session: Session, batch: Batch) -> None:
    """Record that the provider knows the batch after all."""
    if batch.looks:
        session.recorder.record(Seen(at=now(), batch=batch.number))


def write_off(session: Session, batch: Batch, reason: str) -> None:
    """Stop waiting for a batch whose answers may have been paid for; what it cost stays unknown."""
    message = f"{reason}; --retry-failed requests it again, unless its answer can be read by then"
    session.recorder.record(Gone(at=now(), batch=batch.number, reason=message))
    log.warning("batch %d is not waited for any more: %s", batch.number, message)


def give_up(session: Session, batch: Batch, client: BatchProvider, wording: str) -> None:
    """Stop waiting for a batch that does not end, at a word of the user; it is asked to stop before that."""
    for named in [batch.id, *batch.copies]:
        try:
            client.cancel(named or "")
        except ProviderError as error:
            log.warning("batch %d can't be cancelled: %s", batch.number, error.message)
    hours = (time.time() - batch.submitted_at) / 3600
    write_off(session, batch, f"given up {hours:.1f} hours after it was sent: the provider called it {wording!r}")


def _time_of(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
