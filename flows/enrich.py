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
from prefect.exceptions import Abort, Pause, PrefectSignal
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from blocks.errors import BatchwerkError, StateError
from flows.batches.orchestrator import COLLECTORS, MAX_LANES
from flows.cancel import cancel_output
from flows.orchestration.orchestrator import PrefectOrchestrator, show_cancelled
from flows.orchestration.server import is_away
from flows.pipeline import run_pipeline
from flows.preflight import RunConfig, check
from flows.report.figures import Figures
from flows.report.progress import Watcher, log_watcher
from flows.report.verdict import Exit
from flows.settings import read_settings, settings_docstring, settings_signature

LOCK_TRIES = 60  # seconds
STATE_NAMES = {Exit.ROWS_FAILED: "RowsFailed", Exit.WAITING: "Waiting"}

ServersState = State[Any] | None  # that somebody gave the flow run meanwhile; None: it is still running
Body = Callable[[Mapping[str, Any]], tuple[Figures, ServersState]]  # takes the flow's parameters


def cancel_at_provider(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001  # Prefect's names
    """When the flow run is cancelled: cancel its batches, collect finished answers, publish and report."""
    output = Path(str(flow_run.parameters["output"]))
    for _ in range(LOCK_TRIES):  # the cancelled process may need a moment to release the output
        try:
            figures = cancel_output(output)
        except StateError:
            time.sleep(1.0)
        else:
            show_cancelled(figures, flow_run.id)
            return


def enrich_flow(body: Body) -> Flow[..., State[Any]]:
    """The flow `enrich` around `body`.

    An error that a user can act on becomes the message of a failed state; Prefect would log the traceback of an
    exception.
    """

    def enrich(**parameters: Any) -> State[Any]:
        try:
            figures, ended_elsewhere = body(parameters)
        except BatchwerkError as error:
            return Failed(message=str(error))
        if ended_elsewhere is not None:
            return _as_ended_elsewhere(ended_elsewhere)
        name = STATE_NAMES.get(figures.exit, "Completed")
        return Completed(name=name, message=figures.message or None, data=figures)

    # Prefect reads the form and the entry point from these.
    enrich.__signature__ = settings_signature()  # type: ignore[attr-defined]
    enrich.__doc__ = settings_docstring("Enrich a Parquet file. The result contains the figures of the report.")
    enrich.__qualname__ = "enrich"
    return flow(
        name="enrich",
        description="Adds columns to a Parquet file that a language model fills, through its provider's batch API.",
        flow_run_name="{output}",
        task_runner=ThreadPoolTaskRunner(max_workers=MAX_LANES + COLLECTORS + 1),  # type: ignore[arg-type]  # Prefect's own default
        validate_parameters=True,
        persist_result=False,
        on_cancellation=[cancel_at_provider],
    )(enrich)


def run_as_flow(config: RunConfig, display: Watcher) -> Figures:
    """Run the flow in this process with a checked configuration. Raises the error that the run failed with."""
    outcome: Figures | BatchwerkError | None = None
    problem: object = None

    def body(_: Mapping[str, Any]) -> tuple[Figures, ServersState]:
        nonlocal outcome
        try:
            outcome, state = _run(config, display)
        except BatchwerkError as error:
            outcome = error
            raise
        return outcome, state

    try:
        problem = enrich_flow(body)(**config.settings.model_dump(mode="json"), return_state=True).message
    except PrefectSignal:
        pass  # the flow run was ended elsewhere, and this process stopped
    except Exception as error:
        if outcome is None and not is_away(error):
            raise
        problem = error
    return _result(outcome, problem)


def _result(outcome: Figures | BatchwerkError | None, problem: object) -> Figures:
    if isinstance(outcome, BatchwerkError):
        raise outcome
    if outcome is not None:
        return outcome
    if isinstance(problem, Exception):
        raise StateError(
            f"Prefect's server can't be reached: {str(problem).partition(chr(10))[0]}",
            next_step="start it, for example with `make serve`, or unset PREFECT_API_URL; nothing was sent",
        )
    raise BatchwerkError(
        f"the run ended with an unexpected error: {problem}",
        next_step="run the same command again to continue; the log above has the details",
    )


def _check_and_run(parameters: Mapping[str, Any]) -> tuple[Figures, ServersState]:
    return _run(check(read_settings(parameters)), log_watcher())


def _run(config: RunConfig, display: Watcher) -> tuple[Figures, ServersState]:
    """The pipeline within a flow run; if that was cancelled meanwhile, its batches are too."""
    with PrefectOrchestrator(config, display) as orchestrator:
        try:
            figures = run_pipeline(config, orchestrator)
        finally:
            state = orchestrator.flow_run.settle()
        if state is not None and (state.is_cancelling() or state.is_cancelled()):
            figures = cancel_output(config.settings.output)
            orchestrator.show_report(figures)
        return figures, state


def _as_ended_elsewhere(state: State[Any]) -> State[Any]:
    """End this process as the flow run was ended in Prefect. Raises Prefect's signals, which leave its state alone."""
    if state.is_cancelling() or state.is_cancelled():
        return Cancelled(message="cancelled in Prefect; its batches were cancelled at the provider")
    if state.is_paused():
        raise Pause("suspended in Prefect", state=state)
    raise Abort(f"the flow run became {state.name} in Prefect while it was running")


enrich = enrich_flow(_check_and_run)


if __name__ == "__main__":
    sys.exit(0 if enrich(**orjson.loads(sys.argv[1]), return_state=True).is_completed() else 1)
