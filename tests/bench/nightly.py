"""The next night: new rows beside those that are done, or none. What it costs, and that nothing is sent again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench.contestants import Task, run_nothing, run_ours
from tests.bench.plan import Plan
from tests.bench.rows import write_rows
from tests.bench.running import RunFailed
from tests.bench.sheets import Sheet, factor
from tests.bench.surroundings import Emulator, emulator, prefect_on_sqlite

NEW = 10_000
EMPTY_RUNS = 3
FOLDER, FILE = "a new file in the folder", "rows appended to the file"


@dataclass(frozen=True)
class Night:
    """One run: its own seconds, the requests that reached the provider, its peak memory."""

    seconds: float
    sent: int
    peak_mb: float


def nightly(plan: Plan) -> Iterator[Sheet]:
    """The largest size, then a few rows more, then nothing more."""
    rows, new = max(plan.sizes), max(1, plan.batch_size // 5) if plan.quick else NEW
    lines: list[tuple[str, ...]] = []
    notes = [f"{rows:,} rows the first night, {new:,} more the second, none the third; own time, one run each."]
    with prefect_on_sqlite() as server:
        empty = median(run_nothing(server).seconds for _ in range(EMPTY_RUNS))
        for name, grow in ((FOLDER, _grow_folder), (FILE, _grow_file)):
            plan.say(name)
            place = plan.place / "nightly"
            try:
                nights = _nights(plan, place, grow(place, rows, new), server, empty)
            except Refused as refused:
                notes.append(f"Skipped: {name}: {refused}.")
            else:
                lines += _lines(name, nights)
            shutil.rmtree(place)
    columns = ("night", "own s", "share of the first", "requests sent", "peak MB")
    yield Sheet("Nightly runs", columns if lines else (), lines, " ".join(notes))


class Refused(RuntimeError):
    """Ours does not take such an input; nothing was sent."""


Steps = tuple[Path, tuple[Callable[[], None], ...]]  # the input, and what happens to it before each night


def _grow_folder(place: Path, rows: int, new: int) -> Steps:
    folder = place / "in"
    first, second = folder / "first.parquet", folder / "second.parquet"
    return folder, (lambda: write_rows(first, rows), lambda: write_rows(second, rows + new, rows), lambda: None)


def _grow_file(place: Path, rows: int, new: int) -> Steps:
    file = place / "in" / "all.parquet"
    return file, (lambda: write_rows(file, rows), lambda: write_rows(file, rows + new), lambda: None)


def _nights(plan: Plan, place: Path, steps: Steps, server: Mapping[str, str], empty: float) -> list[Night]:
    source, changes = steps
    output = place / "out" / source.name
    nights: list[Night] = []
    with emulator() as running:
        task = Task(source, output, plan.job, running, plan.batch_size)
        for change in changes:
            change()
            before = _received(running)
            try:
                done = run_ours(task, server)
            except RunFailed as error:
                if _received(running):
                    raise
                raise Refused(error.reason) from error
            nights.append(Night(done.seconds - empty, _received(running) - before, done.peak_mb))
            plan.say(f"  night {len(nights)}: {nights[-1].seconds:.1f} s, {nights[-1].sent:,} requests")
    return nights


def _received(running: Emulator) -> int:
    return int(running.ledger()["requests_received"])


def _lines(name: str, nights: list[Night]) -> list[tuple[str, ...]]:
    first = nights[0].seconds
    titles = (f"first, before {name}", name, "nothing new")
    return [
        (
            title,
            f"{night.seconds:.1f}",
            "" if night is nights[0] else factor(night.seconds, first),
            f"{night.sent:,}",
            f"{night.peak_mb:.0f}",
        )
        for title, night in zip(titles, nights, strict=True)
    ]
