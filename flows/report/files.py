"""The report as files in the state directory, and the run as a line of the output's history."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jinja2 import UndefinedError

from blocks.errors import BatchwerkError, StateError, UsageError
from flows.domain.estimate import Estimate
from flows.engine.publish import published_before
from flows.engine.run import Run
from flows.report.contents import Contents
from flows.report.figures import Figures, figures_of
from flows.report.history import run_of, runs_as_json
from flows.report.markdown import markdown
from flows.report.page import page
from flows.report.verdict import Exit
from flows.storage.files import open_plain, write_json, write_text
from flows.storage.history import add_to_history
from flows.storage.state import StateDirectory

log = logging.getLogger("batchwerk")

REPORTED_RUNS = 400  # the newest, in report.json


def write_report(state: StateDirectory, figures: Figures) -> None:
    """report.json for programs; report.md and, made from report.json alone, report.html for people."""
    history = add_to_history(state.runs, run_of(figures), REPORTED_RUNS)
    details = {**figures.details(), "history": runs_as_json(history), "earlier_runs": history.earlier}
    write_json(state.report("json"), details)
    write_text(state.report("md"), markdown(figures))
    try:
        draw_page(state)
    except StateError as error:  # what was paid for is published
        log.warning("%s", error.message)


@contextmanager
def failures_in_history(run: Run, forecast: Estimate, started: float) -> Iterator[None]:
    """Around work that may fail before there is anything to publish: the report stays, the history has a row."""
    try:
        yield
    except BatchwerkError as error:
        state, status = run.config.state, Exit.USAGE if isinstance(error, UsageError) else Exit.ERROR
        seconds, output = time.monotonic() - started, published_before(state)
        failed = figures_of(run, output, forecast, seconds, status, error.message, Contents())
        add_to_history(state.runs, run_of(failed), REPORTED_RUNS)
        raise


def draw_page(state: StateDirectory) -> Path:
    """Draw report.html anew, from report.json as it is, however it was written or changed. Raises StateError."""
    json, html = state.report("json"), state.report("html")
    try:
        with os.fdopen(open_plain(json, os.O_RDONLY), "rb") as file:
            drawn = page(file.read())
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, UndefinedError) as error:
        raise StateError(
            f"{json} can't be shown as a page: {error}", next_step="the same command as before writes it anew"
        ) from error
    write_text(html, drawn)
    return html
