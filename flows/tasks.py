"""The Prefect face of the work: each function as a task. No Prefect retries and no caching: the ledger decides."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Failed
from prefect.utilities.annotations import opaque

from blocks.errors import BatchwerkError
from flows.collect import collect_batch
from flows.limits import tag_for
from flows.submit import submit_batches


def _without_empty_traceback(record: logging.LogRecord) -> bool:
    """Prefect asks for the traceback of each task that failed; where there was no exception it would be `None`."""
    if record.exc_info == (None, None, None):
        record.exc_info = None
    return True


logging.getLogger("prefect.task_runs").addFilter(_without_empty_traceback)


def _as_task(function: Callable[..., Any], name: str) -> Task[..., Any]:
    """A task whose state says in a sentence what went wrong; a traceback is left to what nobody expected."""

    def body(*arguments: Any) -> Any | State:
        try:
            return function(*arguments)
        except BatchwerkError as error:
            return Failed(message=error.message)

    body.__doc__ = function.__doc__
    return Task(body, name=name, cache_policy=NO_CACHE, persist_result=False, retries=0)


TASKS = {
    submit_batches: _as_task(submit_batches, "submit batches"),
    collect_batch: _as_task(collect_batch, "collect batch"),
}


class _Submitted:
    """A task run as the loop sees it."""

    def __init__(self, future: PrefectFuture[Any]) -> None:
        self._future = future
        self._ended = Event()
        future.add_done_callback(lambda _: self._ended.set())

    def wait(self) -> None:
        """Until it has ended, well or not."""
        self._future.wait()

    def done(self) -> bool:
        """Whether it has ended. The future's own state would be asked for at Prefect's server, each time."""
        return self._ended.is_set()

    def trouble(self) -> str:
        """Why it ended badly; empty where it did not."""
        try:
            self._future.wait()  # has the state from the thread that worked, not from the server
        except Exception as error:  # noqa: BLE001  # whatever kept Prefect from running it
            return f"{type(error).__name__}: {error}"
        state = self._future.state
        return f"{state.name}: {state.message}" if state.is_failed() or state.is_crashed() else ""


def starter(provider: str) -> Callable[..., _Submitted]:
    """Starts a function as its Prefect task; submissions run under the provider's tag and so under its limit."""

    def start(function: Callable[..., Any], *arguments: Any) -> _Submitted:
        chosen = TASKS[function]
        if function is submit_batches:
            chosen = chosen.with_options(tags=[tag_for(provider)])
        # Prefect looks into arguments for futures, and puts what it found together again: of a run that other threads
        # work on it would make a broken copy, or fail over a dict that changes meanwhile.
        return _Submitted(chosen.submit(*map(opaque, arguments)))

    return start
