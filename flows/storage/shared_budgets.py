"""What outputs that share a monthly budget have spent or reserved of it: a file for each of them, and a lock.

An output's file is written under the lock before its batches are reserved, so two runs never take the same dollar.
What a dead process reserved stays in its file until a run of the same output knows better.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from blocks.errors import Busy, StateError
from flows.domain.budget import Month
from flows.storage.files import make_folder, open_plain, replacing
from flows.storage.locks import locks_work, try_lock
from flows.storage.state import read_json

FOLDER = "BATCHWERK_BUDGETS"  # of the environment: the folder that all runs see that share budgets
USUAL_FOLDER = "~/.batchwerk/budgets"
PATIENCE = 60.0  # seconds for a lock that is held for milliseconds
_NEXT_TRY = 0.02  # seconds
_AMOUNT, _OUTPUT = "committed_pico_usd", "output"


def budgets_folder() -> Path:
    """Where budgets with names are kept."""
    return Path(os.environ.get(FOLDER) or USUAL_FOLDER).expanduser()


class SharedBudget:
    """A budget with a name, as one output of it sees it."""

    def __init__(self, name: str, run_id: str, output: Path, *, emulated: bool) -> None:
        """`emulated`: what the emulator's answers would have cost is no money, and kept apart."""
        self.name = name
        self._folder = budgets_folder() / name
        self._run_id = run_id
        self._output = output
        self._suffix = ".emulated" if emulated else ""
        self._written: tuple[Month, int] | None = None
        self._checked = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else reserves or settles meanwhile. Raises Busy if that lasts, StateError where locks do not work."""
        handle = self._lock_file()
        try:
            end = time.monotonic() + PATIENCE
            while not try_lock(handle):
                if time.monotonic() > end:
                    raise Busy(
                        f"the budget {self.name} is locked by another process",
                        next_step=f"look for a run that was stopped by hand, or delete {self._folder / 'lock'}",
                    )
                time.sleep(_NEXT_TRY)
            self._check_locks()
            yield
        finally:
            os.close(handle)

    def others(self, month: Month) -> int:
        """Pico-dollars of the month that other outputs have spent or reserved. Raises StateError if that is unknown."""
        found = (self._amount(path) for path in self._files(month) if path.stem != self._run_id)
        return sum(found)

    def note(self, month: Month, amount: int) -> None:
        """Keep what this output has spent or reserved of the month; it is on disk when this returns."""
        if self._written == (month, amount):
            return
        folder = self._month(month)
        make_folder(folder, private=False)
        folder.chmod(self._mode(0o777))
        path = folder / f"{self._run_id}.json"
        with replacing(path, self._mode(0o666)) as temporary:
            temporary.write_bytes(orjson.dumps({_OUTPUT: str(self._output.absolute()), _AMOUNT: str(amount)}))
        self._written = month, amount

    def _files(self, month: Month) -> list[Path]:
        return sorted(self._month(month).glob("[!.]*.json"))

    def _month(self, month: Month) -> Path:
        return self._folder / f"{month}{self._suffix}"

    def _amount(self, path: Path) -> int:
        content = read_json(path)
        try:
            return int(content[_AMOUNT])
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(
                f"{path} does not say what {content.get(_OUTPUT, 'an output')} has taken of the budget {self.name}",
                next_step="run that output again, which writes it anew, or delete the file if it has spent nothing",
            ) from error

    def _mode(self, most: int) -> int:
        """What the folder of all budgets allows to others, its files allow too: a team shares what it made for that."""
        return most & self._folder.parent.stat().st_mode

    def _lock_file(self) -> int:
        top = self._folder.parent
        make_folder(top)
        if not self._folder.is_dir():
            make_folder(self._folder, private=False)
            self._folder.chmod(self._mode(0o777))
        path = self._folder / "lock"
        is_new = not path.exists()
        handle = open_plain(path, os.O_RDWR | os.O_CREAT)
        if is_new:
            os.fchmod(handle, self._mode(0o666))
        return handle

    def _check_locks(self) -> None:
        """Some file systems grant every lock."""
        if self._checked:
            return
        if not locks_work(self._folder / "lock"):
            raise StateError(
                f"{self._folder} is on a file system that does not keep locks, so outputs can't share a budget there",
                next_step=f"name a folder on another one in {FOLDER}",
            )
        self._checked = True
