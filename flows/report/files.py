"""The report as files in the state directory."""

from __future__ import annotations

from flows.report.figures import Figures
from flows.report.markdown import markdown
from flows.storage.files import write_json, write_text
from flows.storage.state import StateDirectory


def write_report(state: StateDirectory, figures: Figures) -> None:
    """report.json for programs, report.md for people."""
    write_json(state.report("json"), figures.details())
    write_text(state.report("md"), markdown(figures))
