"""A real Prefect server for the tests, on a database of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from flows.settings import PREFECT_DEFAULTS

START_SECONDS = 180.0  # migrations of a fresh database, on a busy machine


def prefect(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Call Prefect's own command line."""
    command = [sys.executable, "-m", "prefect", *arguments]
    return subprocess.run(
        command,
        env={**os.environ, **env},
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )


class PrefectProcess:
    """A server on one port and one database, which can go away and come back."""

    def __init__(self, home: Path, *, csrf: bool = False) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.env = {
            **{name: value for name, value in PREFECT_DEFAULTS.items() if "SERVER" in name},
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": str(csrf).lower(),
        }
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, as `make serve` does, and wait until it answers."""
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(self.port), "--no-ui"]
        with (self._home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **self.env},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        _wait_until_healthy(self.url, self._process)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End all of its processes, unless they have ended."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)
            self._process.wait(30)


@contextmanager
def prefect_server(home: Path, *, csrf: bool = False) -> Iterator[dict[str, str]]:
    """Starts a server and yields the environment that leads to it; without `csrf` tests may call it by hand."""
    server = PrefectProcess(home, csrf=csrf)
    try:
        server.start()
        yield server.env
    finally:
        server.kill(signal.SIGTERM)


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise RuntimeError(f"Prefect's server did not start within {START_SECONDS:.0f} s")
