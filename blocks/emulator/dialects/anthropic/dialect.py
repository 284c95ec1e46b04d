"""Anthropic's Message Batches: its published description, what its SDK expects, and recorded answers.

A create is checked as the service does it: its shape, the number of requests and their ids at once, what is in `params`
only in each row's result. The choices of this project, where nothing is known: an early delete and the cancelling of a
batch that has ended are a 400; rows that are absent from the results count as `succeeded`; a batch that fails as a
whole (by switch) is one whose rows all errored on the server's side, which only its counters say; of results that are
gone `archived_at` says so, `results_url` is null and asking for them a 404. A forced tool whose answer is broken or cut
off has an empty `input`. Stop sequences are accepted and never met. A create is a 400 with the first thing that is
wrong in it.

Prompt caching is by best effort, but the same in each run: a beginning that is marked with `cache_control` is written
by the first `WARM_UP` answers of a batch that have it; of those behind them, in the order in which the batch is worked
on, the share `cached_share` reads it (`HIT_SHARE` if that is 0) and the others write it again. Other batches begin
anew. The ledger's `input_tokens` is all: `input_tokens`, `cache_creation_input_tokens`, `cache_read_input_tokens`.
"""

import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from hmac import compare_digest
from typing import IO, Any
from uuid import uuid4

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as Call
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from blocks.emulator.dialects.anthropic.params import OLD_VERSION, VERSION, ParamsError, read_params
from blocks.emulator.service.batch import Batch, Item, NewBatch, Outcome, Request, Status
from blocks.emulator.service.faults import UNKNOWN_STATUS, draw
from blocks.emulator.service.files import NewFile, OpenFile
from blocks.emulator.service.processing import Habits, queued_seconds
from blocks.emulator.service.service import Accepted, Service
from blocks.emulator.wire.calls import CallError, JsonResponse, answer_create, query_number, refuse_by_rate
from blocks.emulator.wire.elements import DocumentError, DocumentReader
from blocks.emulator.wire.lines import Json
from blocks.emulator.wire.transfers import answer_file, temporary

