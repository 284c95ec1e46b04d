"""A real Prefect server for the tests, on a database of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

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


@contextmanager
def prefect_server(home: Path, *, csrf: bool = False) -> Iterator[dict[str, str]]:
    """Starts a server and yields the environment that leads to it; without `csrf` tests may call it by hand."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    env = {"PREFECT_HOME": str(home), "PREFECT_API_URL": url, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    if not csrf:
        env["PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED"] = "false"
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-ui"]
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env={**os.environ, **env}, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            _wait_until_healthy(url, server)
            yield env
        finally:
            server.terminate()
            server.wait(30)


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
