"""The Gemini Developer API's batches and files, after its documentation, its SDK and one recorded batch.

Section numbers in this folder are those of docs/wire-protocols.md. Choices of this project, where nothing is known:
results come in any order, though input order is documented, for users saw that; a list of batches leaves inline
responses out; an invalid line of an input file fails its row (400), one that is not JSON the whole batch; a batch that
was cancelled keeps and bills what was processed, one that expired keeps and bills nothing; cancelling a batch that has
ended is answered by `{}` too; what was uploaded can't be downloaded. A refused request is billed its input, and shows
as a candidate without content or as a blocked prompt. Thinking counts towards `maxOutputTokens`: an answer may be used
up by it.
"""

import base64
from collections.abc import Iterator
from functools import partial
from math import inf
from threading import Lock
from typing import Any
from uuid import uuid4

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request as Call
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from blocks.emulator.dialects.gemini.errors import StatusError, error_json, invalid_key, quota_error
from blocks.emulator.dialects.gemini.operations import (
    ANSWERED,
    STATES,
    UNTOUCHED,
    RowWriter,
    batch_state,
    operation_json,
    page_json,
)
from blocks.emulator.dialects.gemini.requests import check_file, check_names, file_request, inline_requests
from blocks.emulator.dialects.gemini.uploads import FILE_SECONDS, JSONL, MAX_BEGIN_BYTES, Uploads
from blocks.emulator.service.batch import Batch, Item, NewBatch, Request, Requests, Status
from blocks.emulator.service.faults import swap_answers
from blocks.emulator.service.files import NewFile, OpenFile
from blocks.emulator.service.processing import Habits
from blocks.emulator.service.service import Accepted, Service
from blocks.emulator.wire.calls import CallError, JsonResponse, hash_body, is_key, parse_json, read_body
from blocks.emulator.wire.creates import answer_create, refuse_by_rate
from blocks.emulator.wire.downloads import answer_file, answer_results, with_faults
from blocks.emulator.wire.lines import Json, LineError, LineRequests, Lines, dump, member
from blocks.emulator.wire.uploads import temporary

VERSIONS = ("v1beta", "v1")
INLINE_BYTES = 20 << 20  # of a create
MAX_OPEN = 100  # batches under way
PAGE_SIZE, MAX_PAGE_SIZE = 50, 100
UNKNOWN_STATE = "PAUSED"


