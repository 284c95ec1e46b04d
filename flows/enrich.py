"""The flow as Prefect sees it: parameters for the form, tasks under its limits, artifacts, named final states.

python -m flows.enrich '{"input": "data/reviews.parquet", "output": "out/reviews.parquet", …}'
"""

from __future__ import annotations

import logging
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

from blocks.errors import BatchwerkError, Busy, StateError
from flows.batches.orchestrator import COLLECTORS, MAX_LANES, Orchestrator
from flows.cancel import cancel_output
from flows.harvest import harvest_output
from flows.orchestration.orchestrator import PrefectOrchestrator, show_cancelled
from flows.orchestration.server import is_away, unreachable
from flows.pipeline import run_pipeline
from flows.preflight import RunConfig, check, harvest_config
from flows.report.figures import Figures
from flows.report.progress import Watcher, log_watcher
from flows.report.verdict import Exit
from flows.settings import read_settings, settings_docstring, settings_signature

log = logging.getLogger("batchwerk")

LOCK_TRIES = 60  # seconds
STATE_NAMES = {Exit.ROWS_FAILED: "RowsFailed", Exit.WAITING: "Waiting", Exit.BUDGET: "BudgetReached"}

ServersState = State[Any] | None  # that somebody gave the flow run meanwhile; None: it is still running
Body = Callable[[Mapping[str, Any]], tuple[Figures, ServersState]]  # takes the flow's parameters


