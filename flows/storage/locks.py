"""Locks on files, which the system takes back when a process dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from flows.storage.files import open_plain


def try_lock(handle: int) -> bool:
    """Lock a file; false if somebody else has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def locks_work(path: Path) -> bool:
    """Whether a second lock is refused while this process holds the first: some file systems grant all."""
    handle = open_plain(path, os.O_RDWR)
    try:
        return not try_lock(handle)
    finally:
        os.close(handle)
