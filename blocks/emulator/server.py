"""The emulator as a process: the application, uvicorn around it, and how it begins and ends."""

import gc
import os
import signal
import socket
import sqlite3
import sys
import threading
from asyncio import Transport
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, cast

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ExceptionHandler
from uvicorn.protocols.http.h11_impl import H11Protocol

from blocks.emulator.dialects.dialect import Dialect, open_dialect
from blocks.emulator.options import EmulatorOptions
from blocks.emulator.service.service import Service
from blocks.emulator.service.store import Store
from blocks.emulator.wire.calls import AnswerHeaders, CallError, FailingCalls, JsonResponse

KEEP_ALIVE = 75  # seconds; longer than clients keep idle connections, so that none is closed under a request
STOP_GRACE = 3  # seconds for answers under way when the server ends


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens; `base_url` is where its dialect begins."""

    url: str
    base_url: str


class DroppableProtocol(H11Protocol):
    """Lets a response reach its connection, to drop it, and sends every answer at once: asyncio sees to that only for
    sockets that it made itself, and without it each small answer waits 40 ms for the client's acknowledgement.
    """

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as in the base class
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


class AnnouncingServer(uvicorn.Server):
    """Says when it accepts connections, and tells the service when it ends."""

    def __init__(self, config: uvicorn.Config, service: Service, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._service = service
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.closing = True
        await super().shutdown(sockets)


def create_app(service: Service) -> Starlette:
    """The application without a server: the dialect's routes and the emulator's own."""
    dialect = open_dialect(service.options.dialect, service)
    return Starlette(
        routes=[
            *dialect.routes(),
            Route("/emulator/health", lambda _: JsonResponse(health(service)), methods=["GET"]),
            Route("/emulator/ledger", lambda request: ledger(service, request), methods=["GET"]),
        ],
        middleware=[
            Middleware(AnswerHeaders, headers=dialect.headers, should_retry=service.options.should_retry),
            Middleware(FailingCalls, service=service, error_body=dialect.error_body),
        ],
        exception_handlers=error_handlers(dialect),
    )


def error_handlers(dialect: Dialect) -> dict[Any, ExceptionHandler]:
    """Errors in the dialect's JSON shape, also those of the router."""

    def answer_error(_: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            code = error.detail.lower().replace(" ", "_")
            return answer_call_error(CallError(error.status_code, code, error.detail, error.headers or {}))
        return answer_call_error(cast("CallError", error))

    def answer_call_error(error: CallError) -> Response:
        return JsonResponse(dialect.error_body(error), error.status, dict(error.headers))

    def answer_defect(_: Request, error: Exception) -> Response:
        return answer_call_error(CallError(500, "internal_error", f"the emulator failed: {error!r}"))

    def answer_full(_: Request, error: Exception) -> Response:
        return answer_call_error(CallError(503, "unavailable", f"the emulator can't write its store: {error}"))

    def answer_nobody(_: Request, __: Exception) -> Response:
        return Response(status_code=400)  # who asked is gone

    handlers: dict[Any, ExceptionHandler] = {CallError: answer_error, HTTPException: answer_error}
    full: dict[Any, ExceptionHandler] = {sqlite3.OperationalError: answer_full, OSError: answer_full}
    return {**handlers, **full, ClientDisconnect: answer_nobody, Exception: answer_defect}


def health(service: Service) -> dict[str, object]:
    return {"status": "ok", "dialect": service.options.dialect, "pid": os.getpid(), "state": str(service.store.path)}


def ledger(service: Service, request: Request) -> Response:
    """What was billed by now: totals, or with `?rows=1` every billed item as a line of JSON."""
    service.settle_all()
    if request.query_params.get("rows") == "1":
        lines = (orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in service.store.billed_rows())
        return StreamingResponse(lines, media_type="application/x-ndjson")
    return JsonResponse(ledger_totals(service.store))


def ledger_totals(store: Store) -> dict[str, object]:
    counters = store.counters()
    counted = {name: counters.get(name, 0) for name in ("calls", "creates", "creates_rate_limited")}
    return {**counted, **store.totals(), "outcomes": store.outcomes()}


def serve(options: EmulatorOptions) -> None:
    """Runs the emulator in the foreground until Ctrl-C or SIGTERM. OSError if the port is taken."""

    def announce(address: Address, state: Path) -> None:
        say(f"Emulator of {options.dialect} at {address.base_url}, state in {state}; Ctrl-C ends it")

    with suppress(KeyboardInterrupt), open_service(options) as service:
        run_server(service, announce)


def serve_attached(options: EmulatorOptions) -> None:
    """Runs the emulator for a parent: says one line of JSON when it is ready, ends when standard input closes."""

    def announce(address: Address, _: Path) -> None:
        say(orjson.dumps({"url": address.url, "base_url": address.base_url, "pid": os.getpid()}).decode())

    with suppress(KeyboardInterrupt), ExitStack() as stack:
        service = stack.enter_context(open_service(options))
        threading.Thread(target=end_with_parent, args=(service, stack.close), daemon=True).start()
        run_server(service, announce)


@contextmanager
def open_service(options: EmulatorOptions) -> Iterator[Service]:
    """The service on its state file; a temporary one is removed afterwards."""
    with ExitStack() as stack:
        state = options.state
        if state is None:
            state = Path(stack.enter_context(TemporaryDirectory(prefix="emulator-"))) / "state.sqlite"
        state.parent.mkdir(parents=True, exist_ok=True)
        store = Store(state)
        stack.callback(store.close)
        store.claim(options.dialect)
        yield Service(options, store)


def calm_collector() -> None:
    """Keeps the garbage collector from searching each batch: that takes a fifth of the time and finds no cycles."""
    gc.freeze()
    gc.set_threshold(100_000)


def run_server(service: Service, announce: Callable[[Address, Path], None]) -> None:
    calm_collector()
    options, dialect = service.options, open_dialect(service.options.dialect, service)
    with closing(listen(options.host, options.port)) as listener, interrupted_by_sigterm():
        address = address_of(listener, dialect.base_path)
        server = AnnouncingServer(
            server_config(create_app(service)), service, lambda: announce(address, service.store.path)
        )
        server.run([listener])


def server_config(app: Starlette) -> uvicorn.Config:
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
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=STOP_GRACE,
    )


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=512)


def address_of(listener: socket.socket, base_path: str) -> Address:
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
    """Waits for the end of standard input, which comes with the parent's end, however that came about."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    service.closing = True
    try:
        close()  # waits for a commit under way
    finally:
        os._exit(0)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
