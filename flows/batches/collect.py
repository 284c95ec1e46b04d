"""Reading the answers of ended batches into results parts, and fetching lost parts again."""

from __future__ import annotations

import logging
import time

from blocks.errors import NotFound, Transient
from blocks.printable import counted
from flows.batches.answers import Order, collect_answers
from flows.batches.collector_pool import CollectorPool
from flows.batches.poll import INVISIBLE
from flows.domain.batches import Batch
from flows.domain.events import BatchResult, Collected, Lost, Restored
from flows.engine.recorder import now
from flows.engine.run import Run

log = logging.getLogger("batchwerk")


def collect_batch(run: Run, pool: CollectorPool, number: int) -> None:
    """Read a batch's answers into its results part, which is on disk before the journal records it."""
    started = time.monotonic()
    with run.visiting(number):
        batch = run.recorder.batch(number)
        try:
            result = pool.collect(_order(run, batch), run.clients.client_of(batch))
        except NotFound as error:
            result = _without_results(run, batch, error)
        run.recorder.record(Collected(at=now(), batch=number, result=result))
        retries = sum(piece.requests for piece in result.retry)
        log.info(
            "batch %d: %s of %s good, %s to be retried, collected in %.1f s",
            number, f"{result.ok:,}", counted(batch.requests, "answer"), f"{retries:,}", time.monotonic() - started,
        )  # fmt: skip


def _order(run: Run, batch: Batch) -> Order:
    settings = run.config.settings
    return Order(
        run.clients.access_of(batch), run.clients.spec_of(batch), batch, settings.output, settings.max_attempts
    )


def _without_results(run: Run, batch: Batch, error: NotFound) -> BatchResult:
    """An ended batch whose results the provider does not have: not yet, or, after a while, no longer."""
    if time.time() - batch.ended_at < INVISIBLE:
        raise Transient(error.message, next_step=error.next_step, provider=error.provider) from error
    log.warning("batch %d: %s; its answers were paid for and are lost", batch.number, error.message)
    reason = f"{error.message}; --retry-failed requests them again"
    return collect_answers(_order(run, batch)._replace(gone=reason), run.clients.client_of(batch))


def restore_results(run: Run) -> None:
    """Fetch missing or damaged results parts again; log those that the provider no longer has."""
    for part in run.recorder.query(run.results.parts):
        if run.results.is_whole(part):
            continue
        log.warning("the results of %s are missing or damaged; fetching them again", part.label)
        for batch in part.batches:
            if not run.results.is_whole(run.results.own_part(batch)):  # fetched before a crash, or not yet deleted
                _fetch_again(run, batch)
        if part.is_compacted:
            run.recorder.record(Restored(at=now(), schema_id=run.results.schema_id, part=part.path.stem))


def _fetch_again(run: Run, batch: Batch) -> None:
    try:
        collect_answers(_order(run, batch), run.clients.client_of(batch))
    except NotFound as error:
        reason = f"the results of batch {batch.number} are gone and the provider no longer has them"
        run.recorder.record(Lost(at=now(), batch=batch.number, reason=reason))
        log.warning("%s (%s); --retry-failed requests its rows again", reason, error.message)
