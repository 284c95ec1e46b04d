"""Prefect as the loop sees it: tasks, shared limits, artifacts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from flows.batches.orchestrator import Allowance
from flows.orchestration.artifacts import progress_watcher, publish_artifacts
from flows.orchestration.limits import ensure_limits, tag_for, wait_for_permits
from flows.orchestration.tasks import start_task
from flows.preflight import RunConfig
from flows.report.figures import Figures
from flows.report.progress import Watcher


class PrefectOrchestrator:
    """Works within a flow run."""

    def __init__(self, config: RunConfig, display: Watcher) -> None:
        self._limits_name = config.spec.connection.limits_name
        self._limits = config.spec.limits
        self.watchers: Sequence[Watcher] = [display, progress_watcher(config.settings.output)]

    def allowance(self) -> Allowance:
        """Prefect's limits, created if they do not exist."""
        return ensure_limits(self._limits_name, self._limits)

    def wait_for_permits(self, count: int) -> None:
        """Block until the rate limit allows this many submissions."""
        wait_for_permits(self._limits_name, count)

    def start(self, name: str, work: Callable[[int], Any], number: int) -> Future[Any]:
        """Start a task; submissions run under the provider's tag and so under its limit."""
        tags = [tag_for(self._limits_name)] if name == "submit batches" else []
        return start_task(name, work, number, tags)

    def show_report(self, figures: Figures) -> None:
        """Show the figures as artifacts."""
        publish_artifacts(figures)
