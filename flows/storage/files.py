"""Files that are either complete or absent, whenever the process dies."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from blocks.errors import StateError

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700  # rows and answers are nobody else's business


def open_plain(path: Path, flags: int) -> int:
    """A handle on a regular file, private if it is new. Raises StateError for a link, and for what is no file."""
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, PRIVATE_FILE)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise StateError(
            f"{path} is a symbolic link, and files of the state directory are never reached through one",
            next_step="put the file itself in its place",
        ) from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise StateError(f"{path} is not a regular file", next_step="restore the state directory from a backup")
    return handle


def make_folder(path: Path, *, private: bool = True) -> None:
    """Make a folder and those above it, durably; one that exists is left as it is."""
    if path.is_dir():
        return
    make_folder(path.parent, private=private)
    path.mkdir(exist_ok=True)
    if private:
        path.chmod(PRIVATE_FOLDER)
    sync_folder(path.parent)


@contextmanager
def replacing(path: Path, mode: int = PRIVATE_FILE) -> Iterator[Path]:
    """A new file in the same folder, to be filled, that becomes `path` in one step, or leaves no trace."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, PRIVATE_FILE))
        yield temporary
        with temporary.open("rb+") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask is
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file."""
    with replacing(path) as temporary:
        temporary.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def write_text(path: Path, text: str) -> None:
    """Replace a text file."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
