"""Progress while a run works: measured as often as somebody wants to see it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import NamedTuple

from flows.domain.money import show_usd
from flows.engine.run import Run

log = logging.getLogger("batchwerk")

LOG_EVERY = 10.0  # seconds


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


Show = Callable[[Progress], None]


class Watcher(NamedTuple):
    """Somebody who is shown progress."""

    every: float  # seconds; 0: each time that the loop looks
    show: Show


def log_watcher() -> Watcher:
    """Shows progress as lines of the log."""
    return Watcher(LOG_EVERY, lambda progress: log.info(progress.sentence()))


def in_background(show: Show) -> Show:
    """The run does not wait until progress is shown; what comes while the last is still being shown is left out."""
    showing = threading.Lock()

    def try_to_show(progress: Progress) -> None:
        try:
            show(progress)
        except Exception as error:  # noqa: BLE001  # whatever keeps progress from being shown, the run goes on
            log.warning("progress can't be shown: %s", str(error).splitlines()[0])
        finally:
            showing.release()

    def start(progress: Progress) -> None:
        if showing.acquire(blocking=False):
            work = threading.Thread(target=copy_context().run, args=(try_to_show, progress), daemon=True)
            work.start()

    return start


class ProgressReporter:
    """Looks at a run each time that the loop does and shows what it sees, to each watcher as often as it wants."""

    def __init__(self, run: Run, watchers: Sequence[Watcher]) -> None:
        self._run = run
        self._began = time.monotonic()
        self._done_before: int | None = None
        self._next = dict.fromkeys(watchers, 0.0)
        for watcher in watchers:
            self._next[watcher] = self._began + watcher.every

    def look(self) -> None:
        """Measure and show, if anybody wants to see it now."""
        moment = time.monotonic()
        waiting = [watcher for watcher, due in self._next.items() if moment >= due]
        if not waiting:
            return
        progress = self._measure(moment)
        for watcher in waiting:
            self._next[watcher] = moment + watcher.every
            watcher.show(progress)

    def _measure(self, moment: float) -> Progress:
        plan = self._run.plan
        with self._run.recorder.reading() as ledger:
            tally, in_flight, spent = ledger.tally(self._run.wanted), len(ledger.in_flight()), ledger.spent()
        done = tally.answered + tally.failed
        if self._done_before is None:
            self._done_before = done
        gained = done - self._done_before
        left = (moment - self._began) / gained * (tally.wanted - done) if gained > 0 else None
        rows_done = plan.rows if done == tally.wanted else plan.rows * done // tally.wanted
        return Progress(plan.rows, rows_done, in_flight, tally.in_flight, spent, left)


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
