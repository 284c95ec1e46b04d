"""The live display of the command line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from flows.report.progress import Progress, Watcher, clock, log_watcher

log = logging.getLogger("batchwerk")


@contextmanager
def live_display() -> Iterator[Watcher]:
    """A live line on a terminal, with warnings above it; elsewhere lines of the log."""
    if not sys.stderr.isatty():
        yield log_watcher()
        return
    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rest]}"))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("rows", total=None, rest="starting Prefect …")

        def show(progress: Progress) -> None:
            left = "" if progress.seconds_left is None else f"  {clock(progress.seconds_left)} left"
            rest = f"{progress.activity()}  {progress.cost}{left}"
            bar.update(task, total=progress.rows, completed=progress.rows_done, rest=rest)

        handler = RichHandler(logging.WARNING, bar.console, show_path=False)
        log.addHandler(handler)
        try:
            yield Watcher(0.0, show)
        finally:
            log.removeHandler(handler)
