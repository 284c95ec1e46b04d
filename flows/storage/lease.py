"""The lease: a file that names the one process that works on a state directory.

Beside it there is a lock, which the system takes back when a process dies. Some network and user-space file systems
grant every lock, or know only those of their own machine; the lease is made so that only one can exist on them too. Its
modification time is the heartbeat. It is compared with a file that was just made in the same folder, so that the clock
of the file system is the only one that counts.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from blocks.errors import Busy, StateError
from flows.storage.files import open_plain

HEARTBEAT = 10.0  # seconds
STALE = 300.0  # seconds without a heartbeat after which a process on another machine counts as dead
SETTLE = 1.0  # seconds after which somebody who took the lease at the same moment would have it
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Lease:
    """A lease that this process got. Thread-safe."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path = path
        self._handle = handle
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises StateError if the lease is no longer ours, for example because this process slept for long."""
        if not self._is_ours():
            raise StateError(
                f"{self._path.parent} was taken over by {describe(read_holder(self._path))}, because this process gave "
                "no sign of life",
                next_step="nothing more was sent; run the same command again when the other process has ended",
            )

    def release(self) -> None:
        """Let others have it."""
        self._end.set()
        self._thread.join()
        if self._is_ours():
            self._path.unlink()
        os.close(self._handle)

    def _is_ours(self) -> bool:
        try:
            return os.path.samestat(self._path.lstat(), os.fstat(self._handle))
        except FileNotFoundError:
            return False

    def _beat(self) -> None:
        while not self._end.wait(HEARTBEAT):
            with suppress(OSError):  # whether it is still ours is asked before each act
                os.utime(self._handle)


def acquire(path: Path, output: Path, *, locks_work: bool) -> Lease:
    """Get the lease. Raises Busy if a process that may live has it, StateError if the folder is somebody else's.

    `locks_work`: whether the lock that the caller holds keeps off all other processes of this machine.
    """
    candidate = path.with_name(f".lease.{secrets.token_hex(4)}.tmp")
    handle = open_plain(candidate, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        _check_owner(path.parent, os.fstat(handle).st_uid)
        os.write(handle, orjson.dumps(_this_process()))
        os.fsync(handle)
        if not _linked(candidate, path):
            _take_over(candidate, path, output, locks_work=locks_work)
    except BaseException:
        os.close(handle)
        raise
    finally:
        candidate.unlink(missing_ok=True)
    return Lease(path, handle)


def _linked(candidate: Path, path: Path) -> bool:
    """Give the candidate the name of the lease, unless there is one."""
    try:
        os.link(candidate, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        candidate.replace(path)
    return True


def _take_over(candidate: Path, path: Path, output: Path, *, locks_work: bool) -> None:
    holder = read_holder(path)
    try:
        age = candidate.stat().st_mtime - path.lstat().st_mtime
    except FileNotFoundError:
        age = STALE  # given back in this moment
    if age < STALE and not _is_dead(holder, locks_work=locks_work):
        raise Busy(
            f"{output} is being worked on by {describe(holder)}",
            next_step="wait until it ends, or stop it; then run the same command again to continue (if its machine is "
            f"gone, that is possible {STALE / 60:.0f} minutes after its last sign of life)",
        )
    mine = candidate.stat()
    candidate.replace(path)
    if not _same_kernel(holder):
        time.sleep(SETTLE)
    if not os.path.samestat(path.lstat(), mine):
        raise Busy(
            f"{output} is being worked on by {describe(read_holder(path))}", next_step="wait until it ends, or stop it"
        )


def _is_dead(holder: dict[str, Any], *, locks_work: bool) -> bool:
    """Whether the holder can't live any more; False if nobody here can tell."""
    this = _this_process()
    if not _same_kernel(holder):
        return bool(this["machine"]) and holder.get("machine") == this["machine"]  # restarted since
    if locks_work:
        return True  # else it would hold the lock
    return holder.get("processes") == this["processes"] and _started(int(holder["pid"])) != holder.get("started")


def _same_kernel(holder: dict[str, Any]) -> bool:
    return bool(holder) and holder.get("boot") == _this_process()["boot"]


def _check_owner(folder: Path, owner: int) -> None:
    """`owner`: of a file that this process makes there, which on a network may be another user than it runs as."""
    if {folder.lstat().st_uid, folder.stat().st_uid} != {owner}:
        raise StateError(
            f"{folder} belongs to another user",
            next_step="run as that user, or choose another output",
        )


def _this_process() -> dict[str, Any]:
    host, machine = socket.gethostname(), _read("/etc/machine-id")
    return {
        "pid": os.getpid(),
        "host": host,
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "started": _started(os.getpid()),
        "processes": _process_namespace(),
        "boot": _read("/proc/sys/kernel/random/boot_id") or host,
        "machine": f"{host} {machine}" if machine else "",
    }


def _started(pid: int) -> str:
    """When a process started, in ticks of the kernel; empty if there is no such process."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


def _process_namespace() -> str:
    """Process ids mean something only within it."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def read_holder(path: Path) -> dict[str, Any]:
    """What a lease says of its holder; empty if it says nothing."""
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def describe(holder: dict[str, Any]) -> str:
    """The holder in messages."""
    if not {"pid", "host", "since"} <= holder.keys():
        return "another process"
    return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
