"""The port to what starts the work: Prefect in a flow run, plain threads elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol, Self

from blocks.errors import StateError
from flows.report.figures import Figures
from flows.report.progress import Watcher
from flows.report.waits import Waits

MAX_LANES = 2  # concurrent submissions in a process; more would only wait for the interpreter
MAX_PERMITS = 8  # permits requested at once
COLLECTORS = 2  # batches read concurrently in this process, if there are no collector processes


class Allowance(NamedTuple):
    """What the limits shared by all runs allow this run."""

    lanes: int  # concurrent submissions
    permits: int  # per request; a larger number would be refused instead of waited for


class Slot:
    """A slot of the limit on submissions at once, held by a lane."""

    def __init__(self) -> None:
        self.lost = threading.Event()  # its lease ran out: give it back and take another one


class NotStarted(StateError):
    """A task could not be started now, for a reason that passes: start it again later."""


class Orchestrator(Protocol):
    """Starts work under shared limits, and shows progress."""

    watchers: Sequence[Watcher]  # receive progress while batches are under way
    waits: Waits  # what a lane waits for

    @property
    def stop_reason(self) -> str:
        """Why this run has to stop, because somebody cancelled or suspended it; else empty."""
        ...

    def allowance(self, halt: threading.Event) -> Allowance | None:
        """What may be used, asked before the first submission; None once `halt` is set.

        Raises UsageError if no submissions are allowed.
        """
        ...

    def wait_for_permits(self, count: int, halt: threading.Event) -> bool:
        """Block until this many submissions may be made; False once `halt` is set."""
        ...

    def slot(self, halt: threading.Event) -> AbstractContextManager[Slot | None]:
        """Within a lane: a slot that is shared by all runs, waited for; None once `halt` is set."""
        ...

    def start(self, name: str, work: Callable[[int], Any], number: int) -> Future[Any]:
        """Start `work(number)`. The future fails if the work fails, or with NotStarted."""
        ...

    def show_report(self, figures: Figures) -> None:
        """Show the figures of a finished run."""
        ...


class Threads:
    """Plain threads without limits: for cancelling, which submits nothing, and for use without Prefect."""

    watchers: Sequence[Watcher] = ()
    stop_reason = ""

    def __init__(self) -> None:
        self.waits = Waits()
        self._pool = ThreadPoolExecutor(MAX_LANES + COLLECTORS)

    def allowance(self, halt: threading.Event) -> Allowance | None:  # noqa: ARG002  # nothing is waited for
        """As many lanes as are useful."""
        return Allowance(MAX_LANES, MAX_PERMITS)

    def wait_for_permits(self, count: int, halt: threading.Event) -> bool:  # noqa: ARG002
        """Nothing is limited."""
        return True

    def slot(self, halt: threading.Event) -> AbstractContextManager[Slot | None]:  # noqa: ARG002
        """Always free."""
        return nullcontext(Slot())

    def start(self, name: str, work: Callable[[int], Any], number: int) -> Future[Any]:  # noqa: ARG002  # threads have no names
        """Start the work on a thread."""
        return self._pool.submit(work, number)

    def show_report(self, figures: Figures) -> None:
        """Do nothing: the report's files are enough."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
