"""Where a state directory is and how long its journal was: what tells it from a copy, an old one or a part of one."""

from __future__ import annotations

import os
from pathlib import Path

from blocks.errors import StateError
from flows.storage.files import open_plain, sync_folder, write_json
from flows.storage.state import RESTORE, StateDirectory, read_json

MARKER = "noted-"


def check_place(state: StateDirectory, *, moved: bool) -> None:
    """Check that the journal is here, whole, and where it was. Call it before the journal is opened.

    Raises StateError: without its journal a run would pay for everything again, and with an old or a second copy
    for everything that this copy does not know of. `moved`: the user says that this is the copy to go on with.
    """
    newest = max(_markers(state.path), default=0)  # before run.json, which a run that works right now writes first
    run = state.read_run()
    known = run.get("place") if run is not None else None
    journal = state.journal.lstat() if state.journal.exists() else None
    if known is None:
        if journal is not None and journal.st_size:
            raise StateError(f"{state.run_file} is missing, but there is a journal", next_step=RESTORE)
        return
    if journal is None or journal.st_size < known["bytes"]:
        raise StateError(
            f"{state.journal} is missing, or shorter than it was: what was sent and paid for is unknown",
            next_step=f"{RESTORE}; or delete {state.path.name} and pay for everything again",
        )
    if (known["folder"], known["journal"]) != (state.path.stat().st_ino, journal.st_ino) and not moved:
        raise StateError(
            f"{state.path} was moved to another disk, copied, or restored from a backup: what another copy sent in "
            "the meantime would be paid for again",
            next_step="if this is the newest copy and the only one that will be used, add --state-moved once",
        )
    if known["number"] < newest and not moved:
        raise StateError(
            f"a backup was copied over {state.path}: what was sent since it was made would be paid for again",
            next_step="restore a newer one; if there is none, --state-moved goes on and pays for the rest again",
        )


def note_place(state: StateDirectory) -> None:
    """Note where the journal is and how long it is, for the next run's `check_place`.

    Each note has a number, which is also the name of an empty file: files that are copied over the directory take
    the place of all others, but not of that one.
    """
    run, journal, markers = read_json(state.run_file), state.journal.lstat(), _markers(state.path)
    number = max([run.get("place", {}).get("number", 0), *markers]) + 1
    place = {"folder": state.path.stat().st_ino, "journal": journal.st_ino, "bytes": journal.st_size}
    write_json(state.run_file, {**run, "place": {**place, "number": number}})
    os.close(open_plain(state.path / f"{MARKER}{number:06d}", os.O_WRONLY | os.O_CREAT))
    for path in markers.values():
        path.unlink()
    sync_folder(state.path)


def _markers(folder: Path) -> dict[int, Path]:
    """The files that are named by the number of a note; more than one after a crash, or after a copy."""
    found = {path.name.removeprefix(MARKER): path for path in folder.glob(f"{MARKER}*")}
    return {int(number): path for number, path in found.items() if number.isdecimal()}
