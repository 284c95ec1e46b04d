"""Following batches to their end: asking where they stand, and reading their answers into results parts."""

from __future__ import annotations

import logging
import time

from blocks.batch import BatchPhase, BatchStatus, Obstacle
from blocks.errors import NotFound, Transient
from flows.domain.events import BatchResult, Collected, Ended, Lost, Refused, Restored
from flows.domain.ledger import Batch
from flows.gather import Order, gather
from flows.run import Run, now
from flows.submit import refuse_too_large

log = logging.getLogger("batchwerk")

INVISIBLE = 300.0  # seconds that a provider may not yet know a batch that it has just accepted


def poll_batch(run: Run, number: int) -> None:
    """Ask where a batch stands; writes down its end."""
    batch = run.ledger.batches[number]
    assert batch.id is not None  # noqa: S101  # the ledger polls submitted batches only
    with run.guard(number):
        try:
            status = run.provider_of(batch).poll(batch.id)
            copies = [run.provider_of(batch).poll(copy) for copy in batch.copies]
        except NotFound:
            if time.time() - batch.submitted_at < INVISIBLE:
                return
            raise
        if status.phase is BatchPhase.FAILED:
            _note_failed(run, batch, status)
        elif all(each.phase is not BatchPhase.RUNNING for each in [status, *copies]):
            run.record(Ended(at=now(), batch=number, wording=status.wording, early=status.early))


def _note_failed(run: Run, batch: Batch, status: BatchStatus) -> None:
    """A batch of which nothing ran: some providers accept a batch first and refuse it later."""
    reason = status.error or status.wording
    match status.obstacle:
        case Obstacle.TOO_LARGE:
            refuse_too_large(run, batch, reason)
        case Obstacle.QUEUE_FULL:
            run.record(Refused(at=now(), batch=batch.number, reason=reason, queue_full=True))
            log.warning("batch %d goes again when another batch has ended: %s", batch.number, reason)
        case None:
            run.record(Ended(at=now(), batch=batch.number, wording=status.wording, failed=reason))


def collect_batch(run: Run, number: int) -> None:
    """Read a batch's answers into its results part, which is on disk before the journal says so."""
    started = time.monotonic()
    with run.guard(number):
        batch = run.ledger.batches[number]
        try:
            gathered = _gather(run, batch)
        except NotFound as error:
            gathered = _without_results(run, batch, error)
        run.record(Collected(at=now(), batch=number, result=gathered))
        again = sum(part.requests for part in gathered.retry)
        log.info(
            "batch %d: %s of %s answers good, %s go again, collected in %.1f s",
            number, f"{gathered.ok:,}", f"{batch.requests:,}", f"{again:,}", time.monotonic() - started,
        )  # fmt: skip


def _gather(run: Run, batch: Batch) -> BatchResult:
    return run.helpers.gather(_order(run, batch), run.provider_of(batch))


def _order(run: Run, batch: Batch) -> Order:
    terms, settings = run.terms_of(batch), run.checked.settings
    return Order(run.providers.reach(terms.connection), terms, batch, settings.output, settings.max_attempts)


def _without_results(run: Run, batch: Batch, error: NotFound) -> BatchResult:
    """A batch that ended and whose results the provider does not have: not yet, or, after a while, not any more."""
    if time.time() - batch.ended_at < INVISIBLE:
        raise Transient(error.message, next_step=error.next_step, provider=error.provider) from error
    log.warning("batch %d: %s; its answers were paid and are lost", batch.number, error.message)
    reason = f"{error.message}; --retry-failed asks again"
    return gather(_order(run, batch)._replace(gone=reason), run.provider_of(batch))


def restore_results(run: Run) -> None:
    """Fetch results parts that are gone or damaged once more; say which ones the provider no longer has."""
    for part in run.results.parts(run.ledger):
        if run.results.is_whole(part):
            continue
        log.warning("the results of %s are gone or damaged; fetching them again", part.label)
        for batch in part.batches:
            if not run.results.is_whole(run.results.own_part(batch)):  # fetched before a crash, or not yet deleted
                _fetch_again(run, batch)
        if part.is_compacted:
            run.record(Restored(at=now(), schema_id=run.results.schema_id, part=part.path.stem))


def _fetch_again(run: Run, batch: Batch) -> None:
    try:
        _gather(run, batch)
    except NotFound as error:
        reason = f"the results of batch {batch.number} are gone and the provider no longer has them"
        run.record(Lost(at=now(), batch=batch.number, reason=reason))
        log.warning("%s (%s); --retry-failed asks for its rows again", reason, error.message)
