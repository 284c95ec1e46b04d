"""Telling of a run never holds it up, and never ends it."""

from __future__ import annotations

import logging
import threading

import pytest

from flows.report.progress import Progress, in_background

PROGRESS = Progress(10, rows_done=5)
SOON = 5.0


def test_a_run_does_not_wait_for_whoever_is_told() -> None:
    """What comes meanwhile is left out, what comes later is told."""
    told, may_go_on, begun = 0, threading.Event(), threading.Semaphore(0)

    def slow(_: Progress) -> None:
        nonlocal told
        begun.release()
        assert may_go_on.wait(SOON)
        told += 1

    tell = in_background(slow)
    tell(PROGRESS)
    assert begun.acquire(timeout=SOON)
    tell(PROGRESS)  # returns, though the first is still being told
    assert told == 0
    may_go_on.set()
    while not begun.acquire(timeout=0.01):
        tell(PROGRESS)
    assert told >= 1


def test_a_server_that_can_not_be_told_is_no_reason_to_stop(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says why, and the run goes on."""
    done = threading.Event()
    monkeypatch.setattr("flows.report.progress.log", logging.getLogger("told"))  # Prefect's handler wants a flow run

    def broken(_: Progress) -> None:
        try:
            raise ConnectionError("nobody there")
        finally:
            done.set()

    with caplog.at_level(logging.WARNING, "told"):
        tell = in_background(broken)
        tell(PROGRESS)
        assert done.wait(SOON)
        for _ in range(100):
            if caplog.records:
                break
            threading.Event().wait(0.01)
    assert caplog.messages == ["progress can't be shown: nobody there"]
