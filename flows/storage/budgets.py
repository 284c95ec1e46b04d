"""What outputs that share a monthly budget have spent or may still be billed: a small file for each, under one lock.

A file is written before anything is sent that it counts, and is never lower than what may be billed: an output that
died keeps what it had reserved until it goes on.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import orjson

from blocks.errors import StateError
from flows.storage.files import make_folder, open_plain, write_json

FOLDER = "BATCHWERK_BUDGETS"  # the variable that names it
USUAL_FOLDER = "~/.batchwerk/budgets"


class SharedBudget:
    """The sums of the outputs that share a budget. `folder`: of its name."""

    def __init__(self, folder: Path, output: Path) -> None:
        self._folder = folder
        self._output = str(output.absolute())
        self._month = folder
        self._noted: tuple[Path, int] | None = None

    @classmethod
    def of(cls, name: str, output: Path, *, emulated: bool) -> SharedBudget:
        """That of a name; what the emulator's answers would have cost is no money, and kept apart."""
        place = Path(os.environ.get(FOLDER) or USUAL_FOLDER).expanduser()
        return cls(place / (f"{name}.emulated" if emulated else name), output)

    @contextmanager
    def locked(self, month: str) -> Iterator[int]:
        """What other outputs have committed in this month, such as `2026-11`, in pico-dollars; they wait meanwhile."""
        self._month = self._folder / month
        make_folder(self._month)
        handle = open_plain(self._folder / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield sum(self._read(path) for path in self._month.glob("*.json") if path != self._mine)
        finally:
            os.close(handle)

    def note(self, committed: int) -> None:
        """What this output has committed in the month that is locked."""
        if self._noted != (self._mine, committed):
            write_json(self._mine, {"output": self._output, "committed": committed})
            self._noted = self._mine, committed

    @property
    def _mine(self) -> Path:
        return self._month / f"{blake2b(self._output.encode(), digest_size=8).hexdigest()}.json"

    @staticmethod
    def _read(path: Path) -> int:
        try:
            return int(orjson.loads(path.read_bytes())["committed"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise StateError(
                f"{path} can't be read: {error!r}",
                next_step="it says what another output spends of the budget; delete it if that output is gone",
            ) from error
