"""Progress while a run works: a live line on a terminal, log lines elsewhere, an artifact in Prefect."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from dataclasses import dataclass

from flows.domain.money import show_usd
from flows.domain.ranges import size
from flows.run import Run

log = logging.getLogger("batchwerk")

LOG_EVERY = 10.0  # seconds
ARTIFACT_EVERY = 10.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Rows are counted by their requests' share, as only publishing knows each row."""

    rows: int
    rows_done: int
    in_flight: int
    with_provider: int  # requests
    spent: int | None  # pico-dollars, this output
    seconds_left: float | None

    def sentence(self) -> str:
        """For a log."""
        left = "" if self.seconds_left is None else f", about {clock(self.seconds_left)} left"
        return (
            f"{self.rows_done:,} of {self.rows:,} rows, {self.in_flight} batches with {self.with_provider:,} requests "
            f"in flight, {show_usd(self.spent)} so far{left}"
        )


Watcher = Callable[[Progress], None]
terminal: ContextVar[Watcher | None] = ContextVar("terminal", default=None)  # set by the command line


def in_background(watch: Watcher) -> Watcher:
    """The run does not wait for what tells of it; what comes while the one before is still being told is left out."""
    telling = threading.Lock()

    def tell(progress: Progress) -> None:
        try:
            watch(progress)
        except Exception as error:  # noqa: BLE001  # whatever keeps progress from being shown, the run goes on
            log.warning("progress can't be shown: %s", str(error).splitlines()[0])
        finally:
            telling.release()

    def start(progress: Progress) -> None:
        if telling.acquire(blocking=False):
            threading.Thread(target=copy_context().run, args=(tell, progress), daemon=True, name="progress").start()

    return start


class ProgressReporter:
    """Looks at a run each time the loop does and tells whoever wants to know, not too often."""

    def __init__(self, artifact: Watcher | None = None) -> None:
        self._artifact = artifact
        self._began = time.monotonic()
        self._done_before: int | None = None
        self._logged = self._drawn = self._began

    def __call__(self, run: Run) -> None:
        """Look now."""
        moment = time.monotonic()
        watcher = terminal.get()
        if watcher is None and moment - self._logged < LOG_EVERY and moment - self._drawn < ARTIFACT_EVERY:
            return
        progress = self._measure(run, moment)
        if watcher is not None:
            watcher(progress)
        elif moment - self._logged >= LOG_EVERY:
            self._logged = moment
            log.info(progress.sentence())
        if self._artifact is not None and moment - self._drawn >= ARTIFACT_EVERY:
            self._drawn = moment
            self._artifact(progress)

    def _measure(self, run: Run, moment: float) -> Progress:
        with run.lock:
            unsent = size((part.start, part.stop) for part in run.ledger.backlog(run.wanted))
            open_batches = run.ledger.in_flight()
            spent = run.ledger.spent()
        with_provider = sum(batch.requests for batch in open_batches)
        wanted = max(1, run.plan.requests)
        done = max(0, run.plan.requests - unsent - with_provider)
        if self._done_before is None:
            self._done_before = done
        gained = done - self._done_before
        left = (moment - self._began) / gained * (run.plan.requests - done) if gained > 0 else None
        rows_done = run.plan.rows if done == run.plan.requests else run.plan.rows * done // wanted
        return Progress(run.plan.rows, rows_done, len(open_batches), with_provider, spent, left)


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
