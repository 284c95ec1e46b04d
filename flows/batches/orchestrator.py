"""The port to whoever starts the work: Prefect in a flow run, plain threads elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, Self

from flows.report.figures import Figures
from flows.report.progress import Watcher

MAX_LANES = 2  # submissions at once in a process; more would only wait for the interpreter
MAX_PERMITS = 8  # that are asked for at once
COLLECTORS = 2  # batches whose answers are read at once in this process, where there are no collector processes


class Allowance(NamedTuple):
    """What the limits that all runs share let this run do."""

    lanes: int  # submissions at once
    permits: int  # that may be asked for together; a larger number would be refused, not waited for


class Orchestrator(Protocol):
    """Starts work, holds it to shared limits, and shows how it goes."""

    watchers: Sequence[Watcher]  # told of progress while batches are under way

    def allowance(self) -> Allowance:
        """Called once, before the first submission. Raises UsageError where nothing may be submitted."""
        ...

    def wait_for_permits(self, count: int) -> None:
        """Block until this many submissions may be made."""
        ...

    def start(self, name: str, work: Callable[[int], Any], number: int) -> Future[Any]:
        """Start `work(number)`. The future fails where the work failed, or could not be started at all."""
        ...

    def show_report(self, figures: Figures) -> None:
        """Show what a run that ended did."""
        ...


class Threads:
    """Plain threads without limits: for cancelling, which submits nothing, and wherever Prefect is not wanted."""

    watchers: Sequence[Watcher] = ()

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(MAX_LANES + COLLECTORS)

    def allowance(self) -> Allowance:
        """As many lanes as are of use."""
        return Allowance(MAX_LANES, MAX_PERMITS)

    def wait_for_permits(self, count: int) -> None:
        """Nothing is limited."""

    def start(self, name: str, work: Callable[[int], Any], number: int) -> Future[Any]:  # noqa: ARG002  # threads have no names
        """Start the work on a thread."""
        return self._pool.submit(work, number)

    def show_report(self, figures: Figures) -> None:
        """The report's files are enough."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
