"""Reading a batch's answers into its results part."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from blocks.batch import BatchPhase, BatchProvider
from blocks.clients import Access
from blocks.errors import Incomplete, NotFound
from blocks.retries import with_retries
from flows.domain.batches import Batch
from flows.domain.events import BatchResult
from flows.domain.judging import BatchAnswers, JudgedBatch
from flows.spec import Spec
from flows.storage.memory import give_back_memory
from flows.storage.results import ResultsStore, part_table
from flows.storage.state import StateDirectory

log = logging.getLogger("batchwerk")

LARGE = 16 * 1024 * 1024  # bytes of a batch's results


class Order(NamedTuple):
    """Everything needed to collect a batch, in this process or in another one."""

    access: Access
    spec: Spec
    batch: Batch
    output: Path
    max_attempts: int
    settled: bool = False  # whether fewer answers than the provider counts are taken for all that will come


def collect_answers(order: Order, client: BatchProvider) -> BatchResult:
    """Read the answers, judge them and write the results part; returns what the journal records.

    What breaks on the way is begun anew, with nothing kept: a second reading may have another order.
    """
    try:
        judged = with_retries(lambda: _judged(order, client, accept=False))
    except Incomplete as error:
        if not (order.settled and error.fewer):
            raise
        judged = _judged(order, client, accept=True)
    table = part_table(judged, order.spec.schema)
    ResultsStore(StateDirectory(order.output), order.spec.schema_id).save(order.batch, table)
    result, size = judged.result, table.nbytes
    del judged, table
    if size > LARGE:
        give_back_memory()
    return result


def _judged(order: Order, client: BatchProvider, *, accept: bool) -> JudgedBatch:
    """`accept`: the answers that came are all that will come."""
    batch, spec, fewer = order.batch, order.spec, 0
    answers = BatchAnswers(batch, spec.judge(order.max_attempts, batch.sent_on))
    if batch.failed is None and batch.id is not None and not batch.gone:
        try:
            answers.take(client.results(batch.id, spec.form))
        except Incomplete as error:
            if not (accept and error.fewer):
                raise
            fewer = error.fewer
    for copy in batch.copies:
        _take_copy(answers, client, copy, spec)
    return answers.finish(failed=batch.failed, final=batch.final, gone=batch.gone or None, fewer=fewer)


def _take_copy(answers: BatchAnswers, client: BatchProvider, copy: str, spec: Spec) -> None:
    """An accidental copy has an end of its own, whatever became of the batch."""
    try:
        if client.poll(copy).phase is BatchPhase.ENDED:  # a copy that failed has no answers and cost nothing
            answers.take_copy(client.results(copy, spec.form))
    except NotFound as error:
        log.warning("a copy of the batch is not found, what it cost is unknown: %s", error.message)
