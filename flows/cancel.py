"""Cancelling an output: stop its batches at their providers, collect finished answers, publish.

The state directory is enough to stop and to collect. Publishing needs the input, the settings and an output that nobody
else changed; without them the next run publishes.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

from blocks.errors import BatchwerkError, StateError, UsageError
from blocks.retries import resting
from flows.batches.collect import restore_results
from flows.batches.stop import Say, Stopping
from flows.engine.clients import open_clients
from flows.engine.logs import log_progress
from flows.engine.opening import current_plan, last_known_plan, open_run
from flows.engine.recorder import Recorder, open_to_cancel
from flows.engine.run import Session
from flows.engine.stopping import StopSwitch, catching_signals
from flows.engine.translating import readable_errors
from flows.pipeline import publish_and_report
from flows.preflight import last_config
from flows.report.figures import Figures
from flows.report.forecast import estimate_run
from flows.report.verdict import Ending
from flows.storage.roots import check_inside
from flows.storage.state import StateDirectory

log = logging.getLogger("batchwerk")

WAIT = 900.0  # seconds; OpenAI takes up to ten minutes to cancel a batch (docs/wire-protocols.md §3.4)
USUAL_ATTEMPTS = 3  # of a request, where the settings can't be read


@dataclass(frozen=True)
class Cancelled:
    """What cancelling left."""

    left: dict[int, str] = field(default_factory=dict)  # batches that may still run, and why
    figures: Figures | None = None  # of the published output
    unpublished: str = ""  # why it was not published

    @property
    def exit(self) -> int:
        """The exit status: 1 if a batch may still run."""
        return int(bool(self.left))


def cancel_output(output: Path, *, moved: bool = False, wait: float = WAIT, say: Say = log.info) -> Cancelled:
    """Cancel the output's batches at their providers, wait for their ends, collect and publish. Never sends anything.

    `moved`: the user says that this copy of the state directory is the one to go on with. Raises UsageError or
    StateError where nothing could be begun; what goes wrong with one batch is told and stops no other.
    """
    check_inside([output])
    state, started = StateDirectory(output), time.monotonic()
    log_progress()
    with readable_errors(state), open_to_cancel(state, moved=moved) as recorder:
        left = _stopped(state, recorder, wait, say)
        try:
            return Cancelled(left, _published(output, recorder, left, started))
        except (BatchwerkError, OSError) as error:
            return Cancelled(left, unpublished=str(error))


def _stopped(state: StateDirectory, recorder: Recorder, wait: float, say: Say) -> dict[int, str]:
    switch = StopSwitch()
    with open_clients(state, None) as clients, catching_signals(switch), resting(switch.rest):
        session = Session(
            state=state, recorder=recorder, clients=clients, switch=switch, max_attempts=_max_attempts(state)
        )
        return Stopping(session, say).stop(wait)


def _max_attempts(state: StateDirectory) -> int:
    try:
        return int(state.last_settings()["max_attempts"])
    except (StateError, KeyError, TypeError, ValueError):
        return USUAL_ATTEMPTS


def _published(output: Path, recorder: Recorder, left: dict[int, str], started: float) -> Figures:
    """Raises BatchwerkError if the output can't be written as it is: what was collected is kept."""
    config = last_config(output, wait=0, retry_failed=False, on_unknown="fail", abandon_after=None)
    plan = current_plan(config, recorder)
    known = plan or last_known_plan(config, recorder)
    if known is None:
        raise UsageError("nothing was planned for it yet")
    with open_run(config, recorder, known) as run:
        restore_results(run)
        forecast = estimate_run(run)
        ending = Ending("cancelled", unresolved=left)
        return publish_and_report(run, ending, forecast, started, removes=False, publishes=plan is not None)
