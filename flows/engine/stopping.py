"""What stops a run: an error, the user, or a provider that keeps failing."""

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
from blocks.retries import resting
from flows.domain.breaker import Breaker

log = logging.getLogger("batchwerk")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECOND_SIGNAL = 130  # exit status after a second signal


class StopSwitch:
    """Whether work may continue. Thread-safe."""

    def __init__(self) -> None:
        self.failure: BaseException | None = None  # the error that stopped the run
        self.reason = ""  # why the user stopped it
        self.breaker = Breaker()
        self.changed = threading.Event()  # set when the loop should look again
        self.patient_until: float | None = None  # seconds since the epoch; no pause of a retry reaches beyond
        self._stopping = threading.Event()

    @property
    def active(self) -> bool:
        """Whether new work may be started."""
        return self.failure is None and not self.reason

    def request(self, reason: str) -> None:
        """Start nothing new; let the calls under way finish. Only the first reason is kept."""
        self.reason = self.reason or reason
        self.stop_retrying()

    def fail(self, error: BaseException) -> None:
        """Stop because of an error; only the first one is kept."""
        self.failure = self.failure or error
        self.stop_retrying()

    def stop_retrying(self) -> None:
        """End all pauses: calls that fail from now on are not repeated."""
        self._stopping.set()
        self.changed.set()

    def rest(self, seconds: float) -> bool:
        """Pause between two tries of a call; False, at once, if the second one should not be made."""
        if self.patient_until is not None and time.time() + seconds > self.patient_until:
            return False
        return not self._stopping.wait(seconds)

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Around calls to a provider. Counts transient errors for the loop; any other error stops the run."""
        try:
            with resting(self.rest):
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
        if not self.active:  # how often it would have been tried says nothing
            return
        self.breaker = self.breaker.failed(error.tries, error.message, time.time())
        if self.breaker.is_open:
            log.warning("%s; waiting %.0f s before the next try", error.message, self.breaker.pause)


@contextmanager
def catching_signals(switch: StopSwitch) -> Iterator[None]:
    """Ctrl-C or SIGTERM stops the run after the calls under way; a second one ends the process, just as safely."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
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
    """Block Ctrl-C until the run can handle it, and in all child processes that start before that.

    Prefect's temporary server is one of them: Ctrl-C reaches all processes of a terminal, and without its server
    the flow could not report how it ended.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
