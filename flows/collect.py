"""Following batches to their end: asking where they stand, and reading their answers into results parts."""

from __future__ import annotations

import dataclasses
import logging
import time

from blocks.batch import BatchPhase, BatchStatus, Obstacle
from blocks.errors import NotFound
from flows.domain.events import Collected, Ended, Lost, Refused
from flows.domain.ledger import Batch
from flows.run import Run, now
from flows.storage.results import Gathered, Gatherer
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
            run.record(Ended(at=now(), batch=number, wording=status.wording))


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
        gathered = _gather(run, batch)
        fields = {field.name: getattr(gathered, field.name) for field in dataclasses.fields(gathered)}
        run.record(Collected(at=now(), batch=number, schema_id=run.results_of(batch).schema_id, **fields))
        again = sum(part.requests for part in gathered.again)
        log.info(
            "batch %d: %s of %s answers good, %s go again, collected in %.1f s",
            number, f"{gathered.ok:,}", f"{batch.requests:,}", f"{again:,}", time.monotonic() - started,
        )  # fmt: skip


def _gather(run: Run, batch: Batch) -> Gathered:
    gatherer = Gatherer(batch, run.judge_of(batch))
    if batch.failed is None and batch.id is not None:
        provider, form = run.provider_of(batch), run.terms_of(batch).form
        gatherer.take(provider.results(batch.id, form))
        for copy in batch.copies:
            if provider.poll(copy).phase is BatchPhase.ENDED:  # one that failed answered nothing and cost nothing
                gatherer.take_copy(provider.results(copy, form))
    table, gathered = gatherer.finish(failed=batch.failed, final=batch.final)
    run.results_of(batch).save(batch.number, table)
    return gathered


def restore_results(run: Run) -> None:
    """Fetch results parts that are gone or damaged once more; say which ones the provider no longer has."""
    for batch in run.results.parts(run.ledger):
        if run.results.is_whole(batch):
            continue
        log.warning("the results of batch %d are gone or damaged; fetching them again", batch.number)
        try:
            _gather(run, batch)
        except NotFound as error:
            reason = f"the results of batch {batch.number} are gone and the provider no longer has them"
            run.record(Lost(at=now(), batch=batch.number, reason=reason))
            log.warning("%s (%s); --retry-failed asks for its rows again", reason, error.message)
