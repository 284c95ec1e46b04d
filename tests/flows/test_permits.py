"""Permits are asked for ahead, no more than may be used, and nobody waits for ever."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest

from flows.permits import MOST, Permits

SOON = 5.0  # seconds that no test comes near


class Server:
    """Gives what it is asked for, when it may."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.came = threading.Semaphore(0)

    def ask(self, count: int) -> None:
        self.asked.append(count)
        self.came.release()
        assert self.may_answer.wait(SOON)


@pytest.fixture
def server() -> Server:
    return Server()


def take(permits: Permits, batches: int) -> None:
    """For so many batches, one after another."""
    for left in range(batches - 1, -1, -1):
        assert permits.take(partial(int, left))


@pytest.mark.parametrize("batches", [1, 2, MOST - 1, MOST, MOST + 1, 50])
def test_as_many_are_asked_for_as_are_used(server: Server, batches: int) -> None:
    permits = Permits(server.ask)
    take(permits, batches)
    assert sum(server.asked) == batches
    assert max(server.asked) <= MOST


def test_the_next_ones_are_asked_for_while_some_are_left(server: Server) -> None:
    """Whoever takes the last ones does not wait for the server."""
    permits = Permits(server.ask)
    take(permits, 1)
    permits.expect(MOST)
    server.may_answer.clear()
    for _ in range(MOST):
        assert permits.take(lambda: 100)  # the second answer never comes
    for _ in range(3):  # once for the first, once for the expected, once ahead
        assert server.came.acquire(timeout=SOON)
    assert server.asked[:2] == [1, MOST]
    server.may_answer.set()


def test_what_was_expected_is_there_at_once(server: Server) -> None:
    permits = Permits(server.ask)
    permits.expect(3)
    server.may_answer.clear()
    take(permits, 3)
    assert server.asked == [3]


def test_no_more_are_asked_for_at_once_than_the_limit_holds(server: Server) -> None:
    permits = Permits(server.ask, most=2)
    permits.expect(10)
    take(permits, 5)
    assert set(server.asked) <= {1, 2}


def test_a_refusal_reaches_whoever_waits() -> None:
    def refuse(_: int) -> None:
        raise RuntimeError("no such limit")

    with pytest.raises(RuntimeError, match="no such limit"):
        Permits(refuse).take(lambda: 0)


def test_whoever_waits_is_let_go_when_it_closes(server: Server) -> None:
    server.may_answer.clear()
    permits = Permits(server.ask)
    with ThreadPoolExecutor(2) as lanes:
        waiting = [lanes.submit(permits.take, lambda: 0) for _ in range(2)]
        assert server.came.acquire(timeout=SOON)
        permits.close()
        assert [lane.result(SOON) for lane in waiting] == [False, False]
    server.may_answer.set()


def test_two_lanes_share_one_stock(server: Server) -> None:
    permits, left = Permits(server.ask), queue.SimpleQueue[None]()
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
