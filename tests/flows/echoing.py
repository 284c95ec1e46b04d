"""A gateway that repeats the key it is called with wherever it can: in headers, in what rows and batches failed of."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

# What the emulator says of rows and batches that failed, in all its dialects.
COMPLAINTS = (
    b"the request could not be processed",
    b"The server had an error while processing your request.",
    b"Internal server error",
    b"An internal error has occurred.",
    b"Overloaded",
    b"the batch failed as a whole;",
    b"The batch failed.",
)


class _Gateway(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = urlsplit(behind)
        self.echoed = 0  # complaints with the key in them

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{self.behind.path}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Gateway

    def _pass_on(self) -> None:
        key = self._key()
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        there = HTTPConnection(str(self.server.behind.hostname), int(self.server.behind.port or 80), timeout=60)
        there.request(self.command, self.path, body or None, dict(self.headers))
        answer = there.getresponse()
        content = self._with_key(answer.read(), key)
        there.close()
        self.send_response(answer.status, f"{answer.reason} for {key}")
        for name, value in answer.getheaders():
            if name.lower() not in {"content-length", "connection", "date", "server", "transfer-encoding"}:
                self.send_header(name, value)
        self.send_header("x-called-with", f"Bearer {key}")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _pass_on  # noqa: N815  # the names that http.server looks for

    def _key(self) -> str:
        given = [self.headers.get(name, "") for name in ("authorization", "x-api-key", "x-goog-api-key")]
        return "".join(given).removeprefix("Bearer ")

    def _with_key(self, content: bytes, key: str) -> bytes:
        for complaint in COMPLAINTS:
            self.server.echoed += content.count(complaint)
            content = content.replace(complaint, complaint + f" ({key})".encode())
        return content

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name for it
        """Silence."""


@contextmanager
def echoing(behind: str) -> Iterator[_Gateway]:
    """Such a gateway in front of a server."""
    with _Gateway(behind) as gateway:
        thread = threading.Thread(target=gateway.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield gateway
        finally:
            gateway.shutdown()
            thread.join()
