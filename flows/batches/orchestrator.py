"""The port to what starts the work: Prefect in a flow run, plain threads elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, Self

from flows.report.figures import Figures
from flows.report.progress import Watcher

MAX_LANES = 2  # concurrent submissions in a process; more would only wait for the interpreter
MAX_PERMITS = 8  # permits requested at once
COLLECTORS = 2  # batches read concurrently in this process, if there are no collector processes


class Allowance(NamedTuple):
    """What the limits shared by all runs allow this run."""

    lanes: int  # concurrent submissions
    permits: int  # per request; a larger number would be refused instead of waited for


class Orchestrator(Protocol):
    """Starts work under shared limits, and shows progress."""

    watchers: Sequence[Watcher]  # receive progress while batches are under way

    def allowance(self) -> Allowance:
        """Called once, before the first submission. Raises UsageError if no submissions are allowed."""
        ...

    def wait_for_permits(self, count: int) -> None:
        """Block until this many submissions may be made."""
        ...

    def start(self, name: str, work: Callable[[int], Any], number: int) -> Future[Any]:
        """Start `work(number)`. The future fails if the work fails or can't be started."""
        ...

    def show_report(self, figures: Figures) -> None:
        """Show the figures of a finished run."""
        ...


class Threads:
    """Plain threads without limits: for cancelling, which submits nothing, and for use without Prefect."""

    watchers: Sequence[Watcher] = ()

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(MAX_LANES + COLLECTORS)

    def allowance(self) -> Allowance:
        """As many lanes as are useful."""
        return Allowance(MAX_LANES, MAX_PERMITS)

    def wait_for_permits(self, count: int) -> None:
        """Return at once: nothing is limited."""

    def start(self, name: str, work: Callable[[int], Any], number: int) -> Future[Any]:  # noqa: ARG002  # threads have no names
        """Start the work on a thread."""
        return self._pool.submit(work, number)

    def show_report(self, figures: Figures) -> None:
        """Do nothing: the report's files are enough."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
