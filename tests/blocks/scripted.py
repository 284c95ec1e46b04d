"""A server on a real socket that answers what a test has written down, and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Say:
    """An answer: an object is sent as JSON, bytes as they are."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0.0  # seconds before it is sent
    unread: bool = False  # without reading the request's body

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Drop:
    """The connection ends without an answer, or in the middle of one."""

    reset: bool = False
    after: bytes = b""  # sent before


Step = Say | Drop


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in small letters
    body: bytes
    at: float


class Server(ThreadingHTTPServer):
    """Goes through its script, a step a request; the last step answers all that follow."""

    daemon_threads = True

    def __init__(self, *script: Step) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = list(script)
        self.asked: list[Asked] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def step(self, asked: Asked) -> Step:
        with self.lock:
            self.asked.append(asked)
            return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the play."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        query = {name: found[0] for name, found in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.server.lock:
            unread = isinstance(self.server.script[0], Say) and self.server.script[0].unread
        body = b"" if unread else self.rfile.read(int(headers.get("content-length", 0)))
        step = self.server.step(Asked(self.command, parts.path, query, headers, body, time.monotonic()))
        if isinstance(step, Drop):
            self._drop(step)
            return
        time.sleep(step.pause)
        self.send_response_only(step.status)
        if "date" not in step.headers:
            self.send_header("date", self.date_time_string())
        for name, value in {"content-length": str(len(step.content)), **step.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(step.content)
        self.wfile.flush()
        if unread:  # let the answer arrive before the rest of the body is refused
            self.connection.shutdown(socket.SHUT_WR)
            while self.rfile.read(65_536):
                pass
            self.close_connection = True

    do_GET = do_POST = do_HEAD = _answer  # noqa: N815  # the names that http.server looks for

    def _drop(self, step: Drop) -> None:
        self.wfile.write(step.after)
        self.wfile.flush()
        if step.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close() if step.reset else self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server's name for it
        """Silence."""


@contextmanager
def serving(*script: Step) -> Iterator[Server]:
    """A server with this script, for the time of a test."""
    with Server(*script) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
