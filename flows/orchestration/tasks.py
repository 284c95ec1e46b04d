"""Work as Prefect tasks. No Prefect retries and no caching: the ledger decides.

A task takes a plain number. The open run (a lock, a journal, clients) is bound to the function beforehand: Prefect
walks through arguments and rebuilds what it found, which of a run that other threads work on is a broken copy.
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
    """Start `work(number)` as a task; the future has its value, or fails with why it failed or never began."""

    def task(number: int) -> Any | State:
        try:
            return work(number)
        except BatchwerkError as error:
            return Failed(message=error.message)  # a sentence; tracebacks are for what nobody expected

    started = Task(task, name=name, tags=tags, cache_policy=NO_CACHE, persist_result=False, retries=0).submit(number)
    ended: Future[Any] = Future()
    started.add_done_callback(lambda done: _settle(ended, done))
    return ended


def _settle(ended: Future[Any], done: PrefectFuture[Any]) -> None:
    try:
        done.wait()  # has the state from the thread that worked; asking for it would be a call to Prefect's server
    except Exception as error:  # noqa: BLE001  # whatever kept Prefect from running it
        ended.set_exception(StateError(f"{type(error).__name__}: {error}"))
        return
    state = done.state
    if state.is_failed() or state.is_crashed():
        ended.set_exception(StateError(f"{state.name}: {state.message}"))
    else:
        ended.set_result(None)


def _without_empty_traceback(record: logging.LogRecord) -> bool:
    """Prefect asks for the traceback of each task that failed; where there was no exception it would be `None`."""
    if record.exc_info == (None, None, None):
        record.exc_info = None
    return True


logging.getLogger("prefect.task_runs").addFilter(_without_empty_traceback)
