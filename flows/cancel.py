"""Cancelling an output: stop its batches at the provider, collect what was finished and paid, publish."""

from __future__ import annotations

import logging
from pathlib import Path

from blocks.errors import UsageError
from flows.domain.ledger import State
from flows.loop import Loop, Threads
from flows.permits import Permits
from flows.pipeline import run_pipeline
from flows.preflight import check
from flows.report.figures import Figures
from flows.run import Run
from flows.settings import read_settings
from flows.storage.state import StateDirectory
from flows.submit import Outbox

log = logging.getLogger("batchwerk")


def cancel_output(output: Path) -> Figures:
    """Cancel whatever the output has with its provider, under the parameters of its newest run.

    Even if that let go at once, this waits for what the batches end with, and gives no failed row a new allowance.
    """
    state = StateDirectory(output)
    if state.read_run() is None:
        raise UsageError(f"{output} was not written by Batchwerk", next_step="name the OUTPUT that you gave to `run`")
    settings = {**state.last_settings(), "wait": None, "retry_failed": False}
    return run_pipeline(check(read_settings(settings)), cancel_batches, lambda _: None)


def cancel_batches(run: Run) -> str:
    """Ask the provider to stop every batch, then wait for what they end with. Nothing new is sent."""
    for batch in list(run.ledger.in_state(State.SUBMITTED)):
        assert batch.id is not None  # noqa: S101  # the ledger's submitted batches have one
        status = run.provider_of(batch).cancel(batch.id)
        log.info("batch %d: %s", batch.number, status.wording)
    for batch in run.ledger.in_state(State.UNKNOWN):
        run.unresolved[batch.number] = f"whether batch {batch.number} was accepted is not known; the next run asks"
    with Threads() as threads:
        return Loop(run, threads.start, Outbox(Permits(lambda _: None)), lambda _: None, submit=False).work()
