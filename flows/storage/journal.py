"""The journal: one JSON line per event, on disk before anything acts on it."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from blocks.errors import StateError
from flows.domain.events import EVENTS, Event
from flows.storage.files import sync_folder


def read_events(path: Path) -> list[Event]:
    """All events; none if there is no journal. Raises StateError for a damaged line, by its number."""
    return _parse(_complete_lines(path), path) if path.exists() else []


def _complete_lines(path: Path) -> bytes:
    """Everything but a last line without an end, which is what a crash leaves."""
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]


def _parse(content: bytes, path: Path) -> list[Event]:
    events: list[Event] = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            events.append(EVENTS.validate_json(line))
        except ValidationError as error:
            raise StateError(
                f"{path} is damaged at line {number}: {error.errors()[0]['msg']}",
                next_step="restore the state directory from a backup; nothing was changed or sent",
            ) from error
    return events


class Journal:
    """An open journal. Only the process that holds the state directory may write it."""

    def __init__(self, path: Path) -> None:
        content = _complete_lines(path) if path.exists() else b""
        self.events = _parse(content, path)
        self._file = path.open("ab")
        self._file.truncate(len(content))
        os.fsync(self._file.fileno())
        sync_folder(path.parent)

    def append(self, event: Event) -> None:
        """Add an event; it is on disk when this returns."""
        self._file.write(EVENTS.dump_json(event) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
