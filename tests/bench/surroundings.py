"""What a run needs around it, each a process of its own: the emulator, Prefect's server on SQLite or on PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from blocks.emulator.launch import RunningEmulator, running_emulator
from blocks.emulator.options import EmulatorOptions
from tests.bench.running import cpu_of
from tests.flows.server import prefect_server

DATABASE_URL = "PREFECT_API_DATABASE_CONNECTION_URL"
UNLIMITED = 1_000_000
NOBODIES = ("postgres", "nobody")  # as whom a PostgreSQL server may run that root starts


class Unavailable(RuntimeError):
    """Something that this machine does not have; the sentence says what."""


class Emulator:
    """A fresh emulator of OpenAI's dialect."""

    def __init__(self, running: RunningEmulator) -> None:
        self.base_url = running.base_url
        self._running = running

    @property
    def cpu(self) -> float:
        """CPU seconds that it has used so far."""
        return cpu_of(self._running.pid)

    def ledger(self) -> dict[str, Any]:
        """What it received and billed so far."""
        answer = httpx.get(f"{self._running.url}/emulator/ledger", timeout=600).raise_for_status()
        totals: dict[str, Any] = answer.json()
        return totals


@contextmanager
def emulator(latency: float = 0.0, failure_rate: float = 0.0) -> Iterator[Emulator]:
    """An emulator with a state of its own that is gone afterwards."""
    options = EmulatorOptions(dialect="openai", latency=latency, failure_rate=failure_rate)
    with running_emulator(options) as running:
        yield Emulator(running)


@contextmanager
def prefect_on_sqlite() -> Iterator[dict[str, str]]:
    """Prefect's server on a database file of its own; yields the environment that leads to it."""
    with TemporaryDirectory(prefix="batchwerk-prefect-") as home, prefect_server(Path(home)) as env:
        _lift_rate_limit(env)
        yield env


@contextmanager
def prefect_on_postgresql() -> Iterator[dict[str, str]]:
    """The same on PostgreSQL. Raises Unavailable where that is not installed."""
    with _postgresql() as url, TemporaryDirectory(prefix="batchwerk-prefect-") as home, ExitStack() as stack:
        os.environ[DATABASE_URL] = url  # for the server alone, which takes its environment from ours
        try:
            env = stack.enter_context(prefect_server(Path(home)))
        finally:
            del os.environ[DATABASE_URL]
        _lift_rate_limit(env)
        yield env


def _lift_rate_limit(env: dict[str, str]) -> None:
    """As an operator would: what OpenAI allows an hour is less than one run here sends in a minute."""
    limit = {"name": "batchwerk:openai", "limit": UNLIMITED, "slot_decay_per_second": UNLIMITED}
    httpx.post(f"{env['PREFECT_API_URL']}/v2/concurrency_limits/", json=limit, timeout=60).raise_for_status()


@contextmanager
def _postgresql() -> Iterator[str]:
    """A server in a temporary folder, as somebody who is not root; yields its address for SQLAlchemy."""
    binaries = _binaries()
    user = _somebody()
    with TemporaryDirectory(prefix="batchwerk-postgresql-") as folder:
        if user is not None:
            os.chown(folder, user, -1)
        place, port = Path(folder) / "db", _free_port()
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200"
        _call(user, binaries / "initdb", "-D", place, "-U", "bench", "--auth=trust", "--encoding=UTF8", "--no-sync")
        _call(user, binaries / "pg_ctl", "start", "-w", "-D", place, "-l", Path(folder) / "log", "-o", options)
        try:
            yield f"postgresql+asyncpg://bench@127.0.0.1:{port}/postgres"
        finally:
            _call(user, binaries / "pg_ctl", "stop", "-w", "-m", "fast", "-D", place)


def _binaries() -> Path:
    """The folder of PostgreSQL's server programs."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    if config := shutil.which("pg_config"):
        shown = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=True)
        folder = Path(shown.stdout.strip())
        if (folder / "initdb").exists():
            return folder
    raise Unavailable("PostgreSQL's initdb is not on the search path")


def _somebody() -> int | None:
    """As whom PostgreSQL is to run; None is as ourselves. It refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in NOBODIES:
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise Unavailable(f"PostgreSQL does not run as root, and there is no user {' or '.join(NOBODIES)}")


def _call(user: int | None, *command: str | Path) -> None:
    """Call one of PostgreSQL's programs; its words go nowhere but into an error."""
    done = subprocess.run(
        [*map(str, command)],
        user=user,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # a pipe would stay open in the server that pg_ctl leaves behind
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0:
        raise Unavailable(f"PostgreSQL's {Path(command[0]).name} ended with status {done.returncode}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port
