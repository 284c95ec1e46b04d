"""HTTP as all dialects need it: errors, bodies, JSON, and the faults that befall whole calls."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from hmac import compare_digest
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blocks.emulator.options import EmulatorOptions
from blocks.emulator.service.batch import Refusal
from blocks.emulator.service.service import Accepted, Service

HOLD_FILE_CHECK = 0.02  # seconds between two looks


@dataclass
class CallError(Exception):
    """An error that the caller is told; the dialect gives it its JSON shape. `code` is a word of that dialect."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


class JsonResponse(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


class DroppedConnection(Response):
    """Closes the connection without a byte of an answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # nothing is sent
        scope["state"]["transport"].abort()
        while (await receive())["type"] != "http.disconnect":
            pass


class CutResponse(StreamingResponse):
    """Closes the connection after half of what `content-length` promises."""

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


class AnswerHeaders:
    """Gives every answer the dialect's own headers, and errors what `should_retry` says."""

    def __init__(self, app: ASGIApp, headers: Callable[[], Mapping[str, str]], should_retry: str) -> None:
        self._app = app
        self._headers = headers
        self._on_errors = {"x-should-retry": should_retry} if should_retry else {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = self._headers()  # before the call: an error's body may repeat one of them

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = {**headers, **(self._on_errors if message["status"] >= 400 else {})}
                own = [(name.encode(), value.encode()) for name, value in said.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


class FailingCalls:
    """Counts calls and says of some, before anything is done, that it is overloaded. Its own paths are left alone."""

    def __init__(self, app: ASGIApp, service: Service, error_body: Any) -> None:
        self._app = app
        self._service = service
        self._error_body = error_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/emulator/") or not self._service.call_fails():
            await self._app(scope, receive, send)
            return
        try:
            await read_body(Request(scope, receive), most=0)
        except ClientDisconnect:
            return
        status = self._service.habits.overload_status
        error = CallError(status, "unavailable", "the service is overloaded (a fault by switch)")
        await JsonResponse(self._error_body(error), status)(scope, receive, send)


async def read_body(request: Request, most: int) -> bytes | None:
    """The whole body, or None if it is too long; read to its end all the same: who is still writing hears no answer."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= most:
            chunks.append(chunk)
        else:
            chunks.clear()
    return b"".join(chunks) if size <= most else None


def parse_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise CallError(400, "invalid_json", f"the body is not JSON: {error}") from None


def require_bearer(request: Request, key: str | None) -> None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise CallError(401, "missing_key", "the header `Authorization: Bearer <key>` is required")
    if key is not None and not compare_digest(given.strip().encode(), key.encode()):
        raise CallError(401, "invalid_key", "this key is not known")


def query_number(query: QueryParams, name: str, default: int, low: int, high: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 16) or not low <= int(text) <= high:
        raise CallError(400, "invalid_request", f"{name} must be a whole number from {low} to {high}, not {text!r}")
    return int(text)


def refuse_by_rate(service: Service) -> None:
    """429 for every Nth create, if so switched: with or without how long to wait, or because a quota is used up."""
    refusal = service.create_refusal()
    if refusal is Refusal.QUOTA:
        raise CallError(429, refusal.value, "the quota is used up; waiting does not help")
    if refusal is not None:
        wait = service.options.retry_after
        raise CallError(429, refusal.value, f"too many creates; again in {wait:g} s", retry_headers(service.options))


def retry_headers(options: EmulatorOptions) -> dict[str, str]:
    """How long to wait, in the way that is switched."""
    said = {"retry-after": f"{options.retry_after:g}", "retry-after-ms": f"{1000 * options.retry_after:.0f}"}
    return {name: value for name, value in said.items() if name == options.retry_header}


def hash_body(body: bytes) -> bytes:
    return blake2b(body, digest_size=16).digest()


async def answer_create(service: Service, accepted: Accepted, answer: Response) -> Response:
    """The answer to a create that is stored: at once, later, or never."""
    left = accepted.held
    while left > 0 and not service.closing:
        await asyncio.sleep(min(left, 0.1))
        left -= 0.1
    while await run_in_threadpool(service.is_held):
        await asyncio.sleep(HOLD_FILE_CHECK)
    return DroppedConnection() if accepted.dropped else answer
