"""Anthropic's Message Batches: its published description, what its SDK expects, and recorded answers.

Section numbers in this folder are those of docs/wire-protocols.md. A create is checked as the service does it: its
outline, the number of requests and their ids at once (§2.2), what is in `params` only in each row's result. It is
refused with the first mistake in it.

Choices of this project, where nothing is known: cancelling a batch that has ended is a 400; rows that are absent from
the results count as `succeeded`; a batch that fails as a whole (an injected fault) is one whose rows all errored on the
server's side, which only its counters say; if results are gone, `archived_at` says when, `results_url` is null, and
asking for them is a 404.

Prompt caching is by best effort on the real service, but the same in each run here: a prefix that is marked with
`cache_control` is written by the first `WARM_UP` answers of a batch that have it; of those behind them, in the order in
which the batch is processed, the share `cached_share` reads it (`HIT_SHARE` if that is 0) and the others write it
again. Other batches start anew. The ledger's `input_tokens` is the sum of `input_tokens`, `cache_creation_input_tokens`
and `cache_read_input_tokens`.
"""

from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO
from uuid import uuid4

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as Call
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from blocks.emulator.dialects.anthropic.creates import bad_request, read_create
from blocks.emulator.dialects.anthropic.params import OLD_VERSION, VERSION
from blocks.emulator.dialects.anthropic.results import COUNTS, RowWriter
from blocks.emulator.service.batch import Batch, Item, NewBatch, Status
from blocks.emulator.service.faults import UNKNOWN_STATUS
from blocks.emulator.service.files import NewFile, OpenFile
from blocks.emulator.service.processing import Habits, queued_seconds
from blocks.emulator.service.service import Accepted, Service
from blocks.emulator.wire.calls import CallError, JsonResponse, is_key, query_number, spool_body
from blocks.emulator.wire.creates import answer_create, refuse_by_rate
from blocks.emulator.wire.downloads import answer_file
from blocks.emulator.wire.lines import Json, dump
from blocks.emulator.wire.uploads import temporary

