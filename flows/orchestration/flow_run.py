"""Whether the flow run may go on: somebody may have cancelled, suspended or retried it meanwhile.

Prefect itself acts on a suspension when the next task starts, and on a cancellation only where a worker watches the
process; a run that the UI shows as ended must not go on sending.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound

from blocks.errors import Busy
from flows.orchestration.server import CallFailed, PrefectServer

LOOK_EVERY = 10.0  # seconds
END_WAITS = 600.0  # seconds that a run waits in the end for a server that is away
TOLD_AFTER = 5.0
HANDOVER, TRY_EVERY = 600.0, 5.0  # seconds that a process waits for the one before it

T = TypeVar("T")

log = logging.getLogger("batchwerk")


class FlowRunWatch:
    """Looks at the state of the flow run that this process works for."""

    def __init__(self, server: PrefectServer, context: FlowRunContext | None) -> None:
        flow_run = context.flow_run if context else None
        self.id: UUID | None = flow_run.id if flow_run else None
        self.state: State[Any] | None = None  # what it is instead of running in this process
        self.stop_reason = ""
        self._began_in: UUID | None = None  # the state in which this process works; another start has another one
        self._server = server
        self._ended = threading.Event()

    def start(self) -> None:
        """Look at it until the end."""
        if self.id is not None:
            threading.Thread(target=self._watch, daemon=True, name="flow run").start()

    def stop(self) -> None:
        """Look no longer."""
        self._ended.set()

    def look(self) -> None:
        """See whether it is still running, here; an absent server is no reason to stop."""
        flow_run_id = self.id
        if flow_run_id is None or self.stop_reason:
            return
        try:
            self._note(self._server.ask(lambda client: client.read_flow_run(flow_run_id)))
        except ObjectNotFound:
            self.stop_reason = "its flow run was deleted in Prefect"
        except CallFailed:
            return

    def settle(self) -> State[Any] | None:
        """The last look, for which an absent server is waited for: the flow's end is to be told to it.

        Returns the state that somebody gave the flow run meanwhile; None if it is still ours to end.
        """
        flow_run_id, never = self.id, threading.Event()
        if flow_run_id is None or self.stop_reason:
            return self.state
        try:
            with told_if_long():
                self._note(self._server.insist(lambda client: client.read_flow_run(flow_run_id), never, END_WAITS))
        except ObjectNotFound:
            self.stop_reason = "its flow run was deleted in Prefect"
        except CallFailed as error:
            log.warning("Prefect's server is not told how the run ended: %s", error)
        return self.state

    def taking_over(self, work: Callable[[], T]) -> T:
        """Do the work; after Resume or Retry, once the process before this one has let go of the output.

        Raises Busy for an output that another flow run works on.
        """
        tried_until = time.monotonic() + HANDOVER
        while True:
            try:
                return work()
            except Busy as error:
                self.look()
                if not self._was_started_before() or self.stop_reason or time.monotonic() > tried_until:
                    raise
                log.warning("waiting for the process in which this flow run was started before: %s", error.message)
            self._ended.wait(TRY_EVERY)

    def _was_started_before(self) -> bool:
        """Prefect does not count the start after a suspension, but keeps all states."""
        flow_run_id = self.id
        if flow_run_id is None:
            return False
        try:
            states = self._server.ask(lambda client: client.read_flow_run_states(flow_run_id))
        except (CallFailed, ObjectNotFound):
            return False
        return sum(state.is_running() for state in states) > 1

    def _note(self, found: FlowRun) -> None:
        if found.state is not None and not found.state.is_running():
            self.state = found.state
            self.stop_reason = f"its flow run is {found.state.name} in Prefect"
        elif self._began_in is None:
            self._began_in = found.state_id
        elif self._began_in != found.state_id:
            self.state = found.state  # whose end is told by that process
            self.stop_reason = "its flow run was started again in Prefect, in another process"

    def _watch(self) -> None:
        self.look()
        while not self._ended.wait(LOOK_EVERY):
            self.look()


@contextmanager
def told_if_long() -> Iterator[None]:
    """Say once that the end of the run waits for the server."""
    text = "all work is done; waiting for Prefect's server, up to %.0f minutes, to tell it how the run ended"
    timer = threading.Timer(TOLD_AFTER, log.warning, (text, END_WAITS / 60))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
