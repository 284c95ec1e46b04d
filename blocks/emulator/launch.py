"""Starts the emulator as a subprocess that ends with this process, even if it is killed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

import orjson

from blocks.emulator.options import EmulatorOptions

ROOT = Path(__file__).parents[2]  # where `blocks` is imported from
STOP_SECONDS = 10
ENVIRONMENT = {  # what Python and SQLite read: no key of a provider, no token of a service
    *("PATH", "HOME", "LANG", "TZ", "TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
    *("PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONUTF8"),
    *("PYTHONWARNINGS", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"),
}


@dataclass(frozen=True, slots=True)
class RunningEmulator:
    """A started emulator. `base_url` is for clients: the server's `url` plus the dialect's path prefix."""

    base_url: str
    url: str
    pid: int


@contextmanager
def running_emulator(options: EmulatorOptions | None = None) -> Iterator[RunningEmulator]:
    """An emulator that accepts connections. Raises RuntimeError if it does not start: the reason is on stderr."""
    process = start_process(options or EmulatorOptions())
    try:
        yield wait_until_ready(process)
    finally:
        stop_process(process)


def start_process(options: EmulatorOptions) -> subprocess.Popen[bytes]:
    """Start it with a pipe as standard input, which closes when this process ends; a new session keeps Ctrl-C away.

    The key goes through that pipe: every user of the machine can read arguments.
    """
    hidden = [] if options.key is None else ["--key-on-stdin"]
    process = subprocess.Popen(  # noqa: S603  # our own module and our own arguments
        [sys.executable, "-P", "-m", "blocks.emulator", "--attached", *hidden, *replace(options, key=None).to_args()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=dict(_environment()),
    )
    if options.key is not None:
        pipe = cast("IO[bytes]", process.stdin)
        with suppress(BrokenPipeError):  # it has ended already; why is on standard error
            pipe.write(f"{options.key}\n".encode())
            pipe.flush()
    return process


def _environment() -> Iterator[tuple[str, str]]:
    """Modules come from this package's own folder first, and none from the current folder."""
    for name, value in os.environ.items():
        if name in ENVIRONMENT or name.startswith("LC_"):
            yield name, value
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    yield "PYTHONPATH", os.pathsep.join([str(ROOT), *(place for place in inherited if Path(place).is_absolute())])


def wait_until_ready(process: subprocess.Popen[bytes]) -> RunningEmulator:
    """Read the line with its address. Raises RuntimeError if the process ends first."""
    line = cast("IO[bytes]", process.stdout).readline()
    if not line:
        raise RuntimeError(f"the emulator did not start (exit status {process.wait()})")
    return RunningEmulator(**orjson.loads(line))


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """End it by closing its standard input, and kill it if that takes too long."""
    lifeline, output = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    lifeline.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        output.close()
