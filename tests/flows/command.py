"""The command as a user calls it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.forking import ForkServer

ROOT = Path(__file__).parents[2]
WIDE = {"COLUMNS": "200"}  # no sentence is broken
CONNECTED = "PREFECT_API_URL"

servers: dict[str, ForkServer] = {}  # by the address of Prefect's server that they are connected to; "": none


@dataclass(frozen=True)
class Called:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def started_prefect(self) -> bool:
        """Whether it got so far. Only for commands that are called without Prefect's server."""
        return "prefect imported: True" in self.err


def batchwerk(
    *arguments: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT, function: str = "command:main"
) -> Called:
    """Call the command, or another function of a module of this folder, in a forked process and wait for its end."""
    chosen = {**WIDE, **(env or {})}
    server = servers.get(chosen.get(CONNECTED, ""))
    if server is None:  # of Prefect's server, one of a single test
        return started_batchwerk(*arguments, env=chosen)
    process = server.fork(f"tests.flows.{function}", *map(str, arguments), capture=True, env=chosen, cwd=cwd)
    out, err = process.communicate(timeout=240)
    return Called(process.wait(), out, err)


def main(*arguments: str) -> None:
    """In the forked process: the command, which says at its end whether Prefect was imported."""
    from flows.cli import main as command  # noqa: PLC0415  # the tests themselves don't need it

    sys.argv = ["batchwerk", *arguments]
    try:
        command()
    finally:
        sys.stderr.write(f"\nprefect imported: {'prefect' in sys.modules}")


def started_batchwerk(*arguments: str | Path, env: dict[str, str]) -> Called:
    """The command started anew, for settings that Prefect reads while it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **WIDE, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return Called(done.returncode, done.stdout, done.stderr)
