"""Runs a process to its end and measures it from outside: wall time, CPU, peak memory, all with its children's."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import orjson

ROOT = Path(__file__).parents[2]
SAMPLING = 0.05  # seconds between two looks at the memory
LONGEST = 3600.0  # seconds after which a process is taken for stuck
WORDS = 25  # lines that are kept of what a failed process said
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """What a process took. `said`: the JSON object on its last line of output, if it ended with one."""

    seconds: float
    cpu: float
    peak_mb: float
    said: dict[str, Any]


class RunFailed(RuntimeError):
    """A process that did not end well. `reason` is a sentence; the message has its last words as well."""

    def __init__(self, reason: str, words: str = "") -> None:
        super().__init__(f"{reason}\n{words}" if words else reason)
        self.reason = reason


def measure(command: Sequence[str], environment: Mapping[str, str], cwd: Path = ROOT) -> Measured:
    """Run a command with these variables added to ours. Raises RunFailed if it does not end well."""
    with TemporaryFile() as output, TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
        )
        memory = _Memory(process.pid)
        memory.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            memory.stop()
            if process.returncode is None:  # interrupted
                process.kill()
                process.wait()
        said = _json_of(_last_lines(output, 1))
        if process.returncode != 0:
            reason = said.get("failure") or f"it ended with status {process.returncode}"
            raise RunFailed(str(reason), _last_lines(errors, WORDS))
        return Measured(seconds, usage.ru_utime + usage.ru_stime, memory.peak_kb / 1024, said)


class _Memory(threading.Thread):
    """Follows the memory of a process and its descendants, and ends one that is stuck.

    Of one process alone it is the resident memory, from the kernel's own high-water mark; where there are descendants
    it is the sum of proportional set sizes, in which what several share counts once.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak_kb = 0
        self._pid = pid
        self._over = threading.Event()

    def run(self) -> None:
        end = time.monotonic() + LONGEST
        while not self._over.wait(SAMPLING):
            self.peak_kb = max(self.peak_kb, _memory_kb(self._pid))
            if time.monotonic() > end:
                os.kill(self._pid, 9)
                return

    def stop(self) -> None:
        """No more looks."""
        self._over.set()
        self.join()


def _memory_kb(pid: int) -> int:
    family = [pid, *descendants(pid)]
    if len(family) == 1:
        return _field(pid, "status", "VmHWM:")
    return sum(_field(each, "smaps_rollup", "Pss:") for each in family)


def descendants(pid: int) -> Iterator[int]:
    """Children, their children, and so on."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return
    for thread in threads:
        try:
            children = (thread / "children").read_text().split()
        except OSError:
            continue
        for child in map(int, children):
            yield child
            yield from descendants(child)


def _field(pid: int, file: str, name: str) -> int:
    """Kilobytes; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


def cpu_of(pid: int) -> float:
    """CPU seconds that a running process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _last_lines(file: IO[bytes], count: int) -> str:
    file.seek(0)
    lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-count:])


def _json_of(line: str) -> dict[str, Any]:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
