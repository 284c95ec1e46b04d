"""The emulator as a Starlette application: the dialect's routes, plus routes for health and ledger."""

import os
import sqlite3
from collections.abc import Mapping
from email.utils import formatdate
from functools import partial
from typing import Any, cast

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ExceptionHandler

from blocks.emulator.dialects.dialect import Dialect
from blocks.emulator.service.service import Service
from blocks.emulator.service.store import Store
from blocks.emulator.wire.calls import CallError, JsonResponse, require_bearer
from blocks.emulator.wire.listing import ListHabits
from blocks.emulator.wire.middleware import AnswerHeaders, FailingCalls


def create_app(service: Service, dialect: Dialect) -> Starlette:
    """The application, to be served or tested."""
    headers = partial(_headers, service, dialect)
    return Starlette(
        routes=[
            *dialect.routes(),
            Route("/emulator/health", lambda _: JsonResponse(health(service)), methods=["GET"]),
            Route("/emulator/ledger", lambda request: ledger(service, request), methods=["GET"]),
        ],
        middleware=[
            Middleware(AnswerHeaders, headers=headers, should_retry=service.options.should_retry),
            Middleware(ListHabits, options=service.options, error_body=dialect.error_body),
            Middleware(FailingCalls, service=service, error_body=dialect.error_body),
        ],
        exception_handlers=error_handlers(dialect),
    )


def _headers(service: Service, dialect: Dialect) -> Mapping[str, str]:
    """The dialect's, and the time by the emulator's clock."""
    return {**dialect.headers(), "date": formatdate(service.now(), usegmt=True)}


def error_handlers(dialect: Dialect) -> dict[Any, ExceptionHandler]:
    """Handlers that answer all errors, including the router's, in the dialect's JSON shape."""

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
        return Response(status_code=400)  # the client has disconnected

    handlers: dict[Any, ExceptionHandler] = {CallError: answer_error, HTTPException: answer_error}
    full: dict[Any, ExceptionHandler] = {sqlite3.OperationalError: answer_full, OSError: answer_full}
    return {**handlers, **full, ClientDisconnect: answer_nobody, Exception: answer_defect}


def health(service: Service) -> dict[str, object]:
    """Proof that the emulator is up, and the path of its state."""
    return {"status": "ok", "dialect": service.options.dialect, "pid": os.getpid(), "state": str(service.store.path)}


def ledger(service: Service, request: Request) -> Response:
    """What has been billed so far: totals, or with `?rows=1` each billed item as a line of JSON.

    Where there is a key it is needed here too: prompts and answers of a trial are nobody else's.
    """
    if service.options.key is not None:
        require_bearer(request, service.options.key)
    service.settle_all()
    if request.query_params.get("rows") == "1":
        lines = (orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in service.store.ledger.rows())
        return StreamingResponse(lines, media_type="application/x-ndjson")
    return JsonResponse(ledger_totals(service.store))


def ledger_totals(store: Store) -> dict[str, object]:
    """Counters, totals and outcomes."""
    counters = store.counters()
    counted = {name: counters.get(name, 0) for name in ("calls", "creates", "creates_rate_limited")}
    return {**counted, **store.ledger.totals(), "outcomes": store.ledger.outcomes()}
