"""Work as Prefect tasks, without Prefect's retries and caching: the ledger decides.

A task takes a plain number. The open run (a lock, a journal, clients) is bound to the function beforehand: Prefect
walks through arguments and rebuilds them, which would break a run that other threads are working on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import FailedRun, PrefectSignal
from prefect.futures import PrefectFuture
from prefect.states import Failed

from blocks.errors import BatchwerkError, StateError
from flows.batches.orchestrator import NotStarted
from flows.orchestration.server import is_away


def start_task(name: str, work: Callable[[int], Any], number: int) -> Future[Any]:
    """Start `work(number)` as a task; the future has its result, or the error that made it fail or not start.

    The task has no tag while it starts: Prefect would take a slot for it, see `flows/orchestration/slots.py`.
    """
    ended: Future[Any] = Future()
    failures: list[BatchwerkError] = []

    def task(number: int) -> Any | State:
        try:
            return work(number)
        except BatchwerkError as error:
            failures.append(error)
            return Failed(message=error.message)  # a sentence; tracebacks are for unexpected errors

    made = Task(task, name=name, cache_policy=NO_CACHE, persist_result=False, retries=0)
    try:
        started = made.submit(number)
    except PrefectSignal as error:  # the flow run was suspended: whether to stop is decided elsewhere
        ended.set_exception(NotStarted(_words(error)))
        return ended
    started.add_done_callback(lambda done: settle(ended, done, failures))
    return ended


def settle(ended: Future[Any], done: PrefectFuture[Any], failures: list[BatchwerkError]) -> None:
    """End our future as Prefect's ended; `failures` has the error that the work itself raised."""
    try:
        done.wait()  # the thread's own state; asking the future would call Prefect's server
    except PrefectSignal as error:
        ended.set_exception(NotStarted(_words(error)))
        return
    except BaseException as error:  # noqa: BLE001  # anything that kept Prefect from running it; somebody waits for this
        away = is_away(error) or is_away(error.__cause__)
        ended.set_exception((NotStarted if away else StateError)(_words(error)))
        return
    state = done.state
    if failures:
        ended.set_exception(failures[0])
    elif state.is_failed() or state.is_crashed():
        ended.set_exception(StateError(f"{state.name}: {state.message}"))
    else:
        ended.set_result(None)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


class _ToldElsewhere(logging.Filter):
    """A task that failed with a sentence of ours is no error to log: the end of the run tells it.

    Prefect logs two: one that asks for a traceback, though there was no exception, and then the state.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: set[object] = set()  # ids of task runs

    def filter(self, record: logging.LogRecord) -> bool:
        task_run = getattr(record, "task_run_id", None)
        if record.exc_info == (None, None, None):
            self._told.add(task_run)
            return False
        if record.levelno == logging.ERROR and task_run in self._told:
            self._told.discard(task_run)
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        return logging.getLogger(record.name).isEnabledFor(record.levelno)


def _without_failed_run(record: logging.LogRecord) -> bool:
    """A flow run that failed with a sentence of ours has it as its message; Prefect would log a traceback besides."""
    return not (record.exc_info and record.exc_info[0] is FailedRun)


logging.getLogger("prefect.task_runs").addFilter(_ToldElsewhere())
logging.getLogger("prefect.flow_runs").addFilter(_without_failed_run)
