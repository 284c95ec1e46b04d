"""What the loop sees of a task: whether it has ended is known here, and nobody is asked."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Completed, Crashed

from flows.orchestration.tasks import settle


class PrefectsFuture:
    """Prefect's: until it was waited for, its state is asked for at the server."""

    def __init__(self, outcome: State[Any] | Exception) -> None:
        self._outcome = outcome
        self._waited = False

    def wait(self) -> None:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        self._waited = True

    @property
    def state(self) -> State[Any]:
        assert self._waited, "the server would be asked"
        assert isinstance(self._outcome, State)
        return self._outcome


@pytest.mark.parametrize(
    ("outcome", "failure"),
    [
        (Completed(), None),
        (Crashed(message="no room"), "Crashed: no room"),
        (RuntimeError("can't start new thread"), "RuntimeError: can't start new thread"),
    ],
)
def test_nobody_is_asked_whether_a_task_has_ended(outcome: State[Any] | Exception, failure: str | None) -> None:
    """It is known in the process: the future ends as the task did, without a call to Prefect's server."""
    ended: Future[Any] = Future()
    settle(ended, PrefectsFuture(outcome), [])  # type: ignore[arg-type]  # as much of it as is used
    error = ended.exception(timeout=0)
    assert (None if error is None else str(error)) == failure
