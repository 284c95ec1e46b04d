"""Writing the output, unless it already holds exactly this."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any

from blocks.errors import StateError
from flows.domain.events import Published as PublishedEvent
from flows.run import Run, now
from flows.storage.files import write_json
from flows.storage.publish import PENDING, Published, publish_output
from flows.storage.source import identity_of
from flows.storage.state import read_or_none

log = logging.getLogger("batchwerk")


def publish(run: Run) -> Published:
    """Write the output and, last, `published.json`, which says what it holds."""
    with run.guard():
        content = _content(run)
        held = _already_published(run, content)
        if held is not None:
            return held
        if not run.checked.source.check_unchanged():
            raise StateError(
                f"{run.checked.source.path} changed while the run was working on it",
                next_step="run the same command again: answers that still fit are kept, only changed rows are sent",
            )
        started = time.monotonic()
        published = _write(run)
        _note(run, content, published)
        log.info(
            "published %s rows to %s in %.1f s",
            f"{published.rows:,}", run.checked.settings.output, time.monotonic() - started,
        )  # fmt: skip
    return published


def _write(run: Run) -> Published:
    checked = run.checked
    checked.settings.output.parent.mkdir(parents=True, exist_ok=True)
    return publish_output(
        checked.source,
        checked.state.rows,
        run.results,
        run.ledger,
        checked.publication,
        checked.settings.output,
        checked.settings.limit,
        before_replacing=lambda file: write_json(checked.state.publishing, {"output": identity_of(file)}),
    )


def _content(run: Run) -> dict[str, Any]:
    """What decides how the output looks: the same content needs no second writing."""
    return {
        "input": run.checked.source.identity,
        "plan": run.checked.question.identity,
        "schema": run.checked.terms.schema_id,
        "rename": dict(run.checked.terms.job.rename),
        "model": run.checked.publication.model,
        "batches": [batch.number for batch in run.results.parts(run.ledger)],
        "final": [list(part[:2]) for part in run.ledger.final],
    }


def _already_published(run: Run, content: dict[str, Any]) -> Published | None:
    place, output = run.checked.state.published, run.checked.settings.output
    before = read_or_none(place)
    if before is None or not output.exists() or before.get("output") != identity_of(output):
        return None
    if before.get("content") != content:
        return None
    return Published(Counter(before["statuses"]), before["rows_cost_pico_usd"], before["shared_cost_pico_usd"])


def _note(run: Run, content: dict[str, Any], published: Published) -> None:
    complete = not published.statuses[PENDING]
    statuses = dict(published.statuses)
    write_json(
        run.checked.state.published,
        {
            "complete": complete,
            "statuses": statuses,
            "rows_cost_pico_usd": published.rows_cost,
            "shared_cost_pico_usd": published.shared_cost,
            "output": identity_of(run.checked.settings.output),
            "content": content,
        },
    )
    run.record(PublishedEvent(at=now(), rows=published.rows, statuses=statuses, complete=complete))
