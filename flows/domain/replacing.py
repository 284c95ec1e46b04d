"""Whether a run would take answers that were paid for out of a published output.

New and changed rows of the input never do. Another question does: another job, model, service or a trial with the
emulator; and so does leaving out rows that have answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from blocks.printable import counted


@dataclass(frozen=True, slots=True)
class Asked:
    """What an output is asked for, without its rows."""

    digest: str  # of the question; the same for the same job, model and service
    job: str
    model: str
    endpoint: str  # who answers
    emulated: bool
    skip_empty: tuple[str, ...]
    where: str | None
    limit: int | None


def what_replaces(before: Asked, now: Asked, rows: int) -> str:
    """What of this run would replace answers, as the end of a sentence; empty if nothing does.

    `rows`: how many of the rows that are published the input still has, at most.
    """
    return next(_differences(before, now, rows), "")


def _differences(before: Asked, now: Asked, rows: int) -> Iterator[str]:
    if now.emulated:
        yield "is a trial with the emulator"
    if now.endpoint != before.endpoint:
        yield f"asks another service, {now.endpoint}"
    if now.model != before.model:
        yield f"asks another model, {now.model}"
    if now.digest != before.digest:
        yield "asks another question: the job file or a provider option has changed"
    if new := [name for name in now.skip_empty if name not in before.skip_empty]:
        yield f"skips rows in which {new[0]} is empty"
    if now.where is not None and now.where != before.where:
        yield f"leaves out the rows that --where {now.where!r} does not select"
    if now.limit is not None and now.limit < rows:
        yield f"is limited to {counted(now.limit, 'row')}"
