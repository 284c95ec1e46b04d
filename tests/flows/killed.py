"""A run that kills itself with SIGKILL at a given place: `python -m tests.flows.killed PLACE PARAMETERS`.

Places: `before:N`, `after:N` and `torn:N` are the Nth event of the journal (torn: half of its line is written);
`create:N`, `upload:N`, `look:N`, `results:N` are the Nth such call, after the provider answered and before anybody
hears of it; results that are streamed die in the middle.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from typing import Any

import orjson

from blocks import transport
from flows.cli import main as command
from flows.domain.events import EVENTS, Event
from flows.storage.journal import Journal
from tests.flows.undecorated import enrich


def die() -> None:
    """As the system would kill it: nothing is flushed, closed or said."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_event(kind: str, number: int) -> None:
    """Die around the Nth append of this process."""
    append, counter = Journal.append, itertools.count(1)

    def counting(self: Journal, event: Event) -> None:
        reached = next(counter) == number
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
    call, next_lines, counter = transport.Transport._call, transport._Download.next_lines, itertools.count(1)

    def counting(self: transport.Transport, method: str, path: str, **options: Any) -> Any:
        answer = call(self, method, path, **options)
        if kind == _kind_of(method, path, **options) and next(counter) == number:
            die()
        return answer

    def counting_lines(self: transport._Download) -> list[bytes] | None:
        lines = next_lines(self)
        if kind == "results" and next(counter) == number:
            die()
        return lines

    transport.Transport._call = counting  # type: ignore[method-assign]
    transport._Download.next_lines = counting_lines  # type: ignore[method-assign]


def _kind_of(method: str, path: str, *, creating: bool = False, **_: Any) -> str:
    if method == "POST":
        return "create" if creating else "upload"
    return "results" if path.endswith("/results") else "look"


def main(place: str, *arguments: str) -> None:
    """Run until the place, or to the end: the loop alone for parameters as JSON, else the command."""
    kind, _, number = place.partition(":")
    (die_at_event if kind in {"before", "after", "torn"} else die_at_call)(kind, int(number))
    if len(arguments) == 1:
        enrich(**orjson.loads(arguments[0]))
        return
    sys.argv = ["batchwerk", *arguments]
    command()


if __name__ == "__main__":
    main(*sys.argv[1:])
