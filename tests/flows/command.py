"""The command as a user calls it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Says on standard error whether Prefect was imported by the time that the command ended.
TELLING = """
import atexit, sys
atexit.register(lambda: sys.stderr.write("\\nprefect imported: " + str("prefect" in sys.modules)))
from flows.cli import main
sys.argv[0] = "batchwerk"
main()
"""


@dataclass(frozen=True)
class Called:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def started_prefect(self) -> bool:
        """Whether it got so far."""
        return "prefect imported: True" in self.err


def batchwerk(*arguments: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT) -> Called:
    """Call the command and wait for its end."""
    done = subprocess.run(
        [sys.executable, "-c", TELLING, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return Called(done.returncode, done.stdout, done.stderr)