MAX_REQUESTS = 100_000
MAX_BYTES = 256 << 20  # of one create
LIST_LIMIT, LIST_DEFAULT = 1000, 20
DAY = 86_400
MOST_TOKENS = 1 << 40  # of an answer; whatever is allowed beyond that
WARM_UP, HIT_SHARE = 4, 0.9
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
ERROR_TYPES = {
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
DATED = {
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-opus-4-5": "claude-opus-4-5-20251101",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
}
KINDS = {  # of a result; what is absent counts as if it had come
    Outcome.CANCELLED: "canceled",
    Outcome.EXPIRED: "expired",
    Outcome.FAILED: "errored",
    Outcome.UNEXPLAINED: "errored",
    Outcome.TIMED_OUT: "errored",
    Outcome.REJECTED: "errored",
}
COUNTS = ("succeeded", "errored", "canceled", "expired")
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
        base = "/v1/messages/batches"
        return [
            Route(base, self.create_batch, methods=["POST"]),
            Route(base, self.list_batches, methods=["GET"]),
            Route(f"{base}/{{batch_id}}", self.show_batch, methods=["GET"]),
            Route(f"{base}/{{batch_id}}", self.delete_batch, methods=["DELETE"]),
            Route(f"{base}/{{batch_id}}/cancel", self.cancel_batch, methods=["POST"]),
            Route(f"{base}/{{batch_id}}/results", self.show_results, methods=["GET"]),
        ]

    def headers(self) -> dict[str, str]:
        request_id = f"req_01{uuid4().hex[:22]}"
        REQUEST_ID.set(request_id)  # an error's body repeats it
        return {"request-id": request_id, "anthropic-organization-id": "00000000-0000-4000-8000-000000000000"}

    def error_body(self, error: CallError) -> object:
        kind = ERROR_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
        told: Json = {"type": kind, "message": error.message}
        if error.code == "insufficient_quota":
            told["details"] = {"error_code": "enforced_spend_limit_reached"}
        return {"type": "error", "error": told, "request_id": REQUEST_ID.get(None)}

    async def create_batch(self, call: Call) -> Response:
        store = self._service.store
        with temporary(store) as body, temporary(store) as rows:
            size = await receive(call, body, self._max_bytes)
            accepted = await run_in_threadpool(self._accept, call, body, size, rows)
        answer = JsonResponse(batch_json(accepted.batch, "in_progress", url_of(call)))
        return await answer_create(self._service, accepted, answer)

    def show_batch(self, call: Call) -> Response:
        return JsonResponse(self._batch_json(self._find_batch(call), call))

    def list_batches(self, call: Call) -> Response:
        self._check_access(call)
        query = call.query_params
        limit = query_number(query, "limit", LIST_DEFAULT, 1, LIST_LIMIT)
        if "after_id" in query and "before_id" in query:
            raise bad_request("after_id and before_id can not be given together")
        if "before_id" in query:
            found = self._service.batches_after(self._find_id(query["before_id"]).number, limit + 1)
            shown = found[-limit:]
        else:
            after = self._find_id(query["after_id"]).number if "after_id" in query else None
            found = self._service.batches(after, limit + 1)
            shown = found[:limit]
        data = [self._batch_json(batch, call) for batch in shown]
        ends = {"first_id": shown[0].id, "last_id": shown[-1].id} if shown else {"first_id": None, "last_id": None}
        return JsonResponse({"data": data, "has_more": len(found) > limit, **ends})

    def cancel_batch(self, call: Call) -> Response:
        batch = self._service.cancel(self._find_batch(call))
        if self._status(batch) == "ended":
            raise bad_request(f"Message Batch {batch.id} has ended and can not be canceled.")
        return JsonResponse(self._batch_json(batch, call))

    def delete_batch(self, call: Call) -> Response:
        batch = self._find_batch(call)
        if self._status(batch) != "ended":
            raise bad_request(f"Message Batch {batch.id} can not be deleted while it is processing; cancel it first.")
        file = self._files.find(orjson.loads(batch.details)["results"], self._service.now())
        if file is not None:
            self._files.delete(file)
        self._service.delete(batch)
        return JsonResponse({"id": batch.id, "type": "message_batch_deleted"})

    def show_results(self, call: Call) -> Response:
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
        """Writes the results of a batch that ends."""
        new = NewFile(f"{batch.id}_results.jsonl", "results", batch.ended_at, self._service.gone_at(batch))
        file = open_file(new)
        write_row = RowWriter(batch.number, self._service)
        for item in items:
            row = write_row(item)
            file.write(2 * row if self._service.line_comes_twice(item) else row)
        file.close(even_empty=True)
        return orjson.dumps({"results": file.id, "counts": write_row.counts(batch.total)}).decode()

    def _accept(self, call: Call, body: IO[bytes], size: int, rows: IO[bytes]) -> Accepted:
        version = self._check_access(call)
        refuse_by_rate(self._service)
        if size > self._max_bytes:
            raise CallError(413, "request_too_large", f"Request exceeds the maximum size of {self._max_bytes} bytes.")
        body.seek(0)
        requests = KeptRequests(rows)
        try:
            read_create(DocumentReader(body, "requests"), requests, version, self._max_requests)
        except (DocumentError, orjson.JSONEncodeError) as error:  # halves of surrogate pairs, 65 bits
            raise bad_request(f"The request body is not valid JSON: {error}") from None
        rows.flush()
        new_id = f"msgbatch_01{uuid4().hex[:22]}"
        return self._service.accept(NewBatch(requests[0].model, requests, body_hash=b"", id=new_id))

    def _check_access(self, call: Call) -> str:
        """The version that is spoken."""
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


class KeptRequests:
    """The requests of a create, on disk until they are stored: where they are is in memory, what is in them is not."""

    def __init__(self, rows: IO[bytes]) -> None:
        self._rows = rows
        self._starts = array("Q", [0])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int, /) -> Request:
        start = self._starts[index]
        return Request._make(orjson.loads(os.pread(self._rows.fileno(), self._starts[index + 1] - start, start)))

    def add(self, request: Request) -> None:
        row = orjson.dumps(tuple(request))
        self._rows.write(row)
        self._starts.append(self._starts[-1] + len(row))


