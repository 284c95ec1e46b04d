"""Reading a batch's answers into its results part."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from blocks.batch import BatchPhase, BatchProvider
from blocks.clients import Access
from blocks.errors import NotFound
from flows.domain.batches import Batch
from flows.domain.events import BatchResult
from flows.domain.judging import BatchAnswers
from flows.spec import Spec
from flows.storage.results import ResultsStore, part_table
from flows.storage.state import StateDirectory

log = logging.getLogger("batchwerk")


class Order(NamedTuple):
    """Everything needed to collect a batch, in this process or in another one."""

    access: Access
    spec: Spec
    batch: Batch
    output: Path
    max_attempts: int


def collect_answers(order: Order, client: BatchProvider) -> BatchResult:
    """Read the answers, judge them and write the results part; returns what the journal records."""
    batch, spec = order.batch, order.spec
    answers = BatchAnswers(batch, spec.judge(order.max_attempts, batch.sent_on))
    if batch.failed is None and batch.id is not None and not batch.gone:
        answers.take(client.results(batch.id, spec.form))
    for copy in batch.copies:
        _take_copy(answers, client, copy, spec)
    judged = answers.finish(failed=batch.failed, final=batch.final, gone=batch.gone or None)
    ResultsStore(StateDirectory(order.output), spec.schema_id).save(batch, part_table(judged, spec.schema))
    return judged.result


def _take_copy(answers: BatchAnswers, client: BatchProvider, copy: str, spec: Spec) -> None:
    """An accidental copy has an end of its own, whatever became of the batch."""
    try:
        if client.poll(copy).phase is BatchPhase.ENDED:  # a copy that failed has no answers and cost nothing
            answers.take_copy(client.results(copy, spec.form))
    except NotFound as error:
        log.warning("a copy of the batch is not found, what it cost is unknown: %s", error.message)
