"""Following batches to their end: asking where they stand, and reading their answers into results parts."""

from __future__ import annotations

import dataclasses
import logging
import time

from blocks.batch import BatchPhase
from blocks.errors import NotFound
from flows.domain.events import Collected, Ended, Lost
from flows.domain.ledger import Batch
from flows.run import Run, now
from flows.storage.results import Gathered, Gatherer

log = logging.getLogger("batchwerk")

INVISIBLE = 300.0  # seconds that a provider may not yet know a batch that it has just accepted


def poll_batch(run: Run, number: int) -> None:
    """Ask where a batch stands; writes down its end."""
    batch = run.ledger.batches[number]
    assert batch.id is not None  # noqa: S101  # the ledger polls submitted batches only
    with run.guard(number):
        try:
            status = run.provider_of(batch).poll(batch.id)
        except NotFound:
            if time.time() - batch.submitted_at < INVISIBLE:
                return
            raise
        if status.phase is BatchPhase.RUNNING:
            return
        failed = (status.error or status.wording) if status.phase is BatchPhase.FAILED else None
        run.record(Ended(at=now(), batch=number, wording=status.wording, failed=failed))


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
        gatherer.take(run.provider_of(batch).results(batch.id))
    table, gathered = gatherer.finish(failed=batch.failed)
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
