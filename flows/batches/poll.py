"""Polling a batch, and recording its end."""

from __future__ import annotations

import logging

from blocks.batch import BatchPhase, BatchProvider, BatchStatus, Obstacle
from blocks.errors import NotFound
from flows.batches.missing import note_found, note_unfound
from flows.domain.batches import Batch
from flows.domain.events import Ended, Refused
from flows.engine.recorder import now
from flows.engine.run import Run

log = logging.getLogger("batchwerk")


def poll_batch(run: Run, number: int) -> None:
    """Ask for the status of a batch; records its end once its copies have ended too."""
    batch = run.recorder.batch(number)
    assert batch.id is not None  # noqa: S101  # only submitted batches are polled
    with run.visiting(number) as visit:
        client = run.clients.client_of(batch)
        try:
            status = client.poll(batch.id)
        except NotFound as error:
            note_unfound(run, batch, error, visit)
            return
        note_found(run, batch)
        copies = [phase for copy in batch.copies if (phase := _phase_of(client, copy)) is not None]
        if BatchPhase.RUNNING in {status.phase, *copies}:
            return
        if status.phase is BatchPhase.FAILED and BatchPhase.ENDED not in copies:
            _record_failure(run, batch, status)
            return
        failed = status.error or status.wording if status.phase is BatchPhase.FAILED else None
        run.recorder.record(Ended(at=now(), batch=number, wording=status.wording, failed=failed, early=status.early))


def _phase_of(client: BatchProvider, copy: str) -> BatchPhase | None:
    """The phase of an accidental copy; None if it is not found, which says nothing of the batch itself."""
    try:
        return client.poll(copy).phase
    except NotFound:
        return None


def _record_failure(run: Run, batch: Batch, status: BatchStatus) -> None:
    """Record a batch of which nothing ran: some providers accept a batch first and refuse it later."""
    reason = status.error or status.wording
    match status.obstacle:
        case Obstacle.TOO_LARGE:
            refuse_too_large(run, batch, reason)
        case Obstacle.QUEUE_FULL:
            run.recorder.record(Refused(at=now(), batch=batch.number, reason=reason, queue_full=True))
            log.warning("batch %d will be sent again after another batch ends: %s", batch.number, reason)
        case None:
            run.recorder.record(Ended(at=now(), batch=batch.number, wording=status.wording, failed=reason))


def refuse_too_large(run: Run, batch: Batch, reason: str) -> None:
    """Send its requests again in halves; a single request that is too large is never sent again."""
    if batch.requests == 1:
        run.recorder.record(Ended(at=now(), batch=batch.number, wording="too large", failed=reason, final=True))
        log.warning("batch %d: a single request is too large: %s", batch.number, reason)
        return
    run.recorder.record(Refused(at=now(), batch=batch.number, reason=reason, too_large=True))
    log.warning("batch %d is too large and will be sent again in halves: %s", batch.number, reason)