BATCHES = "/v1/messages/batches"
MAX_REQUESTS = 100_000
MAX_BYTES = 256 << 20  # of one create
MAX_PAGE, PAGE = 1000, 20
DAY = 86_400
ERROR_TYPES = {  # §2.7
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
REQUEST_ID: ContextVar[str] = ContextVar("request_id")


class Dialect:
    """Routes below `/v1/messages/batches`; clients are given the address without `/v1`."""

    base_path = ""

    def __init__(self, service: Service) -> None:
        service.habits = Habits(bills_refusals=True, fails_row_by_row=True, overload_status=529)
        service.publish = self.publish
        self._service = service
        self._options = service.options
        self._files = service.store.files
        self._max_requests = service.options.max_requests or MAX_REQUESTS
        self._max_bytes = service.options.max_bytes or MAX_BYTES

    def routes(self) -> list[BaseRoute]:
        """Batches and their results."""
        return [
            Route(BATCHES, self.create_batch, methods=["POST"]),
            Route(BATCHES, self.list_batches, methods=["GET"]),
            Route(f"{BATCHES}/{{batch_id}}", self.show_batch, methods=["GET"]),
            Route(f"{BATCHES}/{{batch_id}}/cancel", self.cancel_batch, methods=["POST"]),
            Route(f"{BATCHES}/{{batch_id}}/results", self.show_results, methods=["GET"]),
        ]

    def headers(self) -> dict[str, str]:
        """A new id for each call, which the body of an error repeats."""
        request_id = f"req_01{uuid4().hex[:22]}"
        REQUEST_ID.set(request_id)
        return {"request-id": request_id, "anthropic-organization-id": "00000000-0000-4000-8000-000000000000"}

    def error_body(self, error: CallError) -> object:
        """`{"type": "error", "error": {"type", "message"}, "request_id"}`."""
        kind = ERROR_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
        shown: Json = {"type": kind, "message": error.message}
        if error.code == "insufficient_quota":
            shown["details"] = {"error_code": "enforced_spend_limit_reached"}
        return {"type": "error", "error": shown, "request_id": REQUEST_ID.get(None)}

    async def create_batch(self, call: Call) -> Response:
        """POST: the requests are in the body, which may be large."""
        store = self._service.store
        with temporary(store) as body, temporary(store) as rows:
            size = await spool_body(call, body, self._max_bytes)
            accepted = await run_in_threadpool(self._accept, call, body, size, rows)
        answer = JsonResponse(batch_json(accepted.batch, "in_progress", url_of(call)))
        return await answer_create(self._service, accepted, answer)

    def show_batch(self, call: Call) -> Response:
        """GET one batch."""
        return JsonResponse(self._batch_json(self._find_batch(call), call))

    def list_batches(self, call: Call) -> Response:
        """GET all batches, newest first."""
        self._check_access(call)
        query = call.query_params
        limit = query_number(query, "limit", PAGE, 1, MAX_PAGE)
        if "before_id" in query:
            raise bad_request("the emulator pages by after_id only")
        after = self._find_id(query["after_id"]).number if "after_id" in query else None
        found = self._service.batches(after, limit + 1)
        data = [self._batch_json(batch, call) for batch in found[:limit]]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
        return JsonResponse({"data": data, "has_more": len(found) > limit, **ends})

    def cancel_batch(self, call: Call) -> Response:
        """POST: cancel a batch; processed requests keep their results."""
        batch = self._service.cancel(self._find_batch(call))
        if self._status(batch) == "ended":
            raise bad_request(f"Message Batch {batch.id} has ended and cannot be canceled.")
        return JsonResponse(self._batch_json(batch, call))

    def show_results(self, call: Call) -> Response:
        """GET the lines of an ended batch."""
        batch = self._find_batch(call)
        file = None
        if self._status(batch) == "ended":
            file = self._files.find(orjson.loads(batch.details)["results"], self._service.now())
        if file is None:
            raise CallError(404, "not_found", f"Message Batch {batch.id} has no available results.")
        answer = answer_file(self._service, file)
        answer.headers["content-type"] = "application/x-jsonl"
        return answer

    def publish(self, batch: Batch, items: Iterator[Item], open_file: OpenFile) -> str:
        """Write the results of a batch that ends."""
        new = NewFile(f"{batch.id}_results.jsonl", "results", batch.ended_at, self._service.gone_at(batch))
        file = open_file(new)
        write_row = RowWriter(batch.number, self._service)
        for item in items:
            row = write_row(item)
            file.write(2 * row if self._service.line_comes_twice(item) else row)
        file.close(even_empty=True)
        return dump({"results": file.id, "counts": write_row.counts(batch.total)})

    def _accept(self, call: Call, body: IO[bytes], size: int, rows: IO[bytes]) -> Accepted:
        version = self._check_access(call)
        refuse_by_rate(self._service)
        if size > self._max_bytes:
            raise CallError(413, "request_too_large", f"Request exceeds the maximum size of {self._max_bytes} bytes.")
        body.seek(0)
        requests = read_create(body, rows, version, self._max_requests)
        new_id = f"msgbatch_01{uuid4().hex[:22]}"
        return self._service.accept(NewBatch(requests[0].model, requests, body_hash=b"", id=new_id))

    def _check_access(self, call: Call) -> str:
        """The API version of the call. Raises CallError."""
        require_key(call, self._options.key)
        version = call.headers.get("anthropic-version")
        if version is None:
            raise bad_request("anthropic-version: header is required")
        if version not in (OLD_VERSION, VERSION):
            raise bad_request(f'anthropic-version: "{version}" is not a valid version for this API')
        return version

    def _find_batch(self, call: Call) -> Batch:
        self._check_access(call)
        return self._find_id(call.path_params["batch_id"])

    def _find_id(self, batch_id: str) -> Batch:
        batch = self._service.batch(batch_id)
        if batch is None:
            raise CallError(404, "not_found", f"Could not find Message Batch with id '{batch_id}'.")
        return batch

    def _status(self, batch: Batch) -> str:
        return batch_status(batch, self._service.now())

    def _batch_json(self, batch: Batch, call: Call) -> Json:
        """A batch as it is now."""
        if self._service.shows_unknown_status(batch):
            return {**batch_json(batch, "in_progress", url_of(call)), "processing_status": UNKNOWN_STATUS}
        gone_at = self._service.gone_at(batch) if self._service.results_are_gone(batch) else None
        return batch_json(batch, self._status(batch), url_of(call), gone_at)


def require_key(call: Call, key: str | None) -> None:
    """Check either header that may carry the key. Raises CallError (401)."""
    scheme, _, token = call.headers.get("authorization", "").partition(" ")
    given = call.headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
    if not given:
        raise CallError(401, "missing_key", "x-api-key header is required")
    if not is_key(given, key):
        raise CallError(401, "invalid_key", "invalid x-api-key")


def batch_status(batch: Batch, now: float) -> str:
    """Anthropic's state (§2.3). Only the counters say how a batch ended."""
    if batch.status is None:
        return "in_progress"
    return "canceling" if batch.status is Status.CANCELLED and now < end_of(batch) else "ended"


def end_of(batch: Batch) -> float:
    """When a batch ended as far as clients see: cancelling takes as long as the emulator's queue."""
    cancelled = batch.status is Status.CANCELLED
    return batch.ended_at + (queued_seconds(batch.schedule.duration) if cancelled else 0)


def batch_json(batch: Batch, status: str, url: str, gone_at: float | None = None) -> Json:
    """A batch object (§2.3); `url` is the server's, `gone_at` when its results were archived."""
    created, ended = batch.schedule.created_at, status == "ended"
    open_counts = {"processing": batch.total, **dict.fromkeys(COUNTS, 0)}
    available = ended and gone_at is None
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": {"processing": 0, **orjson.loads(batch.details)["counts"]} if ended else open_counts,
        "ended_at": time_json(end_of(batch)) if ended else None,
        "created_at": time_json(created),
        "expires_at": time_json(created + DAY),
        "archived_at": time_json(gone_at),
        "cancel_initiated_at": time_json(batch.ended_at) if batch.status is Status.CANCELLED else None,
        "results_url": f"{url}{BATCHES}/{batch.id}/results" if available else None,
    }


def time_json(at: float | None) -> str | None:
    """Always with microseconds."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")


def url_of(call: Call) -> str:
    """The address of this server as the caller knows it."""
    return f"{call.url.scheme}://{call.url.netloc}"
