"""Bad habits of lists: refused, broken off, without what clients attached, or with nothing that they made."""

from typing import Any

import orjson
from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blocks.emulator.options import EmulatorOptions
from blocks.emulator.wire.calls import CallError, JsonResponse

LISTS = ("/batches", "/batch/jobs", "/files")  # how the paths of lists end, in whatever dialect
ITEMS = ("data", "operations")  # under which a page has them
MARKS = ("metadata", "displayName", "filename")  # what clients attach
CURSORS = ("after", "after_id", "page", "pageToken")  # what asks for a later page, unless it is 0
BROKEN = {"object": "list", "data": [], "operations": [], "has_more": True, "nextPageToken": "x", "total": 1_000_000}


class ListHabits:
    """Changes what lists say, as the options want it."""

    def __init__(self, app: ASGIApp, options: EmulatorOptions, error_body: Any) -> None:
        self._app = app
        self._options = options
        self._error_body = error_body
        self._changes = options.list_breaks or options.list_unmarked or options.list_hides

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As Starlette calls it."""
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].endswith(LISTS):
            await self._app(scope, receive, send)
            return
        if status := self._options.list_refused:
            error = CallError(status, "invalid_request", "lists are not available (an injected fault)")
            await JsonResponse(self._error_body(error), status)(scope, receive, send)
            return
        if self._options.list_breaks and _is_later(scope):
            await JsonResponse(BROKEN)(scope, receive, send)
            return
        await self._app(scope, receive, self._changing(send) if self._changes else send)

    def _changing(self, send: Send) -> Send:
        start: list[Message] = []

        async def change(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.append(message)
                return
            body = orjson.dumps(self._changed(orjson.loads(message["body"])))
            headers = [pair for pair in start[0]["headers"] if pair[0] != b"content-length"]
            headers.append((b"content-length", str(len(body)).encode()))
            await send({**start[0], "headers": headers})
            await send({**message, "body": body})

        return change

    def _changed(self, page: dict[str, Any]) -> dict[str, Any]:
        name = next((name for name in ITEMS if name in page), ITEMS[0])
        if shown := self._options.list_breaks:
            more = {key: BROKEN[key] for key in ("has_more", "nextPageToken", "total")}
            return {**page, **more, name: page.get(name, [])[: shown - 1]}
        if self._options.list_hides:
            return {"object": "list", name: [], "has_more": False, "total": 0}
        return {**page, name: [_unmarked(item) for item in page.get(name, [])]}


def _is_later(scope: Scope) -> bool:
    asked = QueryParams(scope["query_string"])
    return any(asked.get(name, "0") != "0" for name in CURSORS)


def _unmarked(item: dict[str, Any]) -> dict[str, Any]:
    inner = item.get("metadata")
    if isinstance(inner, dict) and "displayName" in inner:  # batches that are within operations
        return {**item, "metadata": {key: value for key, value in inner.items() if key != "displayName"}}
    return {key: value for key, value in item.items() if key not in MARKS}