def cancel_at_provider(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001  # Prefect's names
    """When the flow run is cancelled: cancel its batches, collect finished answers, publish and report."""
    output = Path(str(flow_run.parameters["output"]))
    for _ in range(LOCK_TRIES):  # the cancelled process may need a moment to release the output
        try:
            cancelled = cancel_output(output)
        except StateError:
            time.sleep(1.0)
        else:
            for why in cancelled.left.values():
                log.warning("%s", why)
            if cancelled.figures is not None:
                show_cancelled(cancelled.figures, flow_run.id)
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
        return _final_state(figures, ended_elsewhere)

    # Prefect reads the form and the entry point from these.
    enrich.__signature__ = settings_signature()  # type: ignore[attr-defined]
    enrich.__doc__ = settings_docstring("Enrich a Parquet file. The result contains the figures of the report.")
    enrich.__qualname__ = "enrich"
    about = "Adds columns to a Parquet file that a language model fills, through its provider's batch API."
    return _as_flow(enrich, about, on_cancellation=[cancel_at_provider])


def harvest_flow(body: Callable[[Path, float], tuple[Figures, ServersState]]) -> Flow[..., State[Any]]:
    """The flow `harvest` around `body`."""

    def harvest(output: str, wait: float = 0.0) -> State[Any]:
        """Collect what earlier runs of an output left with its provider.

        Args:
            output: The output that was given to `enrich`; its last run's parameters apply, whatever they were.
            wait: Seconds to wait for batches that have not ended.
        """
        try:
            figures, ended_elsewhere = body(Path(output), wait)
        except Busy as error:  # whoever holds it collects
            return Completed(name="Busy", message=f"nothing to do here: {error.message}")
        except BatchwerkError as error:
            return Failed(message=str(error))
        return _final_state(figures, ended_elsewhere)

    harvest.__qualname__ = "harvest"
    about = "Collects the batches that earlier runs of an output stopped waiting for; plans nothing new."
    return _as_flow(harvest, about)


def _as_flow(function: Callable[..., State[Any]], description: str, **hooks: Any) -> Flow[..., State[Any]]:
    """What both flows have in common for Prefect."""
    return flow(
        name=function.__qualname__,
        description=description,
        flow_run_name="{output}",
        task_runner=ThreadPoolTaskRunner(max_workers=MAX_LANES + COLLECTORS + 1),  # type: ignore[arg-type]  # Prefect's own default
        validate_parameters=True,
        persist_result=False,
        **hooks,
    )(function)


def harvest_as_flow(output: Path, wait: float, display: Watcher) -> Figures:
    """Harvest in this process. Raises the error that it failed with, Busy included."""
    work = _FlowWork(lambda: _harvest(output, wait, display))
    return work.outcome_of(lambda: harvest_flow(lambda *_: work.do())(str(output), wait, return_state=True))


def run_as_flow(config: RunConfig, display: Watcher) -> Figures:
    """Run the flow in this process with a checked configuration. Raises the error that the run failed with."""
    work = _FlowWork(lambda: _run(config, display, run_pipeline))
    parameters = config.settings.model_dump(mode="json")
    return work.outcome_of(lambda: enrich_flow(lambda _: work.do())(**parameters, return_state=True))


class _FlowWork:
    """The work of a flow in this process. Keeps its figures, or its error, whatever Prefect makes of them."""

    def __init__(self, work: Callable[[], tuple[Figures, ServersState]]) -> None:
        self._work = work
        self._outcome: Figures | BatchwerkError | None = None

    def do(self) -> tuple[Figures, ServersState]:
        """For the flow's body."""
        try:
            self._outcome, state = self._work()
        except BatchwerkError as error:
            self._outcome = error
            raise
        return self._outcome, state

    def outcome_of(self, flow_run: Callable[[], State[Any]]) -> Figures:
        """The figures of a flow run. Raises the error that it failed with."""
        problem: object = None
        try:
            problem = flow_run().message
        except PrefectSignal:
            pass  # the flow run was ended elsewhere, and this process stopped
        except Exception as error:
            if self._outcome is None and not is_away(error):
                raise
            problem = error
        return _result(self._outcome, problem)


def _result(outcome: Figures | BatchwerkError | None, problem: object) -> Figures:
    if isinstance(outcome, BatchwerkError):
        raise outcome
    if outcome is not None:
        return outcome
    if isinstance(problem, Exception):
        raise unreachable(problem)
    raise BatchwerkError(
        f"the run ended with an unexpected error: {problem}",
        next_step="run the same command again to continue; the log above has the details",
    )


def _check_and_run(parameters: Mapping[str, Any]) -> tuple[Figures, ServersState]:
    return _run(check(read_settings(parameters)), log_watcher(), run_pipeline)


def _harvest(output: Path, wait: float, display: Watcher) -> tuple[Figures, ServersState]:
    return _run(harvest_config(output, wait), display, harvest_output)


def _run(
    config: RunConfig, display: Watcher, pipeline: Callable[[RunConfig, Orchestrator], Figures]
) -> tuple[Figures, ServersState]:
    """A pipeline within a flow run; if that was cancelled meanwhile, its batches are too."""
    with PrefectOrchestrator(config, display) as orchestrator:
        try:
            figures = orchestrator.flow_run.taking_over(lambda: pipeline(config, orchestrator))
        finally:
            state = orchestrator.flow_run.settle()
        if state is not None and (state.is_cancelling() or state.is_cancelled()):
            figures = cancel_output(config.settings.output).figures or figures
            orchestrator.show_report(figures)
        return figures, state


def _final_state(figures: Figures, ended_elsewhere: ServersState) -> State[Any]:
    if ended_elsewhere is not None:
        return _as_ended_elsewhere(ended_elsewhere)
    name = STATE_NAMES.get(figures.exit, "Completed")
    return Completed(name=name, message=figures.message or None, data=figures)


def _as_ended_elsewhere(state: State[Any]) -> State[Any]:
    """End this process as the flow run was ended in Prefect. Raises Prefect's signals, which leave its state alone."""
    if state.is_cancelling() or state.is_cancelled():
        return Cancelled(message="cancelled in Prefect; its batches were cancelled at the provider")
    if state.is_paused():
        raise Pause("suspended in Prefect", state=state)
    raise Abort(f"the flow run became {state.name} in Prefect while it was running")


enrich = enrich_flow(_check_and_run)
harvest = harvest_flow(lambda output, wait: _harvest(output, wait, log_watcher()))


if __name__ == "__main__":
    sys.exit(0 if enrich(**orjson.loads(sys.argv[1]), return_state=True).is_completed() else 1)