class Cache:
    """What the answers of a batch find in the cache, and what they write to it."""

    def __init__(self, hit_share: float) -> None:
        self._hit_share = hit_share
        self._times: Counter[str] = Counter()

    def use(self, segments: Sequence[tuple[str, int, str]], luck: float) -> tuple[int, dict[str, int]]:
        """Tokens that are read, and those that are written by time to live. `luck` is from 0 to 1: less is more."""
        read = 0
        if luck < self._hit_share:
            read = max((tokens for key, tokens, _ in segments if self._times[key] >= WARM_UP), default=0)
        written, done = {"5m": 0, "1h": 0}, read
        for key, tokens, ttl in segments:
            self._times[key] += 1
            written[ttl] += max(0, tokens - done)
            done = max(done, tokens)
        return read, written


class RowWriter:
    """Writes the lines of a batch's results, and keeps count."""

    def __init__(self, number: int, service: Service) -> None:
        self._number = number
        self._seed = service.options.seed
        self._cache = Cache(service.options.cached_share or HIT_SHARE)
        self._usage_is_missing = service.usage_is_missing
        self._kinds: Counter[str] = Counter()
        self._rows = 0

    def __call__(self, item: Item) -> bytes:
        self._rows += 1
        kind = KINDS.get(item.outcome, "succeeded")
        self._kinds[kind] += 1
        name = f"01{self._number:08x}{self._rows:014x}"
        result: Json = {"type": kind}
        if kind == "succeeded":
            result["message"] = self._message(item, name)
        elif kind == "errored":
            result["error"] = {"type": "error", "error": row_error(item), "request_id": f"req_{name}"}
        return orjson.dumps({"custom_id": item.custom_id, "result": result}, option=orjson.OPT_APPEND_NEWLINE)

    def counts(self, total: int) -> dict[str, int]:
        missing = total - self._rows
        return {kind: self._kinds[kind] + (missing if kind == "succeeded" else 0) for kind in COUNTS}

    def _message(self, item: Item, name: str) -> Json:
        note = orjson.loads(item.note) if item.note else {}
        refused = item.outcome is Outcome.REFUSED
        tool = None if refused else note.get("tool")
        message: Json = {
            "model": DATED.get(item.model, item.model),
            "id": f"msg_{name}",
            "type": "message",
            "role": "assistant",
            "content": [tool_block(item, tool, name) if tool else {"type": "text", "text": item.text}],
            "stop_reason": stop_reason(item.outcome, tool),
            "stop_sequence": None,
            "stop_details": {"type": "refusal", "category": None, "explanation": None} if refused else None,
        }
        usage = self._usage(item, note.get("segments", ()))
        return message if self._usage_is_missing(item) else {**message, "usage": usage}

    def _usage(self, item: Item, segments: Sequence[tuple[str, int, str]]) -> Json:
        read, written = 0, {"5m": 0, "1h": 0}
        if segments:
            read, written = self._cache.use(segments, draw("cache", self._seed, item.prompt_hash, item.attempt))
        read = min(read, item.input_tokens)
        new = {ttl: min(tokens, item.input_tokens - read) for ttl, tokens in written.items()}
        new["5m"] = min(new["5m"], item.input_tokens - read - new["1h"])
        return {
            "input_tokens": item.input_tokens - read - new["5m"] - new["1h"],
            "cache_creation_input_tokens": new["5m"] + new["1h"],
            "cache_read_input_tokens": read,
            "cache_creation": {"ephemeral_5m_input_tokens": new["5m"], "ephemeral_1h_input_tokens": new["1h"]},
            "output_tokens": item.output_tokens,
            "output_tokens_details": {"thinking_tokens": 0},
            "service_tier": "batch",
            "inference_geo": "global",
        }


async def receive(call: Call, spool: IO[bytes], most: int) -> int:
    """The body to disk, as far as it is allowed; its true size. To its end: who is still writing hears no answer."""
    size = 0
    async for chunk in call.stream():
        size += len(chunk)
        if size <= most:
            spool.write(chunk)
    return size


def require_key(call: Call, key: str | None) -> None:
    """Either header will do."""
    scheme, _, token = call.headers.get("authorization", "").partition(" ")
    given = call.headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
    if not given:
        raise CallError(401, "missing_key", "x-api-key header is required")
    if key is not None and not compare_digest(given.encode(), key.encode()):
        raise CallError(401, "invalid_key", "invalid x-api-key")


def bad_request(message: str) -> CallError:
    return CallError(400, "invalid_request", message)


