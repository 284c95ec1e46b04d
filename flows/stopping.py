"""Ctrl-C and SIGTERM: the first one stops the run where it is, a second one leaves at once. Both are safe."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from flows.run import Run

log = logging.getLogger("batchwerk")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AT_ONCE = 130  # exit status after a second signal


@contextmanager
def stopped_by_signals(run: Run) -> Iterator[None]:
    """While inside, a signal sets `run.stop`; a second one ends the process, which the journal survives."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals; elsewhere whoever started the thread decides
        return

    def on_signal(number: int, _: FrameType | None) -> None:
        if run.stop:
            os._exit(AT_ONCE)
        run.stop = f"stopped by {signal.Signals(number).name}"
        log.warning("stopping after the calls under way; once more leaves at once")
        run.changed.set()

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def hold_back_interrupts() -> None:
    """Until the run can take them, and for all processes that are started before.

    Prefect's temporary server is one of those: a Ctrl-C goes to all processes of a terminal, and without its server
    the flow could not report how it ended.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