class Dialect:
    """Routes below `/v1beta` and `/v1`; clients put the version into their paths themselves."""

    base_path = ""

    def __init__(self, service: Service) -> None:
        service.habits = Habits(bills_refusals=True, refusal="", thinks=True, keeps_expired=False)
        service.publish = self.publish
        self._service = service
        self._options = service.options
        self._files = service.store.files
        self._inline_bytes = service.options.max_bytes or INLINE_BYTES
        self._uploads = Uploads(service)
        self._queueing = Lock()

    def routes(self) -> list[BaseRoute]:
        """Batches, and files as far as batches need them, in both versions."""
        return [route for version in VERSIONS for route in self._routes(version)]

    def headers(self) -> dict[str, str]:
        """No additional headers."""
        return {}

    def error_body(self, error: CallError) -> object:
        """`{"error": {"code", "message", "status", "details"}}`."""
        return error_json(error)

    async def create_batch(self, call: Call) -> Response:
        """POST models/{model}:batchGenerateContent."""
        body = await read_body(call, self._inline_bytes)
        accepted = await run_in_threadpool(self._accept, call, body)
        answer = JsonResponse(self._operation(accepted.batch, "PENDING"))
        return await answer_create(self._service, accepted, answer)

    def show_batch(self, call: Call) -> Response:
        """GET batches/{id}, with its inline results once it is over."""
        batch = self._find_batch(call)
        state = self._state(batch)
        output = self._inlined(batch, state)
        shown = self._operation(batch, state, output)
        return JsonResponse(shown) if output is None else answer_results(self._service, shown)

    def list_batches(self, call: Call) -> Response:
        """GET batches, newest first."""
        self._require_key(call)
        size, before = page_size(call.query_params), page_token(call.query_params)
        batches = self._service.batches(before, size + 1)
        shown = [self._operation(batch, self._state(batch)) for batch in batches[:size]]
        return JsonResponse(page_json(shown, [batch.number for batch in batches], size))

    def cancel_batch(self, call: Call) -> Response:
        """POST batches/{id}:cancel."""
        self._service.cancel(self._find_batch(call))
        return JsonResponse({})

    async def upload_file(self, call: Call) -> Response:
        """POST files: the first call of an upload, or the one that brings its content and needs no key."""
        upload_id = call.query_params.get("upload_id")
        if upload_id is not None:
            return await self._uploads.finish(call, upload_id)
        body = await read_body(call, MAX_BEGIN_BYTES)
        self._require_key(call)
        return self._uploads.begin(call, body)

    def download_file(self, call: Call) -> Response:
        """GET files/{id}:download of results."""
        self._require_key(call)
        self._service.settle_all()
        file = self._files.find(call.path_params["file_id"], self._service.now())
        if file is None:
            raise StatusError(404, f"There is no file files/{call.path_params['file_id']}.")
        if file.purpose != "GENERATED":
            raise StatusError(400, "Only generated files can be downloaded.", word="FAILED_PRECONDITION")
        if call.query_params.get("alt") != "media":
            raise StatusError(400, "A download needs alt=media.")
        return answer_file(self._service, file)

    def publish(self, batch: Batch, items: Iterator[Item], open_file: OpenFile) -> str:
        """Count the outcomes of a batch, and write its file if its requests came in one."""
        details = orjson.loads(batch.details)
        failed = untouched = 0
        file = open_file(self._result_file(batch, details))
        writer = RowWriter(batch, self._service, in_file=True)
        for item in swap_answers(self._options, items):
            failed += item.outcome not in ANSWERED and item.outcome not in UNTOUCHED
            untouched += item.outcome in UNTOUCHED
            if details["file"] and item.outcome not in UNTOUCHED:
                line = orjson.dumps(writer.row(item), option=orjson.OPT_APPEND_NEWLINE)
                file.write(line + line if self._service.line_comes_twice(item) else line)
        # An empty file says that all rows are absent; no file says that there is nothing left to read.
        file.close(even_empty=details["file"] is not None and batch.status is Status.COMPLETED)
        return dump({**details, "output_file": file.id, "failed": failed, "untouched": untouched})

    def _routes(self, version: str) -> list[BaseRoute]:
        batches = f"/{version}/batches"
        return [
            Route(f"/{version}/models/{{model}}:batchGenerateContent", self.create_batch, methods=["POST"]),
            Route(batches, self.list_batches, methods=["GET"]),
            Route(f"{batches}/{{batch_id}}:cancel", self.cancel_batch, methods=["POST"]),
            Route(f"{batches}/{{batch_id}}", self.show_batch, methods=["GET"]),
            Route(f"/upload/{version}/files", self.upload_file, methods=["POST"]),
            Route(f"/{version}/files/{{file_id}}:download", self.download_file, methods=["GET"]),
        ]

    def _require_key(self, call: Call) -> None:
        given = call.headers.get("x-goog-api-key") or call.query_params.get("key")
        if not given:
            raise StatusError(403, "Method doesn't allow unregistered callers. Please use an API Key.")
        if not is_key(given, self._options.key):
            raise invalid_key()

    def _accept(self, call: Call, body: bytes | None) -> Accepted:
        self._require_key(call)
        try:
            refuse_by_rate(self._service)
        except CallError as error:
            raise quota_error(error, self._options.retry_after) from None
        if body is None:
            raise StatusError(400, f"Request payload size exceeds the limit: {self._inline_bytes} bytes.")
        name, source = parse_create(parse_json(body))
        model = call.path_params["model"]
        if isinstance(source, list):
            requests = read_inline(model, source)
            tokens = sum(len(request.prompt) for request in requests) // 4
            return self._queue(model, requests, hash_body(body), display_name=name, file=None, tokens=tokens, errors=[])
        file = self._files.find(source.removeprefix("files/"), self._service.now())
        if file is None:
            raise StatusError(404, f"There is no file {source}.")
        with temporary(self._service.store) as copy:
            copy.writelines(self._files.content(file))
            copy.flush()
            lines = Lines(copy)
            details = {"display_name": name, "file": source, "errors": check_file(lines), "tokens": lines.tokens}
            return self._queue(model, LineRequests(lines, partial(file_request, model)), hash_body(body), **details)

    def _queue(self, model: str, requests: Requests, body_hash: bytes, **details: Any) -> Accepted:
        """`details` are the display name, the file, and the tokens and errors of the requests."""
        rejected = bool(details["errors"])
        accepted: Requests = () if rejected else requests
        with self._queueing:
            self._refuse_above_limits(model, len(accepted), details["tokens"])
            new = NewBatch(model, accepted, body_hash, None, dump(details), rejected=rejected, id=uuid4().hex)
            return self._service.accept(new)

    def _refuse_above_limits(self, model: str, count: int, tokens: int) -> None:
        self._service.settle_all()
        max_requests, max_tokens = self._options.max_requests, self._options.max_queued_tokens
        if max_requests is not None and count > max_requests:
            raise StatusError(400, f"A batch takes at most {max_requests} requests.")
        if len(self._service.store.open_batches(inf)) >= MAX_OPEN:
            raise StatusError(429, f"At most {MAX_OPEN} batches may be under way.")
        if max_tokens is not None and self._service.queued_tokens(model) + tokens > max_tokens:
            raise StatusError(429, f"The batches of {model} may hold at most {max_tokens} enqueued tokens.")

    def _result_file(self, batch: Batch, details: Json) -> NewFile:
        expires_at = min(batch.ended_at + FILE_SECONDS, self._service.gone_at(batch) or inf)
        name, kind = details["display_name"] or "", dump({"mimeType": JSONL})
        return NewFile(name, "GENERATED", batch.ended_at, expires_at, kind, f"batch-{batch.id}")

    def _find_batch(self, call: Call) -> Batch:
        self._require_key(call)
        batch = self._service.batch(call.path_params["batch_id"])
        if batch is None:
            raise StatusError(404, f"There is no batch batches/{call.path_params['batch_id']}.")
        return batch

    def _state(self, batch: Batch) -> str:
        return UNKNOWN_STATE if self._service.shows_unknown_status(batch) else batch_state(batch, self._service.now())

    def _operation(self, batch: Batch, state: str, output: Json | None = None) -> Json:
        return operation_json(batch, state, self._service.now(), self._options.state_prefix, output)

    def _inlined(self, batch: Batch, state: str) -> Json | None:
        """The results of a batch whose requests came without a file, once it is over."""
        kept = batch.status in (Status.COMPLETED, Status.CANCELLED) and not self._service.results_are_gone(batch)
        if orjson.loads(batch.details)["file"] or state not in STATES.values() or not kept:
            return None
        writer = RowWriter(batch, self._service, in_file=False)
        items = swap_answers(self._options, iter(self._service.items(batch, 0, batch.total)))
        rows = with_faults(self._service, [writer.row(item) for item in items if item.outcome not in UNTOUCHED])
        return {"inlinedResponses": {"inlinedResponses": orjson.Fragment(orjson.dumps(rows))}}


