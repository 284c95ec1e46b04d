"""Reading a batch's answers into its results part."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from blocks.batch import BatchPhase, BatchProvider
from blocks.clients import Access
from flows.domain.batches import Batch
from flows.domain.events import BatchResult
from flows.domain.judging import BatchAnswers
from flows.spec import Spec
from flows.storage.results import ResultsStore, part_table
from flows.storage.state import StateDirectory


class Order(NamedTuple):
    """Everything needed to collect a batch, in this process or in another one."""

    access: Access
    spec: Spec
    batch: Batch
    output: Path
    max_attempts: int
    gone: str | None = None  # why the provider no longer has its answers


def collect_answers(order: Order, client: BatchProvider) -> BatchResult:
    """Read the answers, judge them and write the results part; returns what the journal records."""
    batch, spec = order.batch, order.spec
    answers = BatchAnswers(batch, spec.judge(order.max_attempts))
    if batch.failed is None and batch.id is not None and order.gone is None:
        answers.take(client.results(batch.id, spec.form))
        for copy in batch.copies:
            if client.poll(copy).phase is BatchPhase.ENDED:  # a copy that failed has no answers and cost nothing
                answers.take_copy(client.results(copy, spec.form))
    judged = answers.finish(failed=batch.failed, final=batch.final, gone=order.gone)
    ResultsStore(StateDirectory(order.output), spec.schema_id).save(batch, part_table(judged, spec.schema))
    return judged.result
