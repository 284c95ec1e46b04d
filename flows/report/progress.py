"""Progress of a run, measured as often as a watcher wants to see it."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from blocks.printable import counted
from flows.domain.batches import State
from flows.domain.estimate import Outlook
from flows.domain.ledger import Ledger
from flows.domain.money import show_cost, show_usd
from flows.engine.run import Run
from flows.report.figures import Figures
from flows.report.forecast import outlook_of
from flows.report.thinning import Thinning
from flows.report.waits import Waiting, Waits
from flows.storage.output import PENDING

log = logging.getLogger("batchwerk")

LOG_EVERY = 10.0  # seconds
PLANNING = "planning"
NOTHING = Outlook(0, 0, None)

# What is said of batches in a state. Only what a provider has accepted is "with the provider".
WORDS = {
    State.RESERVED: "to be sent",
    State.SUBMITTING: "being sent",
    State.UNKNOWN: "being looked for at the provider",
    State.SUBMITTED: "with the provider",
    State.ENDED: "ready to be collected",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run is doing. Rows are estimated from the share of answered requests; only publishing knows each row."""

    rows: int
    rows_done: int = 0
    phase: str = ""  # planning, publishing, or how it ended; empty while batches are worked on
    batches: Mapping[State, int] = field(default_factory=dict)  # that are under way, by state
    requests: int = 0  # of the batches with the provider
    outlook: Outlook = NOTHING  # of this output; the total is None where nothing is foretold
    seconds_left: float | None = None
    waits: tuple[Waiting, ...] = ()
    emulated: bool = False  # whether the emulator answers, so that nothing is billed

    @property
    def cost(self) -> str:
        """What was spent and what is expected, in words."""
        return money_words(self.outlook, emulated=self.emulated)

    def activity(self) -> str:
        """What is being done, and what is waited for."""
        return ", ".join(self._activities()) or "deciding what to do"

    def sentence(self, *, timeless: bool = False) -> str:
        """For a log; `timeless`: without what changes from second to second."""
        if self.phase == PLANNING:
            return f"planning {counted(self.rows, 'row')}"
        left = "" if self.seconds_left is None or timeless else f", about {clock(self.seconds_left)} left"
        return f"{self.rows_done:,} of {counted(self.rows, 'row')}; {self.activity()}; {self.cost}{left}"

    def _activities(self) -> Iterator[str]:
        if self.phase:
            yield self.phase
        for state, words in WORDS.items():
            if count := self.batches.get(state):
                requests = f" ({counted(self.requests, 'request')})" if state is State.SUBMITTED else ""
                yield f"{counted(count, 'batch', 'batches')} {words}{requests}"
        for each in self.waits:
            yield each.sentence()


Show = Callable[[Progress], None]


class Watcher(NamedTuple):
    """A receiver of progress, and how often it wants it."""

    every: float  # seconds; 0: at each iteration of the loop
    show: Show
    last: Show | None = None  # shows the end; unlike `show`, it may take a moment but leaves nothing out


def thinned(show: Show, every: float) -> Show:
    """Shows a new phase at once, another change within `every` seconds, and what stays the same less and less often."""
    thinning, phase = Thinning(every * 0.9), ""  # the watcher's own interval is never exact

    def maybe(progress: Progress) -> None:
        nonlocal phase
        due = thinning.is_due(progress.sentence(timeless=True), time.monotonic())
        if due or progress.phase != phase:
            phase = progress.phase
            show(progress)

    return maybe


def log_watcher() -> Watcher:
    """A watcher that logs progress."""

    def write(progress: Progress) -> None:
        log.info(progress.sentence())

    return Watcher(LOG_EVERY, thinned(write, LOG_EVERY), last=write)


