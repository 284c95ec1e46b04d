"""Merging the results parts of an output with many of them. Nothing waits for it or depends on it."""

from __future__ import annotations

import logging
import time
from functools import partial

import pyarrow as pa

from blocks.errors import BatchwerkError
from blocks.printable import counted
from flows.domain.compaction import parts_to_merge
from flows.domain.events import Compacted
from flows.domain.ledger import Ledger
from flows.engine.recorder import now
from flows.engine.run import Run
from flows.storage.compaction import check_part, merge_parts
from flows.storage.results import Part

log = logging.getLogger("batchwerk")


def compact_results(run: Run) -> None:
    """Merge parts if there are many. A failure is logged and changes nothing: the next run tries again."""
    try:
        run.recorder.query(run.results.remove_leftovers)
        while run.switch.active and (parts := run.recorder.query(partial(_worth_merging, run))):
            _merge(run, parts)
    except (BatchwerkError, OSError, pa.ArrowInvalid) as error:
        log.warning("results parts were not merged: %s", error)


def _worth_merging(run: Run, ledger: Ledger) -> list[Part]:
    """The parts to merge, except those with answers that a batch in flight requests again, or that may be read yet."""
    repeated = {piece.after for batch in ledger.in_flight() for piece in batch.slices}
    repeated |= {batch.number for batch in ledger.written_off()}
    quiet = [part for part in run.results.parts(ledger) if repeated.isdisjoint(batch.number for batch in part.batches)]
    return [quiet[place] for place in parts_to_merge([part.rows for part in quiet])]


def _merge(run: Run, parts: list[Part]) -> None:
    """The merged part is on disk before the journal records it; only then are the old parts deleted."""
    started, name = time.monotonic(), run.recorder.query(lambda ledger: ledger.next_part())
    path = run.results.compacted(name)
    requests = {batch.number: batch.requests for part in parts for batch in part.batches}
    merge_parts(parts, path, run.config.spec.schema)
    check_part(path, requests)
    run.recorder.record(Compacted(at=now(), schema_id=run.results.schema_id, part=name, batches=sorted(requests)))
    run.recorder.query(run.results.remove_leftovers)
    log.info(
        "merged %s into one of %s in %.1f s",
        counted(len(parts), "results part"), counted(sum(requests.values()), "row"), time.monotonic() - started,
    )  # fmt: skip
