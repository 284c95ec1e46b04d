"""Calls to Prefect's server, which may be away for a while: a restart, an upgrade, a failover."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import Context, copy_context
from functools import cached_property
from typing import Self, TypeVar

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from blocks.errors import StateError
from flows.report.waits import Waits

T = TypeVar("T")

TIMEOUT = 20.0  # seconds for an answer
BUSY = {408, 429, 502, 503, 504}
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between two tries; SQLite refuses a write beside another one


class CallFailed(StateError):
    """A call to Prefect's server did not succeed."""


class ServerAway(CallFailed):
    """Prefect's server can't be reached, or can't answer now. Nothing is wrong with the call."""


class Refused(CallFailed):
    """Prefect's server says no."""

    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(f"Prefect's server answers {status}")
        self.is_locked = status == httpx.codes.LOCKED  # nothing is free now
        self.retry_after = retry_after


def is_away(error: BaseException | None) -> bool:
    """Whether an error of Prefect's own says that its server can't be reached."""
    return isinstance(error, httpx.TransportError) or "Failed to reach API" in str(error)


@contextmanager
def explaining_absence() -> Iterator[None]:
    """Around calls of Prefect's own. Raises StateError, with what to do, if its server can't be reached."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ServerAway) or is_away(error):
            raise unreachable(error) from None
        raise


def unreachable(problem: Exception) -> StateError:
    """What is said of a server that is not there."""
    return StateError(
        f"Prefect's server can't be reached: {str(problem).partition(chr(10))[0]}",
        next_step="start it, for example with `make serve`, or unset PREFECT_API_URL; nothing was sent",
    )


class PrefectServer:
    """A client without retries of its own, for any thread: what waits says so, and ends when it is told to."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._stack = ExitStack()
        self._client: SyncPrefectClient | None = None
        # SQLite refuses a write that begins beside another one, which then takes seconds to be tried again.
        self._one_at_a_time = threading.Lock()

    def ask(self, question: Callable[[SyncPrefectClient], T]) -> T:
        """One try. Raises CallFailed, or Prefect's ObjectNotFound and ObjectAlreadyExists."""
        try:
            with self._one_at_a_time:
                return self._without_retries.run(lambda: question(self._connected()))
        except httpx.HTTPStatusError as error:
            if (status := error.response.status_code) in BUSY:
                raise ServerAway(f"it answers {status}") from error
            after = error.response.headers.get("retry-after")
            raise Refused(status, float(after) if after else None) from error
        except (httpx.TransportError, RuntimeError) as error:  # RuntimeError: the temporary one did not start
            _look_after_temporary_server()
            raise ServerAway(str(error).partition("\n")[0] or type(error).__name__) from error

    def insist(self, question: Callable[[SyncPrefectClient], T], halt: threading.Event, seconds: float = 1e9) -> T:
        """Ask until there is an answer. Raises ServerAway once `halt` is set, or after so many seconds of absence."""
        pause, waited = FIRST_PAUSE, 0.0
        with self._waits.waiting("Prefect's server") as tell:
            while True:
                try:
                    return self.ask(question)
                except ServerAway as error:
                    tell(error.message)
                    if waited >= seconds or halt.wait(pause):
                        raise
                waited, pause = waited + pause, min(pause * 2, LONGEST_PAUSE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def _without_retries(self) -> Context:
        """The client reads there how often to try. Made once: a change of settings takes 50 ms of CPU."""
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            return copy_context()

    def _connected(self) -> SyncPrefectClient:
        if self._client is None:  # settings of its own: the flow's client closes before this one
            client = get_client(httpx_settings={"timeout": TIMEOUT}, sync_client=True)
            self._client = self._stack.enter_context(client)
            _look_after_temporary_server()
        return self._client


_temporary = threading.Lock()
_tied: set[int] = set()  # pids


def _look_after_temporary_server() -> None:
    """Start the temporary server again if it died, and see to it that it does not outlive this process if that dies."""
    if PREFECT_API_URL.value():
        return
    from prefect.server.api.server import SubprocessASGIServer  # noqa: PLC0415  # imports the whole server

    with _temporary:
        server = SubprocessASGIServer()
        if not server.running or server.server_process is None:
            return
        if server.server_process.poll() is not None:
            server.running = False
            server.start()
        pid = server.server_process.pid
        if pid not in _tied:
            _tied.add(pid)
            # The pipe closes with this process, however that ends.
            until_we_end = ["/bin/sh", "-c", f"cat > /dev/null; kill {pid} 2> /dev/null"]
            subprocess.Popen(until_we_end, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603  # a number