def in_background(show: Show) -> Show:
    """Show progress without blocking the run; skipped while the previous one is still being shown."""
    showing, complained = threading.Lock(), threading.Event()

    def try_to_show(progress: Progress) -> None:
        try:
            show(progress)
            complained.clear()
        except Exception as error:  # noqa: BLE001  # a display that fails must not stop the run
            if not complained.is_set():
                log.warning("progress can't be shown: %s", _first_line(error))
            complained.set()
        finally:
            showing.release()

    def start(progress: Progress) -> None:
        if showing.acquire(blocking=False):
            work = threading.Thread(target=copy_context().run, args=(try_to_show, progress), daemon=True)
            work.start()

    return start


def show_phase(watchers: Sequence[Watcher], progress: Progress) -> None:
    """Tell the watchers what goes on before or after the loop."""
    for watcher in watchers:
        watcher.show(progress)


def show_last(watchers: Sequence[Watcher], progress: Progress) -> None:
    """Show each watcher what is true in the end."""
    for watcher in watchers:
        try:
            (watcher.last or watcher.show)(progress)
        except Exception as error:  # noqa: BLE001  # a display that fails must not fail the run
            log.warning("the last progress can't be shown: %s", _first_line(error))


def publishing(run: Run) -> Progress:
    """Progress while the output is being written."""
    with run.recorder.reading() as ledger:
        return replace(_measured(run, ledger)[0], phase="publishing")


def ended(run: Run, figures: Figures) -> Progress:
    """The last word: rows as they are in the output, and why some are not done."""
    rows = sum(figures.rows.values())
    with run.recorder.reading() as ledger:
        measured, _, _ = _measured(run, ledger)
    phase = _first_line(figures.message) if figures.message else "done"
    return replace(measured, rows=rows, rows_done=rows - figures.rows.get(PENDING, 0), phase=phase)


def _first_line(text: object) -> str:
    return (str(text) or type(text).__name__).splitlines()[0]


class ProgressReporter:
    """Measures the progress of a run and shows it to each watcher as often as it wants."""

    def __init__(self, run: Run, watchers: Sequence[Watcher], waits: Waits) -> None:
        self._run = run
        self._waits = waits
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
        with self._run.recorder.reading() as ledger:
            progress, done, to_do = _measured(self._run, ledger)
        if self._done_before is None:
            self._done_before = done
        gained = done - self._done_before
        left = (moment - self._began) / gained * to_do if gained > 0 else None
        return replace(progress, seconds_left=left, waits=self._waits.long())


def _measured(run: Run, ledger: Ledger) -> tuple[Progress, int, int]:
    """Progress without time; requests that are done, and to do."""
    plan, tally, under_way = run.plan, ledger.tally(run.wanted), ledger.in_flight()
    emulated = run.config.spec.connection.emulated
    done = tally.answered + tally.failed
    rows = plan.rows if run.config.settings.sample is None else tally.wanted
    return (
        Progress(
            rows=rows,
            rows_done=rows if done == tally.wanted else rows * done // tally.wanted,
            batches=Counter(batch.state for batch in under_way),
            requests=sum(batch.requests for batch in under_way if batch.state is State.SUBMITTED),
            outlook=outlook_of(run.config.spec, ledger, run.wanted, run.requests),
            emulated=emulated,
        ),
        done,
        tally.wanted - done,
    )


def money_words(outlook: Outlook, *, emulated: bool) -> str:
    """What was billed, what batches that are under way will add, and the total with its range."""
    if outlook.spent is None:
        return "unpriced"
    words = [f"{show_cost(outlook.spent, emulated=emulated)} so far"]
    if outlook.under_way is None:
        words.append("more under way at an unknown price")
    elif outlook.under_way:
        words.append(f"about {show_usd(outlook.under_way)} under way")
    if outlook.total is not None and outlook.total != outlook.spent:
        words.append(f"{show_usd(outlook.total)} expected in all{_range(outlook)}")
    return ", ".join(words)


def _range(outlook: Outlook) -> str:
    if outlook.lowest is None or outlook.highest is None:
        return ""
    return f" ({show_usd(outlook.lowest)} to {show_usd(outlook.highest)})"


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
