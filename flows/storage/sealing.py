"""Seals: a Parquet file that the journal relies on is known again at every opening, without reading all of it.

The footer says where each page lies, and each page has a checksum that is verified when it is read. A token that is
drawn for each file makes the footers of two files differ even if all else is the same.
"""

from __future__ import annotations

import os
import secrets
from hashlib import blake2b
from pathlib import Path

from blocks.errors import StateError
from flows.domain.events import Seal
from flows.storage.files import open_plain

_TAIL = 8  # the length of the footer and the magic number


def fresh_token() -> dict[str, str]:
    """Metadata that no other file has."""
    return {"token": secrets.token_hex(8)}


def seal_of(path: Path) -> Seal:
    """The seal of a Parquet file; for any other file, of its end."""
    handle = open_plain(path, os.O_RDONLY)
    try:
        size = os.fstat(handle).st_size
        tail = os.pread(handle, _TAIL, max(0, size - _TAIL))
        length = min(size, int.from_bytes(tail[:4], "little") + _TAIL)
        return Seal(size, blake2b(os.pread(handle, length, size - length), digest_size=16).hexdigest())
    finally:
        os.close(handle)


def is_sealed(path: Path, seal: Seal) -> bool:
    """Whether the file is the one that was sealed."""
    try:
        return seal_of(path) == seal
    except FileNotFoundError:
        return False


def check_seal(path: Path, seal: Seal) -> None:
    """Raises StateError for a file that is missing or another one than the journal says."""
    if not path.exists():
        problem = "is missing"
    elif not is_sealed(path, seal):
        problem = "is damaged, or is not the file that the journal says"
    else:
        return
    raise StateError(
        f"{path} {problem}: without it the numbers of requests mean nothing",
        next_step="restore the state directory from a backup as a whole; nothing was changed or sent",
    )
