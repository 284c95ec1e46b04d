"""Responses that break off on purpose."""

from collections.abc import Mapping

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send


class DroppedConnection(Response):
    """Closes the connection without sending a byte."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # nothing is sent
        scope["state"]["transport"].abort()
        while (await receive())["type"] != "http.disconnect":
            pass


class OpenEnded(Response):
    """A body without a length, whose end is that of the connection."""

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Without the length that other answers have."""
        super().init_headers({**(headers or {}), "connection": "close"})
        self.raw_headers = [header for header in self.raw_headers if header[0] != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # as in the base class
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        scope["state"]["transport"].close()
        while (await receive())["type"] != "http.disconnect":
            pass


class CutResponse(StreamingResponse):
    """Closes the connection after half of the bytes promised by `content-length`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = int(self.headers["content-length"]) // 2
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self.body_iterator:
            part = bytes(chunk)[:left] if not isinstance(chunk, str) else chunk.encode()[:left]
            await send({"type": "http.response.body", "body": part, "more_body": True})
            left -= len(part)
            if not left:
                break
        await DroppedConnection()(scope, receive, send)
