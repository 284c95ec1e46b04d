"""Progress of a run, measured as often as a watcher wants to see it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import NamedTuple

from flows.domain.money import show_cost
from flows.engine.run import Run

log = logging.getLogger("batchwerk")

LOG_EVERY = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run. Rows are estimated from the share of answered requests; only publishing knows each row."""

    rows: int
    rows_done: int
    in_flight: int
    with_provider: int  # requests
    spent: int | None  # pico-dollars, this output
    seconds_left: float | None
    emulated: bool = False  # whether `spent` is what the emulator's answers would have cost

    @property
    def cost(self) -> str:
        """What was spent, in words."""
        return show_cost(self.spent, emulated=self.emulated)

    def sentence(self) -> str:
        """For a log."""
        left = "" if self.seconds_left is None else f", about {clock(self.seconds_left)} left"
        return (
            f"{self.rows_done:,} of {self.rows:,} rows, {self.in_flight} batches with {self.with_provider:,} requests "
            f"in flight, {self.cost} so far{left}"
        )


Show = Callable[[Progress], None]


class Watcher(NamedTuple):
    """A receiver of progress, and how often it wants it."""

    every: float  # seconds; 0: at each iteration of the loop
    show: Show


def log_watcher() -> Watcher:
    """A watcher that logs progress."""
    return Watcher(LOG_EVERY, lambda progress: log.info(progress.sentence()))


def in_background(show: Show) -> Show:
    """Show progress without blocking the run; skipped while the previous one is still being shown."""
    showing = threading.Lock()

    def try_to_show(progress: Progress) -> None:
        try:
            show(progress)
        except Exception as error:  # noqa: BLE001  # a display that fails must not stop the run
            log.warning("progress can't be shown: %s", str(error).splitlines()[0])
        finally:
            showing.release()

    def start(progress: Progress) -> None:
        if showing.acquire(blocking=False):
            work = threading.Thread(target=copy_context().run, args=(try_to_show, progress), daemon=True)
            work.start()

    return start


class ProgressReporter:
    """Measures the progress of a run and shows it to each watcher as often as it wants."""

    def __init__(self, run: Run, watchers: Sequence[Watcher]) -> None:
        self._run = run
        self._began = time.monotonic()
        self._done_before: int | None = None
        self._next = dict.fromkeys(watchers, 0.0)
        for watcher in watchers:
            self._next[watcher] = self._began + watcher.every

    def look(self) -> None:
        """Measure and show progress to the watchers that are due."""
        moment = time.monotonic()
        waiting = [watcher for watcher, due in self._next.items() if moment >= due]
        if not waiting:
            return
        progress = self._measure(moment)
        for watcher in waiting:
            self._next[watcher] = moment + watcher.every
            watcher.show(progress)

    def _measure(self, moment: float) -> Progress:
        plan, emulated = self._run.plan, self._run.config.spec.connection.emulated
        with self._run.recorder.reading() as ledger:
            tally, in_flight = ledger.tally(self._run.wanted), len(ledger.in_flight())
            spent = ledger.spent(emulated=emulated)
        done = tally.answered + tally.failed
        if self._done_before is None:
            self._done_before = done
        gained = done - self._done_before
        left = (moment - self._began) / gained * (tally.wanted - done) if gained > 0 else None
        rows_done = plan.rows if done == plan.requests else plan.rows * done // plan.requests
        return Progress(plan.rows, rows_done, in_flight, tally.in_flight, spent, left, emulated)


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