def read_inline(model: str, items: list[Any]) -> list[Request]:
    """Raises StatusError for an invalid request."""
    try:
        return inline_requests(model, items)
    except LineError as error:
        raise StatusError(400, str(error)) from None


def parse_create(content: Any) -> tuple[str | None, str | list[Any]]:
    """Display name and source of a create: a file's name or a list of requests. Raises StatusError."""
    if not isinstance(content, dict):
        raise StatusError(400, "The body must be a JSON object.")
    batch = member(content, "batch")
    config = member(batch, "inputConfig")
    try:
        check_names(content, {"batch"})
        check_names(batch, {"displayName", "inputConfig"})
        check_names(config, {"requests", "fileName"})
    except LineError as error:
        raise StatusError(400, str(error)) from None
    source = config.get("fileName") or member(config, "requests").get("requests")
    if not isinstance(source, str | list) or not source or len(config) > 1:
        raise StatusError(400, "batch.input_config must have either requests or a file_name.")
    name = batch.get("displayName")
    if not isinstance(name, str | None):
        raise StatusError(400, "batch.display_name must be a string.")
    return name, source


def page_size(query: QueryParams) -> int:
    """The page size; as elsewhere at Google, too large a value is capped. Raises StatusError if it is not a number."""
    text = query.get("pageSize", "0")
    if not (text.isascii() and text.isdigit()):
        raise StatusError(400, f"pageSize must be a whole number, not {text!r}.")
    return min(int(text[:9]) or PAGE_SIZE, MAX_PAGE_SIZE)


def page_token(query: QueryParams) -> int | None:
    """The number of the batch behind which a page begins. Raises StatusError."""
    text = query.get("pageToken")
    if not text:
        return None
    try:
        return int(base64.urlsafe_b64decode(text))
    except ValueError:
        raise StatusError(400, "pageToken is not valid.") from None
