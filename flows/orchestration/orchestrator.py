"""Prefect as the loop sees it: tasks, shared limits, artifacts, and whether the flow run may go on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Self
from uuid import UUID

from prefect.context import FlowRunContext, TaskRunContext

from flows.batches.orchestrator import Allowance, Slot
from flows.orchestration.artifacts import progress_watcher, publish_artifacts
from flows.orchestration.flow_run import FlowRunWatch
from flows.orchestration.limits import ensure_limits, slots_of, tag_for, wait_for_permits
from flows.orchestration.server import CallFailed, PrefectServer, ServerAway
from flows.orchestration.slots import Slots
from flows.orchestration.tasks import start_task
from flows.preflight import RunConfig
from flows.report.figures import Figures
from flows.report.progress import Watcher
from flows.report.waits import Waits

log = logging.getLogger("batchwerk")


class PrefectOrchestrator:
    """Works within a flow run."""

    def __init__(self, config: RunConfig, display: Watcher) -> None:
        self._limits_name = config.spec.connection.limits_name
        self._limits = config.spec.limits
        self.waits = Waits()
        self._server = PrefectServer(self.waits)
        self._slots = Slots(self._server, self.waits, slots_of(self._limits_name))
        self.flow_run = FlowRunWatch(self._server, FlowRunContext.get())
        self.watchers: Sequence[Watcher] = [
            display,
            progress_watcher(self._server, config.settings.output, self.flow_run.id),
        ]

    @property
    def stop_reason(self) -> str:
        """Why this process must not go on: its flow run is no longer running, or runs elsewhere."""
        return self.flow_run.stop_reason

    def allowance(self, halt: threading.Event) -> Allowance | None:
        """Prefect's limits, created if they do not exist."""
        try:
            return self._server.insist(lambda client: ensure_limits(client, self._limits_name, self._limits), halt)
        except ServerAway:
            return None

    def wait_for_permits(self, count: int, halt: threading.Event) -> bool:
        """Block until the rate limit allows this many submissions."""
        return wait_for_permits(self._server, self.waits, tag_for(self._limits_name), count, halt)

    @contextmanager
    def slot(self, halt: threading.Event) -> Iterator[Slot | None]:
        """A slot of the provider's limit; its holder, for Prefect, is the task run, which gets the tag."""
        context = TaskRunContext.get()
        assert context is not None  # noqa: S101  # lanes are tasks
        tag = tag_for(self._limits_name)
        with self._slots.slot(context.task_run.id, halt) as slot:
            if slot is not None and tag not in context.task_run.tags:
                context.task_run.tags.append(tag)
            yield slot

    def start(self, name: str, work: Callable[[int], Any], number: int) -> Future[Any]:
        """Start a task."""
        return start_task(name, work, number)

    def show_report(self, figures: Figures) -> None:
        """Show the figures as artifacts; the same is in the report's files."""
        try:
            publish_artifacts(self._server, figures, self.flow_run.id)
        except CallFailed as error:
            log.warning("the report can't be shown in Prefect: %s", error)

    def __enter__(self) -> Self:
        self._server.__enter__()
        self.flow_run.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.flow_run.stop()
        self._server.__exit__(*error)


def show_cancelled(figures: Figures, flow_run: UUID) -> None:
    """Show what cancelling left, in place of the report of the run that was cancelled."""
    with PrefectServer(Waits()) as server:
        try:
            publish_artifacts(server, figures, flow_run)
        except CallFailed as error:
            log.warning("the report can't be shown in Prefect: %s", error)
