"""The flow as Prefect sees it: parameters for the form, tasks under its limits, artifacts, named final states.

python -m flows.enrich '{"input": "data/reviews.parquet", "output": "out/reviews.parquet", …}'
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
from prefect import Flow, flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from blocks.errors import BatchwerkError, StateError
from flows.cancel import cancel_output
from flows.limits import asking, ensure_limits
from flows.loop import COLLECTORS, Loop, Started
from flows.permits import Permits
from flows.pipeline import run_pipeline
from flows.preflight import Checked, check
from flows.report.artifacts import progress_artifact, publish_artifacts
from flows.report.figures import Exit, Figures
from flows.report.progress import ProgressReporter, in_background
from flows.run import Run
from flows.settings import read_settings, settings_docstring, settings_signature
from flows.submit import LANES, Outbox, submit_batches
from flows.tasks import starter

LOCK_TRIES = 60  # seconds
STATE_NAMES = {Exit.ROWS_FAILED: "RowsFailed", Exit.WAITING: "Waiting"}

Body = Callable[[Mapping[str, Any]], Figures]  # takes the flow's parameters


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


def enrich_flow(body: Body) -> Flow[..., State[Any]]:
    """The flow `enrich` around what it does with its parameters.

    An error that a user can act on becomes the message of a failed state: as an exception Prefect would log its
    traceback.
    """

    def enrich(**parameters: Any) -> State[Any]:
        try:
            figures = body(parameters)
        except BatchwerkError as error:
            return Failed(message=str(error))
        name = STATE_NAMES.get(figures.exit, "Completed")
        return Completed(name=name, message=figures.message or None, data=figures)

    # Prefect reads the form and the entry point from these.
    enrich.__signature__ = settings_signature()  # type: ignore[attr-defined]
    enrich.__doc__ = settings_docstring("Enrich a Parquet file. The result holds the figures of the report.")
    enrich.__qualname__ = "enrich"
    return flow(
        name="enrich",
        description="Adds columns to a Parquet file that a language model fills, through its provider's batch API.",
        flow_run_name="{output}",
        task_runner=ThreadPoolTaskRunner(max_workers=LANES + COLLECTORS + 1),  # type: ignore[arg-type]  # Prefect's own default
        validate_parameters=True,
        persist_result=False,
        on_cancellation=[cancel_at_provider],
    )(enrich)


def run_with_prefect(config: Checked) -> Figures:
    """Run the pipeline in a flow run. Raises BatchwerkError."""
    with PrefectWork(config) as tasks:
        return run_pipeline(config, tasks.work, publish_artifacts, tasks.prepare)


def run_as_flow(config: Checked) -> Figures:
    """Start the flow in this process for input that is already checked. Raises what the run failed with."""
    outcome: Figures | BatchwerkError | None = None

    def body(_: Mapping[str, Any]) -> Figures:
        nonlocal outcome
        try:
            outcome = run_with_prefect(config)
        except BatchwerkError as error:
            outcome = error
            raise
        return outcome

    state = enrich_flow(body)(**config.settings.model_dump(mode="json"), return_state=True)
    if isinstance(outcome, BatchwerkError):
        raise outcome
    if outcome is None:
        raise BatchwerkError(
            f"the run ended with an unexpected error: {state.message}",
            next_step="run the same command again to continue; the log above has the details",
        )
    return outcome


enrich = enrich_flow(lambda parameters: run_with_prefect(check(read_settings(parameters))))


class PrefectWork:
    """Submitting, waiting and collecting as Prefect tasks under Prefect's limits."""

    def __init__(self, checked: Checked) -> None:
        self._checked = checked
        self._provider = checked.terms.connection.limits_name
        self._start = starter(self._provider)
        self._outbox: Outbox | None = None
        self._begun: list[Started] = []

    def prepare(self) -> None:
        """Ask for the first slot and for permits: it takes Prefect seconds to give them on SQLite."""
        self._outbox = self._new_outbox()
        self._outbox.begin_lane(self._checked.settings.batches_of(self._checked.source.rows))
        self._begun.append(self._start(submit_batches, self._outbox))

    def work(self, run: Run) -> str:
        """Work on the run; returns why it stopped early, if it did."""
        outbox = self._outbox or self._new_outbox()
        report_progress = ProgressReporter(in_background(progress_artifact(run.checked.settings.output)))
        return Loop(run, self._start, outbox, report_progress).work()

    def _new_outbox(self) -> Outbox:
        allowed = ensure_limits(self._provider, self._checked.terms.limits)
        return Outbox(Permits(asking(self._provider), allowed.permits), allowed.lanes)

    def __enter__(self) -> PrefectWork:
        return self

    def __exit__(self, *_: object) -> None:
        if self._outbox is not None:
            self._outbox.close()
        for started in self._begun:
            started.wait()


if __name__ == "__main__":
    sys.exit(0 if enrich(**orjson.loads(sys.argv[1]), return_state=True).is_completed() else 1)
