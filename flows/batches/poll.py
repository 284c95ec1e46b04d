"""Polling a batch, and recording its end."""

from __future__ import annotations

import logging
import time

from blocks.batch import BatchPhase, BatchProvider, BatchStatus, Obstacle
from blocks.errors import BatchRefused, NotFound
from flows.batches.missing import give_up, note_found, note_unfound
from flows.domain.agenda import Visit
from flows.domain.batches import Batch
from flows.domain.events import Ended, Refused
from flows.domain.refusals import REFUSALS, may_be_for_good, refused_as_whole
from flows.engine.recorder import now
from flows.engine.run import Session

log = logging.getLogger("batchwerk")


def poll_batch(session: Session, number: int) -> None:
    """Ask for the status of a batch; records its end once its copies have ended too."""
    with session.visiting(number) as visit:
        follow(session, session.recorder.batch(number), visit)


def follow(session: Session, batch: Batch, visit: Visit) -> None:
    """As `poll_batch`, raising the provider's errors."""
    assert batch.id is not None  # noqa: S101  # only submitted batches are polled
    client = session.clients.client_of(batch)
    try:
        status = client.poll(batch.id)
    except NotFound as error:
        note_unfound(session, batch, error, visit)
        return
    note_found(session, batch)
    copies = [phase for copy in batch.copies if (phase := _phase_of(client, copy)) is not None]
    if BatchPhase.RUNNING in {status.phase, *copies}:
        if session.abandon_after is not None and time.time() - batch.submitted_at >= session.abandon_after:
            give_up(session, batch, client, status.wording)
        return
    if status.phase is BatchPhase.FAILED and BatchPhase.ENDED not in copies:
        _record_failure(session, batch, status)
        return
    failed = status.error or status.wording if status.phase is BatchPhase.FAILED else None
    end = Ended(at=now(), batch=batch.number, wording=status.wording, failed=failed, early=status.early)
    session.recorder.record(end)


def _phase_of(client: BatchProvider, copy: str) -> BatchPhase | None:
    """The phase of an accidental copy; None if it is not found, which says nothing of the batch itself."""
    try:
        return client.poll(copy).phase
    except NotFound:
        return None


def _record_failure(session: Session, batch: Batch, status: BatchStatus) -> None:
    """Record a batch of which nothing ran: some providers accept a batch first and refuse it later."""
    reason = status.error or status.wording
    match status.obstacle:
        case Obstacle.TOO_LARGE:
            refuse_too_large(session, batch, reason)
        case Obstacle.QUEUE_FULL:
            session.recorder.record(Refused(at=now(), batch=batch.number, reason=reason, queue_full=True))
            log.warning("batch %d will be sent again after another batch ends: %s", batch.number, reason)
        case None if session.recorder.query(lambda ledger: may_be_for_good(ledger, batch, session.recorder.began)):
            session.recorder.record(Refused(at=now(), batch=batch.number, reason=reason, as_whole=True))
            _stop_if_refused_again(session, batch, reason)
        case _:
            session.recorder.record(Ended(at=now(), batch=batch.number, wording=status.wording, failed=reason))


def _stop_if_refused_again(session: Session, batch: Batch, reason: str) -> None:
    """A wrong model, or one that the account may not use, is told once. Raises BatchRefused for the second batch."""
    refused = session.recorder.query(lambda ledger: refused_as_whole(ledger, batch, session.recorder.began))
    provider = session.clients.client_of(batch).name
    if refused < REFUSALS:
        log.warning("batch %d was refused as a whole by %s, and is sent once more: %s", batch.number, provider, reason)
        return
    raise BatchRefused(
        f"{provider} refuses all batches as a whole: {reason}",
        next_step="correct the model, the job or the options, then run the command again: nothing of these was run",
        provider=provider,
    )


def refuse_too_large(session: Session, batch: Batch, reason: str) -> None:
    """Send its requests again in halves; a single request that is too large is never sent again."""
    if batch.requests == 1:
        session.recorder.record(Ended(at=now(), batch=batch.number, wording="too large", failed=reason, final=True))
        log.warning("batch %d: a single request is too large: %s", batch.number, reason)
        return
    session.recorder.record(Refused(at=now(), batch=batch.number, reason=reason, too_large=True))
    log.warning("batch %d is too large and will be sent again in halves: %s", batch.number, reason)
