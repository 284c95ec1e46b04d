"""Small files that a user names: read only if they are files, and only if they are small."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from blocks.errors import UsageError

MOST_BYTES = 1_000_000


def read_small_file(path: Path, what: str, most: int = MOST_BYTES) -> str:
    """The text of a file. `what` it is goes into the message of a UsageError, which quotes nothing of the file.

    Never waits: a named pipe would, and a device has no end.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise UsageError(f"{what} {path} can't be read: {error.strerror}") from error
    try:
        content = _content(handle, most) if stat.S_ISREG(os.fstat(handle).st_mode) else None
    finally:
        os.close(handle)
    if content is None:
        raise UsageError(f"{what} {path} is not a regular file")
    if len(content) > most:
        raise UsageError(f"{what} {path} is larger than {most:,} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} {path} is not text in UTF-8") from error


def _content(handle: int, most: int) -> bytes:
    content = b""
    while len(content) <= most and (more := os.read(handle, most + 1)):
        content += more
    return content