def read_create(document: DocumentReader, requests: KeptRequests, version: str, most: int) -> None:
    """CallError says which request is wrong."""
    known: dict[str, int] = {}
    count = 0
    for count, element in enumerate(document.elements(), 1):
        if count <= most:
            requests.add(read_request(element, count - 1, known, version))
    check_others(document)
    if count > most:
        raise bad_request(f"requests: List should have at most {most} items after validation, not {count}")
    if not count:
        raise bad_request("requests: List should have at least 1 item after validation, not 0")


def check_others(document: DocumentReader) -> None:
    others = document.others
    if "requests" in others:
        raise bad_request("requests: Input should be a valid list")
    if not document.has_array:
        raise bad_request("requests: Field required")
    for name in others:
        raise bad_request(f"{name}: Extra inputs are not permitted")


def read_request(element: Any, index: int, known: dict[str, int], version: str) -> Request:
    where = f"requests.{index}"
    if not isinstance(element, dict):
        raise bad_request(f"{where}: Input should be a valid dictionary")
    for name in ("custom_id", "params"):
        if name not in element:
            raise bad_request(f"{where}.{name}: Field required")
    if len(element) > 2:
        extra = next(name for name in element if name not in ("custom_id", "params"))
        raise bad_request(f"{where}.{extra}: Extra inputs are not permitted")
    custom_id, params = element["custom_id"], element["params"]
    if not isinstance(custom_id, str) or not CUSTOM_ID.fullmatch(custom_id):
        raise bad_request(f"{where}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
    if known.setdefault(custom_id, index) != index:
        raise bad_request(
            f"{where}.custom_id: '{custom_id}' is that of requests.{known[custom_id]}; ids must be unique"
        )
    if not isinstance(params, dict):
        raise bad_request(f"{where}.params: Input should be a valid dictionary")
    return to_request(custom_id, params, version)


def to_request(custom_id: str, params: Json, version: str) -> Request:
    """What is wrong with its params, a request is told when its batch ends."""
    model = str(params.get("model") or "")
    try:
        asked = read_params(params, version)
    except ParamsError as error:
        return Request(custom_id, orjson.dumps(params).decode(), model, rejection=str(error))
    note = None
    if asked.tool or asked.segments:
        note = orjson.dumps({"tool": asked.tool, "segments": list(map(tuple, asked.segments))}).decode()
    most = min(params["max_tokens"], MOST_TOKENS)
    return Request(custom_id, asked.prompt, model, asked.schema, most, None, note)


def row_error(item: Item) -> Json:
    """What a row is told that was not answered."""
    if item.outcome is Outcome.REJECTED:
        return {"type": "invalid_request_error", "message": item.rejection}
    if item.outcome is Outcome.TIMED_OUT:
        return {"type": "timeout_error", "message": "Request timed out."}
    if item.outcome is Outcome.UNEXPLAINED:
        return {"type": "api_error", "message": ""}
    if item.prompt_hash % 2:
        return {"type": "overloaded_error", "message": "Overloaded"}
    return {"type": "api_error", "message": "Internal server error"}


def tool_block(item: Item, tool: str, name: str) -> Json:
    return {"type": "tool_use", "id": f"toolu_{name}", "name": tool, "input": tool_input(item.text)}


def tool_input(text: str) -> Json:
    """Never text: what is broken off or no object leaves nothing behind."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def stop_reason(outcome: Outcome, tool: str | None) -> str:
    if outcome is Outcome.REFUSED:
        return "refusal"
    if outcome is Outcome.TRUNCATED:
        return "max_tokens"
    return "tool_use" if tool else "end_turn"


def batch_status(batch: Batch, now: float) -> str:
    """In Anthropic's words. How a batch ended, only its counters say."""
    if batch.status is None:
        return "in_progress"
    return "canceling" if batch.status is Status.CANCELLED and now < end_of(batch) else "ended"


def end_of(batch: Batch) -> float:
    """When an ended batch ended for those who look at it; a cancelled one takes as long as the emulator's queue."""
    cancelled = batch.status is Status.CANCELLED
    return batch.ended_at + (queued_seconds(batch.schedule.duration) if cancelled else 0)


def batch_json(batch: Batch, status: str, url: str, gone_at: float | None = None) -> Json:
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
        "results_url": f"{url}/v1/messages/batches/{batch.id}/results" if available else None,
    }


def time_json(at: float | None) -> str | None:
    """Always with microseconds."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")


def url_of(call: Call) -> str:
    """Where the caller found this server."""
    return f"{call.url.scheme}://{call.url.netloc}"
