"""The flow as Prefect sees it: parameters for the form, tasks under its limits, artifacts, named final states.

python -m flows.enrich '{"input": "data/reviews.parquet", "output": "out/reviews.parquet", …}'
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from prefect import Flow, flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from blocks.errors import BatchwerkError, StateError
from flows.cancel import cancel_output
from flows.limits import ensure_limits, permits_for
from flows.loop import COLLECTORS, Loop
from flows.pipeline import run_pipeline
from flows.preflight import check
from flows.report.artifacts import progress_artifact, publish_artifacts
from flows.report.figures import Exit
from flows.report.progress import ProgressReporter
from flows.run import Run
from flows.settings import DEFAULT_BATCH_SIZE, DEFAULT_IN_FLIGHT, read_settings
from flows.submit import LANES, Outbox
from flows.tasks import starter

LOCK_TRIES = 60  # seconds
STATE_NAMES = {Exit.ROWS_FAILED: "RowsFailed", Exit.WAITING: "Waiting"}


def cancel_at_provider(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001  # Prefect's names
    """Cancelling the flow run cancels its batches, collects what was finished and publishes."""
    output = Path(str(flow_run.parameters["output"]))
    for _ in range(LOCK_TRIES):  # the cancelled process may need a moment to let go of the output
        try:
            cancel_output(output)
        except StateError:
            time.sleep(1.0)
        else:
            return


@flow(
    name="enrich",
    description="Adds columns to a Parquet file that a language model fills, through its provider's batch API.",
    flow_run_name="{output}",
    task_runner=ThreadPoolTaskRunner(max_workers=LANES + COLLECTORS + 1),  # type: ignore[arg-type]  # Prefect's own default
    validate_parameters=True,
    persist_result=False,
    on_cancellation=[cancel_at_provider],
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
    wait: Annotated[float | None, Field(ge=0, description="Seconds to wait for batches; 0: let go at once")] = None,
    give_up_after: Annotated[float | None, Field(ge=0, description="Seconds that the provider may fail")] = None,
    on_unknown: Annotated[
        Literal["fail", "resubmit"], Field(description="When nobody can tell if a batch was accepted")
    ] = "fail",
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
        figures = run_pipeline(check(read_settings(parameters)), work, publish_artifacts)
    except BatchwerkError as error:
        return Failed(message=error.message, data=error)
    return Completed(name=STATE_NAMES.get(figures.exit, "Completed"), message=figures.message or None, data=figures)


def work(run: Run) -> str:
    """Submit, wait and collect as Prefect tasks under Prefect's limits; returns why it stopped early, if it did."""
    provider = run.checked.terms.connection.provider
    outbox = Outbox(permits_for(provider), ensure_limits(provider, run.checked.terms.limits))
    report_progress = ProgressReporter(progress_artifact(run.checked.settings.output))
    return Loop(run, starter(provider), outbox, report_progress).work()


if __name__ == "__main__":
    sys.exit(0 if enrich(**orjson.loads(sys.argv[1]), return_state=True).is_completed() else 1)
