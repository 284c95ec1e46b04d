"""The journal: one JSON line per event, on disk before anything acts on it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from blocks.errors import StateError
from flows.domain.events import EVENTS, Event
from flows.storage.files import open_plain, sync_folder


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

    def __init__(self, path: Path, before_append: Callable[[], None] = lambda: None) -> None:
        """`before_append` raises if this process may no longer write."""
        content = _complete_lines(path) if path.exists() else b""
        self.events = _parse(content, path)
        self._path = path
        self._before_append = before_append
        self._file = os.fdopen(open_plain(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), "ab", buffering=0)
        self._size = len(content)
        self._file.truncate(self._size)
        os.fsync(self._file.fileno())
        sync_folder(path.parent)

    def append(self, event: Event) -> None:
        """Add an event; it is on disk when this returns. Raises StateError if another process has taken over."""
        line = EVENTS.dump_json(event) + b"\n"
        self.check_held()
        try:
            left = memoryview(line)
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):
                self._file.truncate(self._size)  # what follows must not stand behind half a line
            raise
        self._size += len(line)

    def check_held(self) -> None:
        """Raises StateError unless the journal is ours and as we left it."""
        self._before_append()
        ours, there = os.fstat(self._file.fileno()), self._path.lstat() if self._path.exists() else None
        if there is None or not os.path.samestat(ours, there) or ours.st_size != self._size:
            raise StateError(
                f"{self._path} was changed by another process while this one was using it",
                next_step="nothing more was sent; make sure that only one process works on the output, then run the "
                "same command again",
            )

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
