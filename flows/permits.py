"""Leave to submit, asked for ahead: Prefect's server may take seconds to answer while its database is busy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context

MOST = 8  # asked for at once; each request for them is a call to Prefect's server
MOMENT = 0.2  # seconds; SQLite refuses a write that meets another, and Prefect tries again seconds later
FEW = 4  # when no more than so many are left, the next ones are asked for

Ask = Callable[[int], None]  # blocks until so many calls may be made


class Permits:
    """A stock of them, for several lanes. No more are asked for than may be used."""

    def __init__(self, ask: Ask, most: int = MOST) -> None:
        self._ask = ask
        self._most = most
        self._held = 0
        self._is_asking = False
        self._closed = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def expect(self, count: int) -> None:
        """Ask for some that may be used soon; waits a moment at most, so that what is asked next does not collide."""
        with self._changed:
            self._order(count)
            if self._is_asking:
                self._changed.wait(timeout=MOMENT)

    def take(self, soon: Callable[[], int]) -> bool:
        """Wait for one; False where none is needed any more. `soon`: how many others are going to be used."""
        with self._changed:
            while not (self._held or self._closed or self._failure):
                self._order(1 + soon())
                self._changed.wait()
            if self._failure is not None:
                raise self._failure
            if self._closed:
                return False
            self._held -= 1
            if self._held <= FEW:
                self._order(soon() - self._held)
            return True

    def close(self) -> None:
        """Nobody waits any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _order(self, count: int) -> None:
        if count > 0 and not (self._is_asking or self._closed):
            self._is_asking = True
            # A daemon: the end of the process does not wait for an answer that nobody needs.
            context, many = copy_context(), min(count, self._most)
            threading.Thread(target=context.run, args=(self._fetch, many), daemon=True, name="permits").start()

    def _fetch(self, count: int) -> None:
        failure: BaseException | None = None
        try:
            self._ask(count)
        except BaseException as error:  # noqa: BLE001  # whatever it is, it belongs to whoever waits
            failure = error
        with self._changed:
            self._is_asking = False
            self._held += count * (failure is None)
            self._failure = failure
            self._changed.notify_all()
