"""Ours beside the bare loop: wall time, CPU and peak memory, each without what its process costs before it works.

Our own time is the wall time of the flow's process without that of a flow that does nothing, in the same surroundings
and after the same imports. The loop is shown whole and without its imports.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from statistics import median

from tests.bench.contestants import (
    Task,
    check_complete,
    run_loop,
    run_loop_with_nothing,
    run_nothing,
    run_ours,
)
from tests.bench.plan import Plan
from tests.bench.running import Measured
from tests.bench.sheets import Sheet, factor, spread
from tests.bench.surroundings import Emulator, Unavailable, emulator, prefect_on_postgresql, prefect_on_sqlite

Servers = Callable[[], AbstractContextManager[dict[str, str]]]
OURS, LOOP, NOTHING, IMPORTS = "ours", "bare loop", "empty flow", "loop's imports"
START = {OURS: NOTHING, LOOP: IMPORTS}  # what each costs before it works


class Series:
    """All runs with one server."""

    def __init__(self, plan: Plan, server: dict[str, str]) -> None:
        self._plan = plan
        self._server = server
        self.runs: dict[tuple[str, int], list[Measured]] = defaultdict(list)
        self.emulator: dict[tuple[str, int], list[float]] = defaultdict(list)  # its CPU seconds
        self.starts: dict[str, list[Measured]] = defaultdict(list)

    def measure(self) -> None:
        """Every size, its contestants in turn."""
        run_nothing(self._server)  # the first one finds neither its files nor the server's tables in memory
        for rows in self._plan.sizes:
            for run in range(self._plan.runs):
                self._plan.say(f"{rows:,} rows, run {run + 1} of {self._plan.runs}")
                self._one(OURS, rows, lambda task: run_ours(task, self._server))
                self._one(LOOP, rows, run_loop)
                self.starts[NOTHING].append(run_nothing(self._server))
                self.starts[IMPORTS].append(run_loop_with_nothing())

    def _one(self, who: str, rows: int, run: Callable[[Task], Measured]) -> None:
        with emulator() as running:
            task = self._task(who, rows, running)
            done = run(task)
            check_complete(task, rows)
            task.clear()
            self.runs[who, rows].append(done)
            self.emulator[who, rows].append(running.cpu)
        self._plan.say(f"  {who}: {done.seconds:.1f} s, CPU {done.cpu:.1f} s, {done.peak_mb:.0f} MB")

    def _task(self, who: str, rows: int, running: Emulator) -> Task:
        plan = self._plan
        output = plan.place / who / "out.parquet"
        return Task(plan.source(rows), output, plan.job, running, plan.batch_size)

    def own(self, who: str, rows: int, what: str) -> list[float]:
        """Seconds or CPU of a contestant's runs, each without the median of its start."""
        start = median(getattr(run, what) for run in self.starts[START[who]])
        return [getattr(run, what) - start for run in self.runs[who, rows]]

    def median_of(self, who: str, rows: int, what: str) -> float:
        """The median of a figure of a contestant's whole runs."""
        figures: list[float] = [getattr(run, what) for run in self.runs[who, rows]]
        return median(figures)


def on_sqlite(plan: Plan) -> Iterator[Sheet]:
    """With Prefect's server on SQLite, as it is by default."""
    yield from _sheets(plan, "SQLite", prefect_on_sqlite)


def on_postgresql(plan: Plan) -> Iterator[Sheet]:
    """With Prefect's server on PostgreSQL, as a team has it."""
    yield from _sheets(plan, "PostgreSQL", prefect_on_postgresql)


def _sheets(plan: Plan, name: str, servers: Servers) -> Iterator[Sheet]:
    try:
        with servers() as server:
            series = Series(plan, server)
            series.measure()
    except Unavailable as error:
        yield Sheet(f"Ours and a bare loop, Prefect on {name}", note=f"Skipped: {error}.")
        return
    yield _times(plan, name, series)
    yield _ratios(plan, name, series)
    yield _stages(plan, name, series)


def _times(plan: Plan, name: str, series: Series) -> Sheet:
    columns = (
        "rows, process",
        "runs",
        "wall s",
        "own s",
        "rows/s",
        "CPU s",
        "own CPU s",
        "emulator's CPU s",
        "peak MB",
    )
    lines = []
    for rows in plan.sizes:
        for who in (OURS, LOOP):
            runs, own = series.runs[who, rows], series.own(who, rows, "seconds")
            figures = (
                str(len(runs)),
                spread(run.seconds for run in runs),
                spread(own),
                f"{rows / median(own):,.0f}",
                spread(run.cpu for run in runs),
                spread(series.own(who, rows, "cpu")),
                spread(series.emulator[who, rows]),
                spread((run.peak_mb for run in runs), 0),
            )
            lines.append((f"{rows:,} {who}", *figures))
    for who in (NOTHING, IMPORTS):
        runs = series.starts[who]
        wall, cpu, peak = (spread(getattr(run, what) for run in runs) for what in ("seconds", "cpu", "peak_mb"))
        lines.append((who, str(len(runs)), wall, "", "", cpu, "", "", peak))
    note = (
        f"Batches of {plan.batch_size:,}; medians, lowest and highest in brackets. Own: without the empty flow, without"
        " the loop's imports. The emulator is a process beside them on the same cores."
    )
    return Sheet(f"Ours and a bare loop, Prefect on {name}", columns, lines, note)


def _ratios(plan: Plan, name: str, series: Series) -> Sheet:
    columns = ("rows", "own time / loop, whole", "own time / loop, own", "own CPU / loop's own", "peak memory / loop's")
    lines = []
    for rows in plan.sizes:
        seconds, cpu = (median(series.own(OURS, rows, what)) for what in ("seconds", "cpu"))
        figures = (
            factor(seconds, series.median_of(LOOP, rows, "seconds")),
            factor(seconds, median(series.own(LOOP, rows, "seconds"))),
            factor(cpu, median(series.own(LOOP, rows, "cpu"))),
            factor(series.median_of(OURS, rows, "peak_mb"), series.median_of(LOOP, rows, "peak_mb")),
        )
        lines.append((f"{rows:,}", *figures))
    small, large = min(plan.sizes), max(plan.sizes)
    growth = [series.median_of(OURS, rows, "peak_mb") for rows in (large, small)]
    note = f"Our peak memory at {large:,} rows is {factor(*growth)} times that at {small:,}."
    return Sheet(f"Ours as a multiple of the loop, Prefect on {name}", columns, lines, note)


def _stages(plan: Plan, name: str, series: Series) -> Sheet:
    columns = ("stage", *(f"CPU s, {rows:,} rows" for rows in plan.sizes))
    stages = {rows: [run.said["stages"] for run in series.runs[OURS, rows]] for rows in plan.sizes}
    names = list(dict.fromkeys(stage for runs in stages.values() for run in runs for stage in run))
    used = {rows: [median(run.get(stage, 0.0) for run in stages[rows]) for stage in names] for rows in plan.sizes}
    own = {rows: median(series.own(OURS, rows, "cpu")) for rows in plan.sizes}
    lines = [
        (stage, *(f"{used[rows][i]:.2f} ({used[rows][i] / own[rows]:.0%})" for rows in plan.sizes))
        for i, stage in enumerate(names)
    ]
    rest = {rows: own[rows] - sum(used[rows]) for rows in plan.sizes}
    left = (f"{rest[rows]:.2f} ({rest[rows] / own[rows]:.0%})" for rows in plan.sizes)
    lines.append(("Prefect's client, the loop, the rest", *left))
    return Sheet(f"Where our own CPU goes, Prefect on {name}", columns, lines)
