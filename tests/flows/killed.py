"""A run that kills itself with SIGKILL at a given place: `python -m tests.flows.killed PLACE PARAMETERS`.

Places: `before:N`, `after:N` and `torn:N` are the Nth event of the journal (torn: half of its line is written);
`create:N`, `upload:N`, `look:N`, `results:N` are the Nth such call, after the provider answered and before anybody
hears of it; results that are streamed die in the middle. `compact:N` is the Nth step of merging results parts, which
then is done for few parts too: half written; whole, but not in the journal; half in it; in it; one old part deleted.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import orjson

from blocks import transport
from flows.cli import main as command
from flows.domain import compaction
from flows.domain.events import EVENTS, Compacted, Event
from flows.engine import compact
from flows.storage import compaction as merging
from flows.storage.journal import Journal
from flows.storage.tables import NumberedWriter
from tests.flows.undecorated import enrich


def die() -> None:
    """As the system would kill it: nothing is flushed, closed or said."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_event(kind: str, is_it: Callable[[Event], bool]) -> None:
    """Die around the append of an event."""
    append = Journal.append

    def counting(self: Journal, event: Event) -> None:
        reached = is_it(event)
        if reached and kind == "before":
            die()
        if reached and kind == "torn":
            line = EVENTS.dump_json(event)
            self._file.write(line[: len(line) // 2])
            self._file.flush()
            die()
        append(self, event)
        if reached:
            die()

    Journal.append = counting  # type: ignore[method-assign]  # the place to die


def die_at_call(kind: str, number: int) -> None:
    """Die when the answer to the Nth call of a kind has arrived."""
    call, lines, counter = transport.Transport._call, transport.Transport.lines, itertools.count(1)

    def counting(self: transport.Transport, method: str, path: str, **options: Any) -> Any:
        answer = call(self, method, path, **options)
        if kind == _kind_of(method, path, **options) and next(counter) == number:
            die()
        return answer

    def counting_lines(self: transport.Transport, path: str) -> Generator[bytes, None, None]:
        for line in lines(self, path):
            if kind == "results" and next(counter) == number:
                die()
            yield line

    transport.Transport._call = counting  # type: ignore[method-assign]
    transport.Transport.lines = counting_lines  # type: ignore[method-assign]


class _HalfWriter(NumberedWriter):
    def __exit__(self, *_: object) -> None:
        die()


def die_at_compaction(step: int) -> None:
    """Merge also few parts, and die at that step of it."""
    compaction.MAX_PARTS, compaction.GROWTH = 1, 2
    match step:
        case 1:
            merging.NumberedWriter = _HalfWriter  # type: ignore[attr-defined]
        case 2:
            compact.check_part = lambda *_: die()  # type: ignore[attr-defined]
        case 3 | 4:
            die_at_event("torn" if step == 3 else "after", lambda event: isinstance(event, Compacted))
        case 5:
            die_after_deleting()


def die_after_deleting() -> None:
    """Die when the first results part was deleted."""
    unlink = Path.unlink

    def counting(self: Path, missing_ok: bool = False) -> None:
        unlink(self, missing_ok)
        if self.suffix == ".pq":
            die()

    Path.unlink = counting  # type: ignore[method-assign]


def _kind_of(method: str, path: str, *, creating: bool = False, **_: Any) -> str:
    if method == "POST":
        return "create" if creating else "upload"
    return "results" if path.endswith("/results") else "look"


def plan_death(place: str) -> None:
    """Die at that place, if the process gets there."""
    kind, _, number = place.partition(":")
    counter = itertools.count(1)
    if kind == "compact":
        die_at_compaction(int(number))
    elif kind in {"before", "after", "torn"}:
        die_at_event(kind, lambda _: next(counter) == int(number))
    else:
        die_at_call(kind, int(number))


def main(place: str, *arguments: str) -> None:
    """Run until the place, or to the end: the loop alone for parameters as JSON, else the command."""
    plan_death(place)
    if len(arguments) == 1:
        enrich(**orjson.loads(arguments[0]))
        return
    sys.argv = ["batchwerk", *arguments]
    command()


if __name__ == "__main__":
    main(*sys.argv[1:])
