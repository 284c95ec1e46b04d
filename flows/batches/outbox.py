"""Batches on their way to the provider: a queue, the lanes that empty it, and a permit for each batch.

Permits are acquired ahead of need: Prefect's server may take seconds to answer while its database is busy.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any

from blocks.errors import BatchwerkError, StateError
from flows.batches.orchestrator import Allowance, NotStarted, Orchestrator, Slot

LINGER = 30.0  # seconds that an idle lane waits for a batch: starting a new one takes a second
SLOT_LINGER = 2.0  # seconds that an idle lane keeps its slot, which other runs may be waiting for
START_AGAIN_AFTER = 2.0  # seconds, if a lane could not be started
COLLISION_PAUSE = 0.2  # seconds; SQLite refuses concurrent writes, and Prefect only retries seconds later
LOW_STOCK = 4  # permits; more are requested when no more than these are left

Send = Callable[[], None]  # sends one batch and handles its own failures


class Outbox:
    """The queue of batches to send, and the lanes that send them.

    A lane is a task that holds one of the slots shared by all runs while it sends one batch after another.
    """

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self._queue: queue.Queue[Send | None] = queue.Queue()
        self._expected = 0  # batches not in the queue yet
        self._lanes: list[Future[Any]] = []
        self._closed = threading.Event()
        self._sending = _Sending()
        self._opening = threading.Lock()
        self._allowance: Allowance | None = None
        self._permits: Permits | None = None
        self._start_at = 0.0  # no lane before

    def expect(self, batches: int) -> None:
        """Announce about how many batches are still to come, so that permits are requested in time."""
        self._expected = batches

    def put(self, send: Send) -> None:
        """Add a batch."""
        self._queue.put(send)

    def open_first_lane(self) -> None:
        """Start a lane, which acquires permits before there is something to send."""
        self._start_lane()

    def open_lanes(self) -> None:
        """Open a lane per queued batch, up to the limit. Raises the error of a lane that failed."""
        self._check_lanes()
        wanted = min(self._allowance.lanes if self._allowance else 1, self._queue.qsize())
        while len(self._lanes) < wanted and time.monotonic() >= self._start_at:
            self._start_lane()

    def close(self) -> None:
        """Let the lanes end after their current batch, and wait for them and for whatever they are sending."""
        self._closed.set()
        if self._permits is not None:
            self._permits.close()
        for _ in self._lanes:
            self._queue.put(None)
        self._sending.wait()
        for lane in self._lanes:
            lane.exception()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start_lane(self) -> None:
        self._lanes.append(self._orchestrator.start("submit batches", self._lane, len(self._lanes) + 1))

    def _lane(self, _: int) -> int:
        """Send batches until the queue stays empty; returns how many were sent."""
        sent = 0
        permits = self._opened()
        while permits is not None and (send := self._take(LINGER)) is not None:
            with self._orchestrator.slot(self._closed) as slot:
                sent += self._send_under(slot, permits, send)
        return sent

    def _send_under(self, slot: Slot | None, permits: Permits, send: Send | None) -> int:
        """Send this batch and those that follow soon, as long as the slot is ours."""
        sent = 0
        while slot is not None and send is not None and permits.take(self._to_come):
            with self._sending:
                if self._closed.is_set():
                    break
                send()
            sent += 1
            send = None if slot.lost.is_set() else self._take(SLOT_LINGER)
        return sent

    def _opened(self) -> Permits | None:
        """The permits, asked for by the first lane; None once closed."""
        with self._opening:
            if self._permits is None:
                self._allowance = self._orchestrator.allowance(self._closed)
                if self._allowance is None:
                    return None
                self._permits = Permits(self._ask_for_permits, self._allowance.permits)
                self._permits.expect(min(self._to_come(), self._allowance.permits))
        return self._permits

    def _ask_for_permits(self, count: int) -> bool:
        return self._orchestrator.wait_for_permits(count, self._closed)

    def _take(self, seconds: float) -> Send | None:
        try:
            return None if self._closed.is_set() else self._queue.get(timeout=seconds)
        except queue.Empty:
            return None

    def _to_come(self) -> int:
        return self._queue.qsize() + self._expected

    def _check_lanes(self) -> None:
        """A lane that never started reports nothing itself: without this, the loop would wait for ever."""
        ended = [lane for lane in self._lanes if lane.done()]
        self._lanes = [lane for lane in self._lanes if lane not in ended]
        for lane in ended:
            if isinstance(lane.exception(), NotStarted):
                self._start_at = time.monotonic() + START_AGAIN_AFTER
            else:
                raise_failure(lane)


class _Sending:
    """Around each batch that is being sent: what was begun can be waited for, whatever became of its lane."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        """Until nothing is being sent."""
        with self._changed:
            while self._count:
                self._changed.wait()


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

    def __init__(self, wait_for: Callable[[int], bool], max_at_once: int) -> None:
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
        granted = False
        try:
            granted = self._wait_for(count)
        except BaseException as error:  # noqa: BLE001  # any error is raised by whoever waits
            failure = error
        with self._changed:
            self._is_asking = False
            self._stock += count * granted
            self._failure = failure
            self._changed.notify_all()
