"""The emulator as a process: uvicorn around the application, and how it starts and ends."""

import gc
import os
import signal
import socket
import sys
import threading
from asyncio import Transport
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import orjson
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from blocks.emulator.app import create_app
from blocks.emulator.dialects.dialect import open_dialect
from blocks.emulator.options import EmulatorOptions
from blocks.emulator.service.service import Service
from blocks.emulator.service.store import Store

KEEP_ALIVE = 75  # seconds; longer than clients keep idle connections, so that none is closed during a request
STOP_GRACE = 3  # seconds to finish responses when the server shuts down


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server; `base_url` includes the dialect's path prefix."""

    url: str
    base_url: str


class DroppableProtocol(H11Protocol):
    """Lets a response reach its connection, to drop it, and sends every answer at once.

    asyncio does the latter only for sockets that it made itself; without it each small answer waits 40 ms for the
    client's acknowledgement.
    """

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as in the base class
        """Called by asyncio for each connection."""
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


class AnnouncingServer(uvicorn.Server):
    """Announces when it accepts connections, and tells the service when it ends."""

    def __init__(self, config: uvicorn.Config, service: Service, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._service = service
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn."""
        await super().startup(sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn."""
        self._service.closing = True
        await super().shutdown(sockets)


def serve(options: EmulatorOptions) -> None:
    """Run the emulator in the foreground until Ctrl-C or SIGTERM. Raises OSError if the port is taken."""

    def announce(address: Address, state: Path) -> None:
        say(f"Emulator of {options.dialect} at {address.base_url}, state in {state}; press Ctrl-C to stop")

    with suppress(KeyboardInterrupt), open_service(options) as service:
        run_server(service, announce)


def serve_attached(options: EmulatorOptions) -> None:
    """Run the emulator for a parent: writes one line of JSON when it is ready, ends when standard input closes."""

    def announce(address: Address, _: Path) -> None:
        say(orjson.dumps({"url": address.url, "base_url": address.base_url, "pid": os.getpid()}).decode())

    with suppress(KeyboardInterrupt), ExitStack() as stack:
        service = stack.enter_context(open_service(options))
        threading.Thread(target=end_with_parent, args=(service, stack.close), daemon=True).start()
        run_server(service, announce)


@contextmanager
def open_service(options: EmulatorOptions) -> Iterator[Service]:
    """The service on its state file; a temporary one is removed afterwards. Raises ValueError for a foreign file."""
    with ExitStack() as stack:
        state = options.state
        if state is None:
            state = Path(stack.enter_context(TemporaryDirectory(prefix="emulator-"))) / "state.sqlite"
        state.parent.mkdir(parents=True, exist_ok=True)
        store = Store(state)
        stack.callback(store.close)
        store.claim(options.dialect)
        yield Service(options, store)


def calm_garbage_collector() -> None:
    """Keep the garbage collector from scanning each batch: that takes 20 % of the time and finds no cycles."""
    gc.freeze()
    gc.set_threshold(100_000)


def run_server(service: Service, announce: Callable[[Address, Path], None]) -> None:
    """Serve until the process is interrupted; `announce` is given the address and the state file."""
    calm_garbage_collector()
    options, dialect = service.options, open_dialect(service.options.dialect, service)
    with closing(listen(options.host, options.port)) as listener, interrupted_by_sigterm():
        address = address_of(listener, dialect.base_path)
        config = server_config(create_app(service, dialect))
        server = AnnouncingServer(config, service, lambda: announce(address, service.store.path))
        server.run([listener])


def server_config(app: Starlette) -> uvicorn.Config:
    """One process, no logs."""
    return uvicorn.Config(
        app,
        http=DroppableProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        date_header=False,  # the emulator's clock may differ: the application says the time
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=STOP_GRACE,
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError if the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=512)


def address_of(listener: socket.socket, base_path: str) -> Address:
    """The address of a listener for clients."""
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return Address(url, url + base_path)


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the server as Ctrl-C does, so that its state is closed."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_with_parent(service: Service, close: Callable[[], None]) -> None:
    """Wait until standard input closes, which happens even if the parent is killed."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    service.closing = True
    try:
        close()  # waits for a commit under way
    finally:
        os._exit(0)


def say(line: str) -> None:
    """Write a line to standard output at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
