"""Following batches to their end: asking where they stand, and reading their answers into results parts."""

from __future__ import annotations

import dataclasses
import logging
import time

from blocks.batch import BatchPhase
from blocks.errors import NotFound
from flows.domain.events import Collected, Ended
from flows.run import Run, now
from flows.storage.results import Gatherer

log = logging.getLogger("batchwerk")

INVISIBLE = 300.0  # seconds that a provider may not yet know a batch that it has just accepted


def poll_batch(run: Run, number: int) -> None:
    """Ask where a batch stands; writes down its end."""
    batch = run.ledger.batches[number]
    assert batch.id is not None  # noqa: S101  # the ledger polls submitted batches only
    with run.guard(number):
        try:
            status = run.provider.poll(batch.id)
        except NotFound:
            if time.time() - batch.submitted_at < INVISIBLE:
                return
            raise
        if status.phase is BatchPhase.RUNNING:
            return
        failed = (status.error or status.wording) if status.phase is BatchPhase.FAILED else None
        run.record(Ended(at=now(), batch=number, wording=status.wording, failed=failed))


def collect_batch(run: Run, number: int) -> int:
    """Read a batch's answers into its results part, on disk before the journal says so. Returns how many are good."""
    started = time.monotonic()
    with run.guard(number):
        batch = run.ledger.batches[number]
        gatherer = Gatherer(batch, run.judge)
        if batch.failed is None and batch.id is not None:
            gatherer.take(run.provider.results(batch.id))
        table, gathered = gatherer.finish(failed=batch.failed)
        run.results.save(number, table)
        fields = {field.name: getattr(gathered, field.name) for field in dataclasses.fields(gathered)}
        run.record(Collected(at=now(), batch=number, schema_id=run.results.schema_id, **fields))
    again = sum(part.requests for part in gathered.again)
    log.info(
        "batch %d: %s of %s answers good, %s go again, collected in %.1f s",
        number, f"{gathered.ok:,}", f"{batch.requests:,}", f"{again:,}", time.monotonic() - started,
    )  # fmt: skip
    return gathered.ok
