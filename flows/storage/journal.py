"""The journal: one JSON line an event, on disk before anybody acts on it."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from blocks.errors import StateError
from flows.domain.events import EVENTS, Event
from flows.storage.files import sync_folder


def read_events(path: Path) -> list[Event]:
    """All complete lines. A torn last one is what a crash leaves and is ignored; any other is refused by its number."""
    if not path.exists():
        return []
    content = path.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    return [_parse(line, number, path) for number, line in enumerate(lines, 1)]


def _parse(line: bytes, number: int, path: Path) -> Event:
    try:
        return EVENTS.validate_json(line)
    except ValidationError as error:
        raise StateError(
            f"{path} is damaged at line {number}: {error.errors()[0]['msg']}",
            next_step="restore the state directory from a backup; nothing was changed or sent",
        ) from error


class Journal:
    """An open journal. Only the process that holds the state directory writes it."""

    def __init__(self, path: Path) -> None:
        self.events = read_events(path)
        self._file = path.open("ab")
        self._file.truncate(_end_of_last_line(path))
        os.fsync(self._file.fileno())
        sync_folder(path.parent)

    def append(self, event: Event) -> None:
        """Write one event down; it is on disk when this returns."""
        self._file.write(EVENTS.dump_json(event) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _end_of_last_line(path: Path) -> int:
    content = path.read_bytes()
    return content.rfind(b"\n") + 1
