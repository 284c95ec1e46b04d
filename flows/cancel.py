"""Cancelling an output: stop its batches at the provider, collect finished answers, publish."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

from flows.batches.collect import restore_results
from flows.batches.loop import send_and_collect
from flows.batches.orchestrator import Threads
from flows.batches.outbox import Outbox
from flows.domain.batches import State
from flows.engine.logs import log_progress
from flows.engine.opening import open_run
from flows.engine.recorder import open_recorder
from flows.engine.run import Run
from flows.engine.translating import readable_errors
from flows.pipeline import plan_requests, publish_and_report
from flows.preflight import last_config
from flows.report.figures import Figures
from flows.report.forecast import estimate_run
from flows.report.verdict import Ending

log = logging.getLogger("batchwerk")


def cancel_output(output: Path) -> Figures:
    """Cancel the output's batches at the provider, wait until they end, collect and publish.

    Raises the error that stopped it, after publishing what was collected.
    """
    config, started = last_config(output, wait=None, retry_failed=False), time.monotonic()
    log_progress()
    with (
        readable_errors(config.state),
        open_recorder(config, cancelling=True) as recorder,
        Threads() as threads,
        Outbox(threads) as outbox,
        open_run(config, recorder, plan_requests(config, recorder, outbox)) as run,
    ):
        restore_results(run)
        forecast = estimate_run(run)
        cancel_batches(run)
        ending = send_and_collect(run, outbox, threads, submit=False)
        figures = publish_and_report(run, _with_unknown(run, ending), forecast, started, removes=False)
    if ending.error is not None:
        raise ending.error
    return figures


def cancel_batches(run: Run) -> None:
    """Ask the provider to stop every batch that it has accepted."""
    for batch in run.recorder.query(lambda ledger: list(ledger.in_state(State.SUBMITTED))):
        assert batch.id is not None  # noqa: S101  # the ledger's submitted batches have one
        status = run.clients.client_of(batch).cancel(batch.id)
        log.info("batch %d: %s", batch.number, status.wording)


def _with_unknown(run: Run, ending: Ending) -> Ending:
    unknown = run.recorder.query(lambda ledger: [batch.number for batch in ledger.in_state(State.UNKNOWN)])
    reasons = {number: f"it is not known whether batch {number} was accepted; the next run asks" for number in unknown}
    return replace(ending, unresolved={**ending.unresolved, **reasons})
