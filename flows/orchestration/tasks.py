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
from prefect.futures import PrefectFuture
from prefect.states import Failed

from blocks.errors import BatchwerkError, StateError


def start_task(name: str, work: Callable[[int], Any], number: int, tags: list[str]) -> Future[Any]:
    """Start `work(number)` as a task; the future has its result, or the error that made it fail or not start."""

    def task(number: int) -> Any | State:
        try:
            return work(number)
        except BatchwerkError as error:
            return Failed(message=error.message)  # a sentence; tracebacks are for unexpected errors

    started = Task(task, name=name, tags=tags, cache_policy=NO_CACHE, persist_result=False, retries=0).submit(number)
    ended: Future[Any] = Future()
    started.add_done_callback(lambda done: _settle(ended, done))
    return ended


def _settle(ended: Future[Any], done: PrefectFuture[Any]) -> None:
    try:
        done.wait()  # the thread's own state; asking the future would call Prefect's server
    except Exception as error:  # noqa: BLE001  # anything that kept Prefect from running it
        ended.set_exception(StateError(f"{type(error).__name__}: {error}"))
        return
    state = done.state
    if state.is_failed() or state.is_crashed():
        ended.set_exception(StateError(f"{state.name}: {state.message}"))
    else:
        ended.set_result(None)


def _without_empty_traceback(record: logging.LogRecord) -> bool:
    """Prefect asks for the traceback of each failed task; without an exception it would be `None`."""
    if record.exc_info == (None, None, None):
        record.exc_info = None
    return True


logging.getLogger("prefect.task_runs").addFilter(_without_empty_traceback)
