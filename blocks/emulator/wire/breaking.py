"""Responses that break off on purpose."""

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send


class DroppedConnection(Response):
    """Closes the connection without sending a byte."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # nothing is sent
        scope["state"]["transport"].abort()
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
