"""Lanes and permits are had ahead of need, no more permits than may be used, and nobody waits for ever."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from blocks.errors import StateError
from flows.batches.orchestrator import MAX_PERMITS, Allowance, Threads
from flows.batches.outbox import Outbox, Permits
from tests.flows.undecorated import wait_until

SOON = 5.0  # seconds that no test comes near


class Server:
    """Gives what it is asked for, when it may."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.came = threading.Semaphore(0)

    def ask(self, count: int) -> bool:
        self.asked.append(count)
        self.came.release()
        return self.may_answer.wait(SOON)


@pytest.fixture
def server() -> Server:
    return Server()


def take(permits: Permits, batches: int) -> None:
    """For so many batches, one after another."""
    for left in range(batches - 1, -1, -1):
        assert permits.take(partial(int, left))


@pytest.mark.parametrize("batches", [1, 2, MAX_PERMITS - 1, MAX_PERMITS, MAX_PERMITS + 1, 50])
def test_as_many_are_asked_for_as_are_used(server: Server, batches: int) -> None:
    """Each permit that is not used is one that another run waits for."""
    permits = Permits(server.ask, MAX_PERMITS)
    take(permits, batches)
    assert sum(server.asked) == batches
    assert max(server.asked) <= MAX_PERMITS


def test_the_next_ones_are_asked_for_while_some_are_left(server: Server) -> None:
    """Whoever takes the last ones does not wait for the server."""
    permits = Permits(server.ask, MAX_PERMITS)
    take(permits, 1)
    permits.expect(MAX_PERMITS)
    server.may_answer.clear()
    for _ in range(MAX_PERMITS):
        assert permits.take(lambda: 100)  # the second answer never comes
    for _ in range(3):  # once for the first, once for the expected, once ahead
        assert server.came.acquire(timeout=SOON)
    assert server.asked[:2] == [1, MAX_PERMITS]
    server.may_answer.set()


def test_what_was_expected_is_there_at_once(server: Server) -> None:
    """One question to the server for all of it."""
    permits = Permits(server.ask, MAX_PERMITS)
    permits.expect(3)
    server.may_answer.clear()
    take(permits, 3)
    assert server.asked == [3]


def test_no_more_are_asked_for_at_once_than_the_limit_holds(server: Server) -> None:
    """Prefect would refuse more instead of letting them wait."""
    permits = Permits(server.ask, 2)
    permits.expect(10)
    take(permits, 5)
    assert set(server.asked) <= {1, 2}


def test_a_refusal_reaches_whoever_waits() -> None:
    """It is raised in the lane, which has something to say about it."""

    def refuse(_: int) -> bool:
        raise RuntimeError("no such limit")

    with pytest.raises(RuntimeError, match="no such limit"):
        Permits(refuse, MAX_PERMITS).take(lambda: 0)


def test_whoever_waits_is_let_go_when_it_closes(server: Server) -> None:
    """A run that ends does not wait for permits that nobody uses."""
    server.may_answer.clear()
    permits = Permits(server.ask, MAX_PERMITS)
    with ThreadPoolExecutor(2) as lanes:
        waiting = [lanes.submit(permits.take, lambda: 0) for _ in range(2)]
        assert server.came.acquire(timeout=SOON)
        permits.close()
        assert [lane.result(SOON) for lane in waiting] == [False, False]
    server.may_answer.set()


def test_two_lanes_share_one_stock(server: Server) -> None:
    """Together they use as many permits as there are batches."""
    permits, left = Permits(server.ask, MAX_PERMITS), queue.SimpleQueue[None]()
    for _ in range(40):
        left.put(None)

    def lane() -> int:
        took = 0
        with suppress(queue.Empty):
            while True:
                left.get_nowait()
                assert permits.take(left.qsize)
                took += 1
        return took

    with ThreadPoolExecutor(2) as lanes:
        assert sum(lane.result(SOON) for lane in [lanes.submit(lane) for _ in range(2)]) == 40
    assert sum(server.asked) == 40


class Counting(Threads):
    """Plain threads that remember what was started, and how many permits were asked for."""

    def __init__(self, allowance: Allowance) -> None:
        super().__init__()
        self.names: list[str] = []
        self.asked: list[int] = []
        self._allowance = allowance

    def allowance(self, halt: threading.Event) -> Allowance | None:
        return self._allowance

    def wait_for_permits(self, count: int, halt: threading.Event) -> bool:
        self.asked.append(count)
        return True

    def start(self, name: str, work: Callable[[int], Any], number: int) -> Future[Any]:
        self.names.append(name)
        return super().start(name, work, number)


def test_no_more_lanes_are_opened_than_may_send_at_once() -> None:
    """Each holds a slot that other runs could use."""
    sent, together = queue.SimpleQueue[int](), threading.Barrier(2, timeout=SOON)

    def send(number: int) -> None:
        together.wait()  # only two lanes at once get past this
        sent.put(number)

    with Counting(Allowance(2, 8)) as threads, Outbox(threads) as outbox:
        for number in range(4):
            outbox.put(partial(send, number))
        outbox.open_lanes()
        wait_until(lambda: outbox._allowance is not None)
        outbox.open_lanes()
        assert sorted(sent.get(timeout=SOON) for _ in range(4)) == [0, 1, 2, 3]
        outbox.open_lanes()
        assert threads.names == ["submit batches"] * 2


def test_an_outbox_with_nothing_to_send_asks_for_nothing() -> None:
    """A run that finds all done asks no server."""
    with Counting(Allowance(2, 8)) as threads, Outbox(threads) as outbox:
        outbox.open_lanes()
    assert (threads.names, threads.asked) == ([], [])


def test_a_lane_that_is_opened_early_sends_what_comes_later() -> None:
    """No other lane is opened for the first batch, and its permit is there already."""
    sent = threading.Event()
    with Counting(Allowance(2, 8)) as threads, Outbox(threads) as outbox:
        outbox.expect(1)
        outbox.open_first_lane()
        outbox.expect(0)
        outbox.put(sent.set)
        outbox.open_lanes()
        assert sent.wait(SOON)
    assert (threads.names, threads.asked) == (["submit batches"], [1])


def test_closing_waits_for_the_batch_that_is_being_sent() -> None:
    """Whatever was begun is waited for before journal and clients close."""
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def send() -> None:
        begun.set()
        assert may_end.wait(SOON)
        ended.set()

    with Counting(Allowance(1, 8)) as threads:
        outbox = Outbox(threads)
        outbox.put(send)
        outbox.open_lanes()
        assert begun.wait(SOON)
        with ThreadPoolExecutor(1) as other:
            closing = other.submit(outbox.close)
            assert not closing.done()
            may_end.set()
            closing.result(SOON)
        assert ended.is_set()


def test_a_lane_that_could_not_be_started_is_told() -> None:
    """Its batches would be waited for for ever."""

    class Broken(Threads):
        def start(self, name: str, work: Callable[[int], Any], number: int) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(RuntimeError("no room"))
            return future

    with Broken() as threads, Outbox(threads) as outbox:
        outbox.put(lambda: None)
        outbox.open_lanes()
        with pytest.raises(StateError, match="could not be started: no room"):
            outbox.open_lanes()
