"""The report in Prefect: progress, the cost table and the whole text as artifacts of the flow run."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID

import orjson
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate

from flows.orchestration.server import PrefectServer
from flows.report.figures import Figures
from flows.report.markdown import code, cost_table, markdown
from flows.report.progress import Progress, Watcher, in_background, thinned

UPDATE_EVERY = 10.0  # seconds


def publish_artifacts(server: PrefectServer, figures: Figures, flow_run: UUID | None) -> None:
    """Create the cost table and the report; each output has its own keys, so Prefect shows their history.

    Raises ServerAway.
    """
    name = _key(Path(figures.output))
    table = orjson.dumps(cost_table(figures)).decode()
    for key, kind, what, data in (
        (f"cost-{name}", "table", "Cost", table),
        (f"report-{name}", "markdown", "Report", markdown(figures)),
    ):
        made = ArtifactCreate(
            key=key, type=kind, description=f"{what} of {code(figures.output)}", data=data, flow_run_id=flow_run
        )
        server.ask(lambda client, made=made: client.create_artifact(made))  # type: ignore[misc]


def progress_watcher(server: PrefectServer, output: Path, flow_run: UUID | None) -> Watcher:
    """Shows progress as an artifact that is created on first use and updated after, less and less often."""
    made: list[UUID] = []

    def show(progress: Progress) -> None:
        share, text = round(100.0 * progress.rows_done / max(1, progress.rows), 2), progress.sentence()
        if made:
            update = ArtifactUpdate(data=share, description=text)
            server.ask(lambda client: client.update_artifact(made[0], update))
            return
        new = ArtifactCreate(
            key=f"progress-{_key(output)}", type="progress", description=text, data=share, flow_run_id=flow_run
        )
        made.append(server.ask(lambda client: client.create_artifact(new)).id)

    return Watcher(UPDATE_EVERY, thinned(in_background(show), UPDATE_EVERY), last=show)


def _key(output: Path) -> str:
    """An artifact key: Prefect allows only lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", output.stem.lower()).strip("-") or "output"
