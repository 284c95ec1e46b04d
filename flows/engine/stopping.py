"""What stops a run: an error, the user, or a provider that fails again and again."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from blocks.errors import ProviderError, Transient, UnknownOutcome, system_error
from flows.domain.breaker import Breaker

log = logging.getLogger("batchwerk")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECOND_SIGNAL = 130  # exit status after a second signal


class StopSwitch:
    """Whether work may go on. May be used from any thread."""

    def __init__(self) -> None:
        self.failure: BaseException | None = None  # what stopped the run
        self.reason = ""  # why the user wants it to stop
        self.breaker = Breaker()
        self.changed = threading.Event()  # set whenever the loop should look again

    @property
    def active(self) -> bool:
        """Whether new work may be begun."""
        return self.failure is None and not self.reason

    def request(self, reason: str) -> None:
        """Begin nothing new; what is under way may end."""
        self.reason = reason
        self.changed.set()

    def fail(self, error: BaseException) -> None:
        """Stop for an error; the first one is kept."""
        self.failure = self.failure or error
        self.changed.set()

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Around calls to a provider. What may pass is counted and left to the loop; any other error stops the run."""
        try:
            yield
        except (Transient, UnknownOutcome) as error:
            self._count(error)
        except OSError as error:
            self.fail(system_error(error))
            raise system_error(error) from error
        except BaseException as error:
            self.fail(error)
            raise
        else:
            self.breaker = Breaker()

    def _count(self, error: ProviderError) -> None:
        self.breaker = self.breaker.failed(error.tries, error.message, time.time())
        if self.breaker.is_open:
            log.warning("%s; waiting %.0f s before the next try", error.message, self.breaker.pause)


@contextmanager
def catching_signals(switch: StopSwitch) -> Iterator[None]:
    """While inside, Ctrl-C or SIGTERM stops the run where it is; a second one ends the process, which is as safe."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals; elsewhere whoever started the thread decides
        return

    def on_signal(number: int, _: FrameType | None) -> None:
        if switch.reason:
            os._exit(SECOND_SIGNAL)
        switch.request(f"stopped by {signal.Signals(number).name}")
        log.warning("stopping after the calls under way; another signal ends the process at once")

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def block_interrupts() -> None:
    """Hold Ctrl-C back until the run can take it, and for all processes that are started before.

    Prefect's temporary server is one of those: a Ctrl-C goes to all processes of a terminal, and without its server
    the flow could not report how it ended.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
