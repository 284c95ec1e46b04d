"""The machine: room on the disk, locks of the file system, memory and processors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from blocks.printable import counted
from flows.checks.check import Finding, Level

MB, GB = 10**6, 10**9
LITTLE, TOO_LITTLE = GB, 100 * MB  # of room on a disk
LITTLE_MEMORY = 512 * MB
LOCK_SECONDS = 10.0

# What another process does with a file that this one has locked: exit status 3 if the lock holds it back.
TRY_TO_LOCK = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(3)
"""


def check_disk(folder: Path) -> Iterator[Finding]:
    """Room where the output is written, and where plans are sorted."""
    for place in dict.fromkeys((folder, Path(tempfile.gettempdir()))):
        if not os.access(place, os.W_OK | os.X_OK):
            yield Finding("disk", Level.PROBLEM, f"{place} is not writable", "choose another folder")
            continue
        room, files = shutil.disk_usage(place), os.statvfs(place)
        what = f"{_size(room.free)} of {_size(room.total)} free in {place}"
        if room.free < TOO_LITTLE or (files.f_files and not files.f_favail):
            what += "" if room.free < TOO_LITTLE else ", but no more files can be made there"
            yield Finding("disk", Level.PROBLEM, what, "free some space: a run stops where there is none")
        elif room.free < LITTLE:
            yield Finding("disk", Level.WARNING, what, "requests, answers and output take about four times the input")
        else:
            yield Finding("disk", Level.OK, what)


def check_locks(folder: Path) -> Iterator[Finding]:
    """Whether a lock of one process keeps out another one."""
    import fcntl  # noqa: PLC0415  # not on every system

    with tempfile.NamedTemporaryFile(dir=folder, prefix=".batchwerk-doctor-") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        command = [sys.executable, "-I", "-c", TRY_TO_LOCK, file.name]
        tried = subprocess.run(command, capture_output=True, timeout=LOCK_SECONDS, check=False)  # noqa: S603  # our own code
    if tried.returncode == 3:
        yield Finding("locks", Level.OK, f"locks keep a second process out in {folder}")
    elif tried.returncode == 0:
        what = f"locks keep nobody out in {folder}"
        advice = "the lease file does: after a kill on another machine, the next run waits up to five minutes"
        yield Finding("locks", Level.WARNING, what, advice)
    else:
        said = tried.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        what = f"a second process can't use a file in {folder}: {said}"
        yield Finding("locks", Level.PROBLEM, what, "use another disk")


def check_machine() -> Iterator[Finding]:
    """Memory and processors that this process may use."""
    free, processors = _free_memory(), len(os.sched_getaffinity(0))
    what = counted(processors, "processor") + (f", {_size(free)} of memory free" if free else "")
    if free and free < LITTLE_MEMORY:
        yield Finding("machine", Level.WARNING, what, "a run takes up to 600 MB: end other programs")
    else:
        yield Finding("machine", Level.OK, what)


def _free_memory() -> int | None:
    """Bytes, of the machine or of the container, whatever is less; None where the system does not say."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        group = Path("/sys/fs/cgroup")
        most, used = (group / name for name in ("memory.max", "memory.current"))
        found.append(int(most.read_text(encoding="ascii")) - int(used.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no limit says "max"
        pass
    return min(found, default=None)


def _size(count: int) -> str:
    return f"{count / GB:,.1f} GB" if count >= GB else f"{count / MB:,.0f} MB"
