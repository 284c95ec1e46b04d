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

from blocks.errors import BatchwerkError, Busy, StateError
from flows.batches.orchestrator import COLLECTORS, MAX_LANES
from flows.cancel import cancel_output
from flows.orchestration.orchestrator import PrefectOrchestrator
from flows.pipeline import harvest_output, run_pipeline
from flows.preflight import RunConfig, check, harvest_config
from flows.report.figures import Figures
from flows.report.progress import Watcher, log_watcher
from flows.report.verdict import Exit
from flows.settings import read_settings, settings_docstring, settings_signature

LOCK_TRIES = 60  # seconds
STATE_NAMES = {Exit.ROWS_FAILED: "RowsFailed", Exit.WAITING: "Waiting"}

Body = Callable[[Mapping[str, Any]], Figures]  # takes the flow's parameters


def cancel_at_provider(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001  # Prefect's names
    """When the flow run is cancelled: cancel its batches, collect finished answers and publish."""
    output = Path(str(flow_run.parameters["output"]))
    for _ in range(LOCK_TRIES):  # the cancelled process may need a moment to release the output
        try:
            cancel_output(output)
        except StateError:
            time.sleep(1.0)
        else:
            return


def enrich_flow(body: Body) -> Flow[..., State[Any]]:
    """The flow `enrich` around `body`.

    An error that a user can act on becomes the message of a failed state; Prefect would log the traceback of an
    exception.
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


def harvest_flow(body: Callable[[Path, float], Figures]) -> Flow[..., State[Any]]:
    """The flow `harvest` around `body`."""

    def harvest(output: str, wait: float = 0.0) -> State[Any]:
        """Collect what earlier runs of an output left with its provider.

        Args:
            output: The output that was given to `enrich`; its last run's parameters apply, whatever they were.
            wait: Seconds to wait for batches that have not ended.
        """
        try:
            figures = body(Path(output), wait)
        except Busy as error:  # whoever holds it collects
            return Completed(name="Busy", message=f"nothing to do here: {error.message}")
        except BatchwerkError as error:
            return Failed(message=str(error))
        name = STATE_NAMES.get(figures.exit, "Completed")
        return Completed(name=name, message=figures.message or None, data=figures)

    harvest.__qualname__ = "harvest"
    return flow(
        name="harvest",
        description="Collects the batches that earlier runs of an output stopped waiting for; plans nothing new.",
        flow_run_name="{output}",
        task_runner=ThreadPoolTaskRunner(max_workers=MAX_LANES + COLLECTORS + 1),  # type: ignore[arg-type]  # Prefect's own default
        validate_parameters=True,
        persist_result=False,
    )(harvest)


def harvest_as_flow(output: Path, wait: float, display: Watcher) -> Figures:
    """Harvest in this process. Raises the error that it failed with, Busy included."""
    outcome: Figures | BatchwerkError | None = None

    def body(output: Path, wait: float) -> Figures:
        nonlocal outcome
        try:
            outcome = _harvest(output, wait, display)
        except BatchwerkError as error:
            outcome = error
            raise
        return outcome

    state = harvest_flow(body)(str(output), wait, return_state=True)
    return _outcome_of(outcome, state)


def _harvest(output: Path, wait: float, display: Watcher) -> Figures:
    config = harvest_config(output, wait)
    return harvest_output(config, PrefectOrchestrator(config, display))


def run_as_flow(config: RunConfig, display: Watcher) -> Figures:
    """Run the flow in this process with a checked configuration. Raises the error that the run failed with."""
    outcome: Figures | BatchwerkError | None = None

    def body(_: Mapping[str, Any]) -> Figures:
        nonlocal outcome
        try:
            outcome = run_pipeline(config, PrefectOrchestrator(config, display))
        except BatchwerkError as error:
            outcome = error
            raise
        return outcome

    state = enrich_flow(body)(**config.settings.model_dump(mode="json"), return_state=True)
    return _outcome_of(outcome, state)


def _outcome_of(outcome: Figures | BatchwerkError | None, state: State[Any]) -> Figures:
    if isinstance(outcome, BatchwerkError):
        raise outcome
    if outcome is None:
        raise BatchwerkError(
            f"the run ended with an unexpected error: {state.message}",
            next_step="run the same command again to continue; the log above has the details",
        )
    return outcome


def _check_and_run(parameters: Mapping[str, Any]) -> Figures:
    config = check(read_settings(parameters))
    return run_pipeline(config, PrefectOrchestrator(config, log_watcher()))


enrich = enrich_flow(_check_and_run)
harvest = harvest_flow(lambda output, wait: _harvest(output, wait, log_watcher()))


if __name__ == "__main__":
    sys.exit(0 if enrich(**orjson.loads(sys.argv[1]), return_state=True).is_completed() else 1)
