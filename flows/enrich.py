"""The flow as Prefect sees it: parameters for the form, tasks under its limits, artifacts, named final states.

python -m flows.enrich '{"input": "data/reviews.parquet", "output": "out/reviews.parquet", …}'
"""

from __future__ import annotations

import sys
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from prefect import Flow, flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from blocks.errors import BatchwerkError, StateError
from flows.batches.orchestrator import COLLECTORS, MAX_LANES
from flows.cancel import cancel_output
from flows.orchestration.orchestrator import PrefectOrchestrator
from flows.pipeline import run_pipeline
from flows.preflight import check
from flows.report.figures import Figures
from flows.report.progress import Watcher, log_watcher
from flows.report.verdict import Exit
from flows.settings import DEFAULT_BATCH_SIZE, DEFAULT_IN_FLIGHT, DEFAULT_MEMORY, DEFAULT_ROW_GROUP, read_settings

LOCK_TRIES = 60  # seconds
STATE_NAMES = {Exit.ROWS_FAILED: "RowsFailed", Exit.WAITING: "Waiting"}


Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]
# What a flow ended with, for whoever runs it in this process: a Failed state with an error in it prints a traceback.
outcomes: ContextVar[list[Figures | BatchwerkError]] = ContextVar("outcomes")
display: ContextVar[Watcher] = ContextVar("display")


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
    task_runner=ThreadPoolTaskRunner(max_workers=MAX_LANES + COLLECTORS + 1),  # type: ignore[arg-type]  # Prefect's own default
    validate_parameters=True,
    persist_result=False,
    on_cancellation=[cancel_at_provider],
)
def enrich(
    input: str,
    output: str,
    job: str,
    provider: str,
    model: str | None = None,
    base_url: str | None = None,
    batch_size: Count | Literal["auto"] = DEFAULT_BATCH_SIZE,
    max_in_flight: Count = DEFAULT_IN_FLIGHT,
    max_attempts: Count = 3,
    max_failed: Annotated[float, Field(ge=0, le=1)] = 0.0,
    wait: Seconds | None = None,
    give_up_after: Seconds | None = None,
    on_unknown: Literal["fail", "resubmit"] = "fail",
    poll_interval: Annotated[float, Field(gt=0)] | None = None,
    limit: Count | None = None,
    where: str | None = None,
    retry_failed: bool = False,
    input_moved: bool = False,
    compression: Literal["zstd", "snappy", "gzip", "none"] = "zstd",
    row_group_rows: Count = DEFAULT_ROW_GROUP,
    memory_limit: str = DEFAULT_MEMORY,
    options: dict[str, str] | None = None,
) -> State[Any]:
    """Enrich a Parquet file. The result holds the figures of the report.

    Args:
        input: Parquet file to read, or a folder of them.
        output: Parquet file or folder to write. The same one goes on where an earlier run stopped.
        job: Job file: prompt, model and the fields of the answer.
        provider: local (the embedded emulator), holysheep, openai, anthropic, mistral, gemini, or a saved block as
            type/name.
        model: Instead of the job's model.
        base_url: Instead of the provider's own address.
        batch_size: Requests in a batch, or auto.
        max_in_flight: Batches with the provider at once.
        max_attempts: How often a request is sent before its failure is final.
        max_failed: Share of rows that may fail without the run's state saying so.
        wait: Seconds to wait for batches before letting go; 0 lets go at once, empty waits to the end.
        give_up_after: Seconds that the provider may fail without a break; empty waits.
        on_unknown: When nobody can tell whether a batch was accepted, leave it (fail) or send it again (resubmit).
        poll_interval: Seconds between two looks at a batch; empty leaves it to the provider.
        limit: Only the first so many rows; a later run extends them.
        where: Only rows for which this SQL condition holds.
        retry_failed: Give requests that failed for good a new allowance.
        input_moved: The output's input has a new path.
        compression: Of the output.
        row_group_rows: Rows of a row group of the output; fewer where they take more than 32 MB.
        memory_limit: For sorting and joining keys, such as 100MB; what does not fit goes to disk.
        options: What a block would set, by name.
    """
    parameters = {**locals(), "options": options or {}}
    told = outcomes.get([])
    try:
        checked = check(read_settings(parameters))
        figures = run_pipeline(checked, PrefectOrchestrator(checked, display.get(log_watcher())))
    except BatchwerkError as error:
        told.append(error)
        return Failed(message=str(error))
    told.append(figures)
    return Completed(name=STATE_NAMES.get(figures.exit, "Completed"), message=figures.message or None, data=figures)


if __name__ == "__main__":
    sys.exit(0 if enrich(**orjson.loads(sys.argv[1]), return_state=True).is_completed() else 1)
