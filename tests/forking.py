"""Processes that start in milliseconds: forked from one that has imported everything and has no thread.

They are real: a SIGKILL ends them as it ends any other, and nothing in them has seen the tests. What they save is a
second of imports a process, which is most of the time that a test of a killed run takes.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import orjson

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = "BATCHWERK_TESTS_EMULATORS"  # where a forked run finds the process that emulators are forked from
EMULATORS = ["tests.blocks.emulator.warm", "blocks.emulator.server"]
KEPT = "tests.kept"  # first: modules import what it replaces
RUNS = [KEPT, "tests.flows.killed", "tests.attacks.attacked", "tests.flows.command", "flows.cancel", "flows.cli"]
PREFECT_RUNS = [KEPT, "flows.enrich", *RUNS]


class Forked:
    """A process that was forked, with as much of `subprocess.Popen` as its users need."""

    def __init__(
        self,
        address: str,
        target: str,
        arguments: Sequence[str],
        *,
        capture: bool,
        env: Mapping[str, str],
        cwd: Path | None = None,
    ) -> None:
        self.args = [target, *arguments]
        self.returncode: int | None = None
        self._control = socket.socket(socket.AF_UNIX)
        self._control.connect(address)
        stdin, to_child = os.pipe()
        from_child, stdout = os.pipe()
        errors, stderr = os.pipe() if capture else (None, os.dup(2))
        place = str(cwd or Path.cwd())
        request = orjson.dumps(
            {"target": target, "arguments": list(map(str, arguments)), "env": dict(env), "cwd": place}
        )
        socket.send_fds(self._control, [len(request).to_bytes(4) + request], [stdin, stdout, stderr])
        for handle in (stdin, stdout, stderr):
            os.close(handle)
        self.stdin: IO[bytes] = os.fdopen(to_child, "wb")
        self.stdout: IO[bytes] = os.fdopen(from_child, "rb")
        self.stderr: IO[bytes] | None = None if errors is None else os.fdopen(errors, "rb")
        self.pid = self._receive()

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self.returncode is None and select.select([self._control], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, waited for. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._control], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = self._receive()
            self._control.close()
        return self.returncode

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """What it wrote, read to the end. Raises subprocess.TimeoutExpired, after killing it."""
        self.stdin.close()
        with self.stdout as out, self.stderr or io.BytesIO() as errors, ThreadPoolExecutor(2) as readers:
            told, said = readers.submit(out.read), readers.submit(errors.read)  # neither pipe fills up
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            return told.result().decode(), said.result().decode()

    def send_signal(self, number: int) -> None:
        """Send a signal to it, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _receive(self) -> int:
        return int.from_bytes(self._control.recv(8, socket.MSG_WAITALL), signed=True)


class ForkServer:
    """A process with the modules imported, started when the first process is asked of it."""

    def __init__(self, folder: Path, modules: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self.address = str(folder / f"{modules[-1]}.socket")  # two lists in one folder end differently
        self._modules = modules
        self._env = env or {}  # what the modules read while they are imported
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs already."""
        if self._process is not None:
            return
        single = {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}  # no thread may be lost by a fork
        env = {**os.environ, **self._env, **single}
        command = [sys.executable, "-m", "tests.forking", self.address, *self._modules]
        self._process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "it did not start; its own words are on standard error"

    def fork(
        self,
        target: str,
        *arguments: str,
        capture: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Forked:
        """A process that calls `module:function` with these texts, in this process's environment and folder."""
        self.start()
        chosen = {**os.environ, **self._env, **(env or {})}
        return Forked(self.address, target, arguments, capture=capture, env=chosen, cwd=cwd)

    def stop(self) -> None:
        """End it; what was forked from it goes on."""
        if self._process is not None:
            self._process.communicate()

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextmanager
def fork_servers() -> Iterator[tuple[ForkServer, ForkServer]]:
    """One for emulators, which is small, and one for runs."""
    with TemporaryDirectory(prefix="forking-") as folder:
        servers = ForkServer(Path(folder), EMULATORS), ForkServer(Path(folder), RUNS)
        try:
            yield servers
        finally:
            for server in servers:
                server.stop()


def start_emulator(options: Any) -> Forked:
    """Instead of `blocks.emulator.launch.start_process`: what the same command line does, in a forked process."""
    arguments = ["--attached", *options.to_args()]
    return Forked(os.environ[ADDRESS], "tests.forking:emulator", arguments, capture=False, env=os.environ)


def emulator(*arguments: str) -> None:
    """`python -m blocks.emulator`, without the imports."""
    from blocks.emulator.__main__ import main  # noqa: PLC0415  # a run that is forked has no use for it

    sys.argv = ["python -m blocks.emulator", *arguments]
    main()


# --- in the process that forks ---------------------------------------------------------------------------------------


def serve(address: str, *modules: str) -> None:
    """Import, then fork for whoever connects, until standard input closes."""
    for module in modules:
        read_ahead = getattr(importlib.import_module(module), "read_ahead", None)
        if read_ahead is not None:
            read_ahead()
    gc.freeze()  # forked processes share the pages that the garbage collector would write to
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    ours = [name for name in threads if name != "jemalloc_bg_thd"]  # jemalloc looks after its own at a fork
    assert len(ours) == 1, f"a fork would lose a thread: {threads}"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the watchers are nobody's business
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            _fork_for(connection, listener)


def _fork_for(connection: socket.socket, listener: socket.socket) -> None:
    """A watcher, which forks the process and tells how it ended."""
    content, handles, _, _ = socket.recv_fds(connection, 4, 3)
    request = orjson.loads(connection.recv(int.from_bytes(content), socket.MSG_WAITALL))
    if os.fork() == 0:
        listener.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        child = os.fork()
        if child == 0:
            connection.close()
            _become(request, handles)
        for handle in (0, 1, *handles):
            os.close(handle)
        connection.send(child.to_bytes(8, signed=True))
        _, status = os.waitpid(child, 0)
        try:
            connection.send(os.waitstatus_to_exitcode(status).to_bytes(8, signed=True))
        finally:
            os._exit(0)
    for handle in handles:
        os.close(handle)
    connection.close()


def _become(request: dict[str, Any], handles: Sequence[int]) -> None:
    """Call the function as the main function of a fresh process would be, and end."""
    os.setsid()
    for number, handle in enumerate(handles):
        os.dup2(handle, number)
        os.close(handle)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    module, _, name = request["target"].partition(":")
    if ADDRESS in os.environ:
        importlib.import_module("blocks.emulator.launch").start_process = start_emulator  # type: ignore[attr-defined]
    try:
        getattr(importlib.import_module(module), name)(*request["arguments"])
        status = 0
    except SystemExit as error:
        if isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001  # as the interpreter does
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()  # as the interpreter does: Prefect sends its last logs there
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


if __name__ == "__main__":
    serve(*sys.argv[1:])
