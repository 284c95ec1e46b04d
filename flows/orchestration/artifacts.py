"""The report in Prefect: progress, the cost table and the whole text as artifacts of the flow run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.report.figures import Figures
from flows.report.markdown import code, cost_table, markdown
from flows.report.progress import Progress, Watcher, in_background

UPDATE_EVERY = 10.0  # seconds


def publish_artifacts(figures: Figures) -> None:
    """Create the cost table and the report; each output has its own keys, so Prefect shows their history."""
    name = _key(Path(figures.output))
    create_table_artifact(cost_table(figures), key=f"cost-{name}", description=f"Cost of {code(figures.output)}")
    create_markdown_artifact(markdown(figures), key=f"report-{name}", description=f"Report of {code(figures.output)}")


def progress_watcher(output: Path) -> Watcher:
    """Shows progress as an artifact that is created on first use and updated after."""
    made: list[UUID] = []

    def show(progress: Progress) -> None:
        share = 100.0 * progress.rows_done / max(1, progress.rows)
        if made:
            update_progress_artifact(made[0], share, description=progress.sentence())
        else:
            created = create_progress_artifact(share, f"progress-{_key(output)}", progress.sentence())
            made.append(cast("UUID", created))  # a coroutine only in async code

    return Watcher(UPDATE_EVERY, in_background(show))


def _key(output: Path) -> str:
    """An artifact key: Prefect allows only lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", output.stem.lower()).strip("-") or "output"
