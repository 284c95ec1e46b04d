"""Reading and refusing calls, for all dialects: errors, bodies, JSON, keys and query parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from hmac import compare_digest
from typing import IO, Any

import orjson
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response


@dataclass
class CallError(Exception):
    """An error for the caller; the dialect gives it its JSON shape. `code` is specific to the dialect."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


class JsonResponse(Response):
    """A JSON answer; takes what orjson takes, fragments included."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


async def read_body(request: Request, limit: int) -> bytes | None:
    """The whole body, or None if it is longer than `limit` bytes.

    Always read to its end: a client that is still writing does not read a response.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
    return b"".join(chunks) if size <= limit else None


async def spool_body(request: Request, spool: IO[bytes], limit: int) -> int:
    """Write up to `limit` bytes of the body to disk. Returns its true size; reads it to its end like `read_body`."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            spool.write(chunk)
    return size


def parse_json(body: bytes) -> Any:
    """The body as JSON. Raises CallError (400)."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise CallError(400, "invalid_json", f"the body is not JSON: {error}") from None


def hash_body(body: bytes) -> bytes:
    """What an idempotency key is bound to."""
    return blake2b(body, digest_size=16).digest()


def require_bearer(request: Request, key: str | None) -> None:
    """Check `Authorization: Bearer`; without a `key` any will do. Raises CallError (401)."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise CallError(401, "missing_key", "the header `Authorization: Bearer <key>` is required")
    if not is_key(given.strip(), key):
        raise CallError(401, "invalid_key", "this key is not known")


def is_key(given: str, key: str | None) -> bool:
    """Whether the given key is the only one accepted; without one any is."""
    return key is None or compare_digest(given.encode(), key.encode())


def query_number(query: QueryParams, name: str, default: int, low: int, high: int) -> int:
    """A whole number from the query. Raises CallError (400) if it is none, or outside its limits."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 16) or not low <= int(text) <= high:
        raise CallError(400, "invalid_request", f"{name} must be a whole number from {low} to {high}, not {text!r}")
    return int(text)
