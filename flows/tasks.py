"""The Prefect face of the work: each function as a task. No Prefect retries and no caching: the ledger decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Failed

from blocks.errors import BatchwerkError
from flows.collect import collect_batch
from flows.limits import tag_for
from flows.submit import submit_batches


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


def starter(provider: str) -> Callable[..., PrefectFuture[Any]]:
    """Starts a function as its Prefect task; submissions run under the provider's tag and so under its limit."""

    def start(function: Callable[..., Any], *arguments: Any) -> PrefectFuture[Any]:
        chosen = TASKS[function]
        if function is submit_batches:
            chosen = chosen.with_options(tags=[tag_for(provider)])
        return chosen.submit(*arguments)

    return start
