"""The flow: read, plan, submit, wait, collect, publish, report. The whole story on one screen.

python -m flows.enrich '{"input": "data/reviews.parquet", "output": "out/reviews.parquet", …}'
"""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any, Literal

import orjson
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from blocks.errors import AuthenticationFailed, BatchwerkError, UsageError
from flows.limits import ensure_limits, permits_for
from flows.loop import COLLECTORS, Loop
from flows.preflight import Checked, check
from flows.publish import publish
from flows.report.artifacts import progress_artifact, publish_artifacts
from flows.report.figures import Exit, Figures, estimate_backlog, figures_of
from flows.report.files import write_report
from flows.report.progress import ProgressReporter
from flows.run import Run, opened
from flows.settings import DEFAULT_BATCH_SIZE, DEFAULT_IN_FLIGHT, read_settings
from flows.storage.publish import FAILED, PENDING, Published
from flows.submit import LANES, Outbox
from flows.tasks import starter

STATE_NAMES = {Exit.ROWS_FAILED: "RowsFailed", Exit.WAITING: "Waiting"}


@flow(
    name="enrich",
    description="Adds columns to a Parquet file that a language model fills, through its provider's batch API.",
    flow_run_name="{job}",
    task_runner=ThreadPoolTaskRunner(max_workers=LANES + COLLECTORS + 1),  # type: ignore[arg-type]  # Prefect's own default
    validate_parameters=True,
    persist_result=False,
)
def enrich(
    input: Annotated[str, Field(description="Parquet file to read")],
    output: Annotated[str, Field(description="Parquet file to write; the same one goes on where it stopped")],
    job: Annotated[str, Field(description="Job file: prompt, model and the fields of the answer")],
    provider: Annotated[str, Field(description="local (the emulator), holysheep, or a block as type/name")],
    model: Annotated[str | None, Field(description="Instead of the job's model")] = None,
    base_url: Annotated[str | None, Field(description="Instead of the provider's own address")] = None,
    batch_size: Annotated[int | Literal["auto"], Field(description="Requests in a batch")] = DEFAULT_BATCH_SIZE,
    max_in_flight: Annotated[int, Field(ge=1, description="Batches with the provider at once")] = DEFAULT_IN_FLIGHT,
    max_attempts: Annotated[int, Field(ge=1, description="How often a request is sent before it is final")] = 3,
    max_failed: Annotated[float, Field(ge=0, le=1, description="Share of rows that may fail")] = 0.0,
    poll_interval: Annotated[float | None, Field(description="Seconds until a batch is first looked at")] = None,
    limit: Annotated[int | None, Field(description="Only the first so many rows")] = None,
    where: Annotated[str | None, Field(description="Only rows for which this SQL condition holds")] = None,
    retry_failed: Annotated[bool, Field(description="Give requests that failed for good a new allowance")] = False,
    input_moved: Annotated[bool, Field(description="The output's input has a new path")] = False,
    options: Annotated[dict[str, str] | None, Field(description="What a block would set, by name")] = None,
) -> State[Any]:
    """Enrich a Parquet file. The result holds the figures of the report."""
    parameters = {**locals(), "options": options or {}}
    try:
        figures = run_enrichment(check(read_settings(parameters)))
    except BatchwerkError as error:
        return Failed(message=error.message, data=error)
    return Completed(name=STATE_NAMES.get(figures.exit, "Completed"), message=figures.message or None, data=figures)


def run_enrichment(checked: Checked) -> Figures:
    """Plan, work, publish, report. What was collected is published also when the run stops on an error."""
    started = time.monotonic()
    with opened(checked) as run:
        expected = estimate_backlog(checked, run.plan, run.ledger, run.wanted, run.requests)
        stopped, trouble = "", None
        try:
            stopped = work(run)
        except BatchwerkError as error:
            trouble = error
            if not run.ledger.collected():
                raise _nothing_sent(run, error) from error
        published = publish(run)
        status, message = _verdict(run, published, stopped, trouble)
        figures = figures_of(run, published, expected, time.monotonic() - started, status, message)
        write_report(checked.state, figures)
        publish_artifacts(figures)
    if trouble is not None:
        raise trouble
    return figures


def work(run: Run) -> str:
    """Submit, wait and collect under Prefect's limits; returns why it stopped before all was done, if it did."""
    if not run.has_work():
        return ""
    provider = run.checked.connection.provider
    lanes = ensure_limits(provider, run.checked.limits)
    outbox = Outbox(permits_for(provider), lanes)
    report_progress = ProgressReporter(progress_artifact(run.checked.settings.output))
    return Loop(run, starter(provider), outbox, report_progress).work()


def _verdict(run: Run, published: Published, stopped: str, trouble: BatchwerkError | None) -> tuple[Exit, str]:
    if trouble is not None:
        return Exit.ERROR, str(trouble)
    if run.unresolved:
        numbers = ", ".join(map(str, sorted(run.unresolved)))
        return Exit.ERROR, f"nobody can tell whether batch {numbers} was accepted: {run.unresolved.popitem()[1]}"
    if published.statuses[PENDING]:
        return Exit.WAITING, f"{stopped}; the same command goes on from here"
    failed, rows = published.statuses[FAILED], published.rows
    if failed > run.checked.settings.max_failed * rows:
        return Exit.ROWS_FAILED, f"{failed:,} of {rows:,} rows failed; the column _error says why"
    return Exit.DONE, ""


def _nothing_sent(run: Run, error: BatchwerkError) -> BatchwerkError:
    """A wrong key that was found out before anything was accepted is a wrong call."""
    accepted = any(batch.id for batch in run.ledger.batches.values())
    if isinstance(error, AuthenticationFailed) and not accepted:
        return UsageError(error.message, next_step=error.next_step)
    return error


if __name__ == "__main__":
    sys.exit(0 if enrich(**orjson.loads(sys.argv[1]), return_state=True).is_completed() else 1)
