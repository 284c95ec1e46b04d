"""The story: plan what the rows ask for, work until it is answered, publish, report, tidy up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import duckdb
import pyarrow as pa

from blocks.errors import AuthenticationFailed, BatchwerkError, StateError, UsageError, system_error
from flows.collect import restore_results
from flows.compact import compact_results
from flows.garbage import searched_rarely
from flows.preflight import Checked
from flows.publish import publish
from flows.report.figures import Exit, Figures, estimate_backlog, figures_of
from flows.report.files import write_report
from flows.run import Run, opened
from flows.stopping import stopped_by_signals
from flows.storage.output import FAILED, PENDING, OutputSummary

Work = Callable[[Run], str]  # submits, waits, collects; returns why it stopped before all was done, if it did


def run_pipeline(
    checked: Checked, work: Work, announce: Callable[[Figures], None], expect: Callable[[], None] = lambda: None
) -> Figures:
    """Enrich the input. What was collected is published also when the run stops on an error, which is then raised.

    `expect` is called when there may be work soon, while it is still being planned.
    """
    try:
        return _run(checked, work, announce, expect)
    except OSError as error:
        raise system_error(error) from error
    except duckdb.Error as error:
        raise StateError(f"the plan could not be made: {str(error).splitlines()[0]}") from error
    except pa.ArrowInvalid as error:
        raise StateError(
            f"a file of {checked.state.path} is damaged: {str(error).splitlines()[0]}",
            next_step="restore the state directory from a backup; nothing was sent",
        ) from error


def _run(checked: Checked, work: Work, announce: Callable[[Figures], None], expect: Callable[[], None]) -> Figures:
    logging.getLogger("batchwerk").setLevel(logging.INFO)
    logging.getLogger("stamina").setLevel(logging.ERROR)  # our own warnings say the same
    started = time.monotonic()
    with searched_rarely(), opened(checked, expect) as run, stopped_by_signals(run):
        restore_results(run)
        expected = estimate_backlog(checked, run.plan, run.ledger, run.wanted, run.requests)
        stopped, trouble = _try(run, work)
        published = publish(run)
        status, message = _verdict(run, published, stopped, trouble)
        figures = figures_of(run, published, expected, time.monotonic() - started, status, message)
        write_report(checked.state, figures)
        announce(figures)
        if trouble is None:
            compact_results(run)
    if trouble is not None:
        raise trouble
    return figures


def _try(run: Run, work: Work) -> tuple[str, BatchwerkError | None]:
    """Work; an error is kept for later if there is something to publish, and raised at once if there is not."""
    if not run.has_work():
        return "", None
    try:
        return work(run), None
    except BatchwerkError as error:
        if not run.collected_here():
            _raise_as_usage(run, error)
            raise
        run.failure = None
        return "", error
    finally:
        run.helpers.close()  # their memory is for publishing


def _raise_as_usage(run: Run, error: BatchwerkError) -> None:
    """A wrong key that was found out before anything was accepted is a wrong call."""
    accepted = any(batch.id for batch in run.written())
    if isinstance(error, AuthenticationFailed) and not accepted:
        raise UsageError(error.message, next_step=error.next_step) from error


def _verdict(run: Run, published: OutputSummary, stopped: str, trouble: BatchwerkError | None) -> tuple[Exit, str]:
    if trouble is not None:
        return Exit.ERROR, str(trouble)
    if run.unresolved:
        return Exit.ERROR, "; ".join(why for _, why in sorted(run.unresolved.items()))
    if published.statuses[PENDING]:
        return Exit.WAITING, f"{stopped}; the same command goes on from here"
    failed, rows = published.statuses[FAILED], published.rows
    if failed > run.checked.settings.max_failed * rows:
        return Exit.ROWS_FAILED, f"{failed:,} of {rows:,} rows failed; the column _error says why"
    return Exit.DONE, ""
