"""Middleware around every call: the dialect's headers, and injected overload."""

from collections.abc import Callable, Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blocks.emulator.service.service import Service
from blocks.emulator.wire.calls import CallError, JsonResponse, read_body

OWN_PATHS = "/emulator/"  # health and ledger: no faults there


class AnswerHeaders:
    """Adds the dialect's own headers to every answer, and `x-should-retry` to errors if switched."""

    def __init__(self, app: ASGIApp, headers: Callable[[], Mapping[str, str]], should_retry: str) -> None:
        self._app = app
        self._headers = headers
        self._on_errors = {"x-should-retry": should_retry} if should_retry else {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = self._headers()  # before the call: an error's body may repeat one of them

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = {**headers, **(self._on_errors if message["status"] >= 400 else {})}
                own = [(name.encode(), value.encode()) for name, value in added.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


class FailingCalls:
    """Counts calls and answers some of them with an overload error before anything is done."""

    def __init__(self, app: ASGIApp, service: Service, error_body: Callable[[CallError], object]) -> None:
        self._app = app
        self._service = service
        self._error_body = error_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(OWN_PATHS) or not self._service.call_fails():
            await self._app(scope, receive, send)
            return
        try:
            await read_body(Request(scope, receive), limit=0)
        except ClientDisconnect:
            return
        status = self._service.habits.overload_status
        error = CallError(status, "unavailable", "the service is overloaded (an injected fault)")
        await JsonResponse(self._error_body(error), status)(scope, receive, send)
