"""Batches on their way to the provider: a queue, the lanes that empty it, and a permit for each batch.

Lanes and permits are acquired ahead of need: Prefect's server may take seconds to answer while its database is busy.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any

from blocks.errors import BatchwerkError, StateError
from flows.batches.orchestrator import Allowance, Orchestrator

LINGER = 30.0  # seconds that an idle lane keeps its slot: acquiring a new one takes a few
COLLISION_PAUSE = 0.2  # seconds; SQLite refuses concurrent writes, and Prefect only retries seconds later
LOW_STOCK = 4  # permits; more are requested when no more than these are left

Send = Callable[[], None]  # sends one batch and handles its own failures


class Outbox:
    """The queue of batches to send, and the lanes that send them.

    A lane holds one of the slots shared by all runs and sends one batch after another.
    """

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self._allowance: Allowance | None = None
        self._permits: Permits | None = None
        self._queue: queue.Queue[Send | None] = queue.Queue()
        self._expected = 0  # batches not in the queue yet
        self._lanes: list[Future[Any]] = []
        self._closed = False

    def expect(self, batches: int) -> None:
        """Announce about how many batches are still to come, so that permits are requested in time."""
        self._expected = batches

    def put(self, send: Send) -> None:
        """Add a batch."""
        self._queue.put(send)

    def open_first_lane(self) -> None:
        """Acquire a slot and permits before there is something to send."""
        allowance, permits = self._opened()
        permits.expect(min(self._expected, allowance.permits))
        self._start_lane()

    def open_lanes(self) -> None:
        """Open a lane per queued batch, up to the limit. Raises the error of a lane that failed."""
        if self._queue.empty() and not self._lanes:
            return
        allowance, _ = self._opened()
        self._check_lanes()
        while len(self._lanes) < min(allowance.lanes, self._queue.qsize()):
            self._start_lane()

    def close(self) -> None:
        """Let the lanes end after their current batch, and wait for them."""
        self._closed = True
        if self._permits is not None:
            self._permits.close()
        for _ in self._lanes:
            self._queue.put(None)
        for lane in self._lanes:
            lane.exception()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opened(self) -> tuple[Allowance, Permits]:
        if self._allowance is None or self._permits is None:
            self._allowance = self._orchestrator.allowance()
            self._permits = Permits(self._orchestrator.wait_for_permits, self._allowance.permits)
        return self._allowance, self._permits

    def _start_lane(self) -> None:
        _, permits = self._opened()

        def lane(_: int) -> int:
            """Send batches until the queue stays empty; returns how many were sent."""
            sent = 0
            while (send := self._take()) is not None and permits.take(self._to_come):
                send()
                sent += 1
            return sent

        self._lanes.append(self._orchestrator.start("submit batches", lane, len(self._lanes) + 1))

    def _take(self) -> Send | None:
        try:
            return None if self._closed else self._queue.get(timeout=LINGER)
        except queue.Empty:
            return None

    def _to_come(self) -> int:
        return self._queue.qsize() + self._expected

    def _check_lanes(self) -> None:
        """A lane that never started reports nothing itself: without this, the loop would wait for ever."""
        ended = [lane for lane in self._lanes if lane.done()]
        self._lanes = [lane for lane in self._lanes if lane not in ended]
        for lane in ended:
            raise_failure(lane)


def raise_failure(work: Future[Any]) -> None:
    """Raise the error of failed work; any but our own as a StateError."""
    error = work.exception()
    if isinstance(error, BatchwerkError):
        raise error
    if error is not None:
        raise StateError(
            f"a task of the run could not be started: {str(error) or type(error).__name__}",
            next_step="run the same command again to continue",
        )


class Permits:
    """A stock of permits to submit, shared by the lanes. Never requests more than may be used."""

    def __init__(self, wait_for: Callable[[int], None], max_at_once: int) -> None:
        self._wait_for = wait_for
        self._max_at_once = max_at_once
        self._stock = 0
        self._is_asking = False
        self._closed = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def expect(self, count: int) -> None:
        """Request permits that may be used soon; waits briefly, so that the next request does not collide."""
        with self._changed:
            self._ask(count)
            if self._is_asking:
                self._changed.wait(timeout=COLLISION_PAUSE)

    def take(self, to_come: Callable[[], int]) -> bool:
        """Wait for a permit; False once closed. `to_come`: how many more will be used."""
        with self._changed:
            while not (self._stock or self._closed or self._failure):
                self._ask(1 + to_come())
                self._changed.wait()
            if self._failure is not None:
                raise self._failure
            if self._closed:
                return False
            self._stock -= 1
            if self._stock <= LOW_STOCK:
                self._ask(to_come() - self._stock)
            return True

    def close(self) -> None:
        """Wake everybody who waits for a permit."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _ask(self, count: int) -> None:
        if count > 0 and not (self._is_asking or self._closed):
            self._is_asking = True
            # A daemon: the process can end without waiting for a response that nobody needs.
            context, wanted = copy_context(), min(count, self._max_at_once)
            threading.Thread(target=context.run, args=(self._fetch, wanted), daemon=True, name="permits").start()

    def _fetch(self, count: int) -> None:
        failure: BaseException | None = None
        try:
            self._wait_for(count)
        except BaseException as error:  # noqa: BLE001  # any error is raised by whoever waits
            failure = error
        with self._changed:
            self._is_asking = False
            self._stock += count * (failure is None)
            self._failure = failure
            self._changed.notify_all()
