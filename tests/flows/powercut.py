"""A run whose power is cut: `main` notes what is safe on the disk, `restore` takes away everything else.

The content of a file is safe as it was when the file was last synced; a name in a folder as it was when the folder was.
A disk may have kept more than that, so there are two ends: `strict` loses all that was not synced; `names` keeps every
new name, but with nothing in a file that was not synced.
"""

from __future__ import annotations

import os
import sys
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from tests.flows.killed import die
from tests.flows.undecorated import enrich

PROVIDER = "emulator-"  # its database is on another machine, as it were


class Disk:
    """What is safe. Everything that is there at the beginning is."""

    def __init__(self, root: Path) -> None:
        self.contents: dict[str, tuple[str, int]] = {}  # by inode: content, time of the last change
        self.names: dict[str, dict[str, int]] = {}  # by folder: inodes by name
        self._held: list[int] = []  # no inode may be used again for another file
        for folder, _, files in os.walk(root):
            self.synced(os.open(folder, os.O_RDONLY))
            for name in files:
                self.synced(os.open(Path(folder) / name, os.O_RDONLY))

    def synced(self, handle: int) -> None:
        """A file or folder was synced."""
        handle = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY)
        self._held.append(handle)
        place, found = Path(f"/proc/self/fd/{handle}").readlink(), os.fstat(handle)
        if place.is_dir():
            self.names[str(place)] = {entry.name: entry.inode() for entry in os.scandir(place)}
            self._held += [os.open(path, os.O_RDONLY) for path in place.iterdir()]
        else:
            content = os.pread(handle, found.st_size, 0)
            self.contents[str(found.st_ino)] = b64encode(content).decode(), found.st_mtime_ns


def main(kind: str, number: str, noted: str, parameters: str) -> None:
    """Run until the Nth sync (of the journal, if `kind` is `journal`) is about to happen; then die."""
    call: dict[str, Any] = orjson.loads(parameters)
    disk, sync, lock, left = Disk(Path(call["input"]).parent), os.fsync, threading.Lock(), int(number)

    def counting(handle: int) -> None:
        nonlocal left
        with lock:
            if kind == "any" or Path(f"/proc/self/fd/{handle}").readlink().name == "journal.jsonl":
                left -= 1
            if left == 0:
                Path(noted).write_bytes(orjson.dumps({"contents": disk.contents, "names": disk.names}))
                die()
            sync(handle)
            disk.synced(handle)

    os.fsync = counting  # type: ignore[assignment]  # it is only given handles
    sys.stdout.write(f"{int(enrich(**call).exit)}\n")


def restore(root: Path, noted: Path, *, strict: bool) -> None:
    """Leave of a folder what was safe. Files that stay keep their inodes."""
    safe = orjson.loads(noted.read_bytes())
    _restore(root, safe["names"], safe["contents"], strict=strict)


def _restore(folder: Path, names: dict[str, dict[str, int]], contents: dict[str, Any], *, strict: bool) -> None:
    there = {path.name: path.lstat().st_ino for path in folder.iterdir() if not path.name.startswith(PROVIDER)}
    wanted = names.get(str(folder), {}) if strict else there
    for name in there.keys() - wanted.keys():
        _remove(folder / name)
    for name, inode in wanted.items():
        path = folder / name
        if str(path) in names or path.is_dir():
            _restore(path, names, contents, strict=strict)
        elif not name.startswith(PROVIDER):
            if there.get(name) != inode:
                path.unlink(missing_ok=True)
            _write(path, *contents.get(str(inode), ("", 0)))


def _write(path: Path, content: str, changed: int) -> None:
    decoded = b64decode(content)
    if not path.exists() or path.read_bytes() != decoded:
        path.write_bytes(decoded)
        os.utime(path, ns=(changed, changed))


def _remove(path: Path) -> None:
    """Everything but the provider's database, and what it lies in."""
    for inside in _inside(path):
        if not inside.is_dir() and not inside.name.startswith(PROVIDER):
            inside.unlink()


def _inside(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir():
        yield from path.rglob("*")
