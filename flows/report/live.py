"""The live display of the command line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from flows.domain.money import show_usd
from flows.report.progress import Progress, clock, terminal


@contextmanager
def shown(*, on_terminal: bool) -> Iterator[None]:
    """On a terminal a live line with our log above it; elsewhere plain log lines. Both on standard error."""
    log = logging.getLogger("batchwerk")
    log.setLevel(logging.INFO)
    if not on_terminal:
        handler: logging.Handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        with _handled(log, handler):
            yield
        return
    console = Console(stderr=True)
    bar = Bar(
        TextColumn("rows"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rest]}"),
        console=console,
        transient=True,
    )
    with bar, _handled(log, RichHandler(console=console, show_path=False, show_level=False)):
        task = bar.add_task("rows", total=None, rest="")

        def watch(progress: Progress) -> None:
            left = "" if progress.seconds_left is None else f"  {clock(progress.seconds_left)} left"
            rest = f"{progress.in_flight} batches in flight  {show_usd(progress.spent)} so far{left}"
            bar.update(task, total=progress.rows, completed=progress.rows_done, rest=rest)

        token = terminal.set(watch)
        try:
            yield
        finally:
            terminal.reset(token)


@contextmanager
def _handled(log: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    """Instead of Prefect's console; its handler for the UI stays."""
    before = log.handlers
    log.handlers = [other for other in before if not isinstance(other, logging.StreamHandler)] + [handler]
    try:
        yield
    finally:
        log.handlers = before
