"""What the loop sees of a task: whether it has ended is known here, and nobody is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Completed, Crashed

from flows.tasks import _Submitted


class Future:
    """Prefect's: until it was waited for, its state is asked for at the server."""

    def __init__(self, outcome: State[Any] | Exception) -> None:
        self._outcome = outcome
        self._waited = False
        self._callbacks: list[Callable[[Future], None]] = []

    def add_done_callback(self, callback: Callable[[Future], None]) -> None:
        self._callbacks.append(callback)

    def end(self) -> None:
        for callback in self._callbacks:
            callback(self)

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
    ("outcome", "trouble"),
    [
        (Completed(), ""),
        (Crashed(message="no room"), "Crashed: no room"),
        (RuntimeError("can't start new thread"), "RuntimeError: can't start new thread"),
    ],
)
def test_nobody_is_asked_whether_a_task_has_ended(outcome: State[Any] | Exception, trouble: str) -> None:
    future = Future(outcome)
    submitted = _Submitted(future)  # type: ignore[arg-type]  # as much of it as is used
    assert not submitted.done()
    future.end()
    assert submitted.done()
    assert submitted.trouble() == trouble
