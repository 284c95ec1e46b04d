"""OpenAI's Files and Batches, following its published OpenAPI description or, where it is silent, users' reports.

Section numbers in this folder are those of docs/wire-protocols.md. Creating a batch reads its file at once, but a
mistake in it is reported as the real service does (§3.4): the batch is accepted, is `validating` for a while, and then
`failed`. A body without messages or input fails in that way too, where the real service fails only the row.

Choices of this project, where nothing is known: `failed` counts the rows of the error file, and absent rows count as
neither; cancelling a batch that has ended is a 409; the list of files has those of a cancelled batch as soon as it
is `cancelling`. A limit of output tokens that is not a whole number above 0 is ignored.
"""

from collections.abc import Iterator
from threading import Lock
from typing import IO
from uuid import uuid4

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as Call
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from blocks.emulator.dialects.openai.bodies import RowWriter
from blocks.emulator.dialects.openai.checks import BadRequest, check_upload, parse_create
from blocks.emulator.dialects.openai.input_file import InputFile, error_json
from blocks.emulator.dialects.openai.objects import OUTPUT, batch_json, batch_status, file_json, page_json
from blocks.emulator.service.batch import Batch, Item, NewBatch, Requests
from blocks.emulator.service.faults import UNKNOWN_STATUS
from blocks.emulator.service.files import NewFile, OpenFile, StoredFile
from blocks.emulator.service.processing import Habits
from blocks.emulator.service.service import Accepted, Service
from blocks.emulator.wire.calls import (
    CallError,
    JsonResponse,
    hash_body,
    query_number,
    read_body,
    require_bearer,
)
from blocks.emulator.wire.creates import answer_create, refuse_by_rate
from blocks.emulator.wire.downloads import answer_file, with_named_files
from blocks.emulator.wire.lines import Json, LineError, dump
from blocks.emulator.wire.uploads import UploadForm, temporary

MAX_REQUESTS = 50_000
MAX_BYTES = 200 << 20  # of one file
MAX_CREATE_BYTES = 1 << 20  # of the body that creates a batch
MAX_FILES_PAGE, MAX_BATCHES_PAGE, BATCHES_PAGE = 10_000, 100, 20
FILES = ("output_file_id", "error_file_id")
MONTH = 30 * 86_400  # seconds for which an input file is kept
ERROR_NAMES = {  # type and code of errors that any call can meet
    "invalid_key": ("invalid_request_error", "invalid_api_key"),
    "rate_limited": ("requests", "rate_limit_exceeded"),
    "insufficient_quota": ("insufficient_quota", "insufficient_quota"),
    "unavailable": ("server_error", "service_unavailable"),
    "internal_error": ("server_error", None),
}


class Dialect:
    """Routes below `/v1`. Files are deleted and looked up by other clients of OpenAI's, never by ours."""

    base_path = "/v1"

    def __init__(self, service: Service) -> None:
        service.habits = Habits(bills_refusals=True)
        service.publish = self.publish
        self._service = service
        self._options = service.options
        self._files = service.store.files
        self._max_requests = service.options.max_requests or MAX_REQUESTS
        self._max_bytes = service.options.max_bytes or MAX_BYTES
        self._queueing = Lock()

    def routes(self) -> list[BaseRoute]:
        """Files and batches."""
        base = self.base_path
        return [
            Route(f"{base}/files", self.upload_file, methods=["POST"]),
            Route(f"{base}/files", self.list_files, methods=["GET"]),
            Route(f"{base}/files/{{file_id}}", self.show_file, methods=["GET"]),
            Route(f"{base}/files/{{file_id}}", self.delete_file, methods=["DELETE"]),
            Route(f"{base}/files/{{file_id}}/content", self.download_file, methods=["GET"]),
            Route(f"{base}/batches", self.create_batch, methods=["POST"]),
            Route(f"{base}/batches", self.list_batches, methods=["GET"]),
            Route(f"{base}/batches/{{batch_id}}", self.show_batch, methods=["GET"]),
            Route(f"{base}/batches/{{batch_id}}/cancel", self.cancel_batch, methods=["POST"]),
        ]

    def headers(self) -> dict[str, str]:
        """A new id for each call, and two constant headers."""
        return {"x-request-id": f"req_{uuid4().hex}", "openai-version": "2020-10-01", "openai-processing-ms": "1"}

    def error_body(self, error: CallError) -> object:
        """`{"error": {"message", "type", "param", "code"}}`."""
        if isinstance(error, BadRequest):
            kind, code, param = "invalid_request_error", error.code or None, error.param
        else:
            kind, code = ERROR_NAMES.get(error.code, ("invalid_request_error", None))
            param = None
        return {"error": {"message": error.message, "type": kind, "param": param, "code": code}}

    async def upload_file(self, call: Call) -> Response:
        """POST /files (§3.2)."""
        with temporary(self._service.store) as spool:
            form = UploadForm(self._max_bytes, spool)
            problem = await form.read(call)
            require_bearer(call, self._options.key)
            if problem is not None:
                raise BadRequest(problem)
            return JsonResponse(file_json(await run_in_threadpool(self._keep, form, spool)))

    def list_files(self, call: Call) -> Response:
        """GET /files, newest first (§3.2)."""
        require_bearer(call, self._options.key)
        query = call.query_params
        limit = query_number(query, "limit", MAX_FILES_PAGE, 1, MAX_FILES_PAGE)
        if query.get("order", "desc") != "desc":
            raise BadRequest("the emulator lists files in the order 'desc' only", "order")
        after = self._find_file_id(query["after"]).number if "after" in query else None
        self._service.settle_all()  # ended batches leave files behind
        files = self._files.newest(query.get("purpose"), after, limit + 1, self._service.now())
        return JsonResponse(page_json([file_json(file) for file in files], limit))

    def show_file(self, call: Call) -> Response:
        """GET /files/{id}."""
        return JsonResponse(file_json(self._find_file(call)))

    def delete_file(self, call: Call) -> Response:
        """DELETE /files/{id}."""
        file = self._find_file(call)
        self._files.delete(file)
        return JsonResponse({"object": "file", "id": file.id, "deleted": True})

    def download_file(self, call: Call) -> Response:
        """GET /files/{id}/content."""
        return answer_file(self._service, self._find_file(call))

    async def create_batch(self, call: Call) -> Response:
        """POST /batches (§3.4)."""
        body = await read_body(call, MAX_CREATE_BYTES)
        accepted = await run_in_threadpool(self._accept, call, body)
        answer = JsonResponse(batch_json(accepted.batch, "validating", self._service.now()))
        return await answer_create(self._service, accepted, answer)

    def show_batch(self, call: Call) -> Response:
        """GET /batches/{id}."""
        return JsonResponse(self.batch_json(self._find_batch(call)))

    def list_batches(self, call: Call) -> Response:
        """GET /batches, newest first."""
        require_bearer(call, self._options.key)
        limit = query_number(call.query_params, "limit", BATCHES_PAGE, 1, MAX_BATCHES_PAGE)
        after = call.query_params.get("after")
        before = None if after is None else self._find_batch_id(after).number
        batches = self._service.batches(before, limit + 1)
        return JsonResponse(page_json([self.batch_json(batch) for batch in batches], limit))

    def cancel_batch(self, call: Call) -> Response:
        """POST /batches/{id}/cancel."""
        batch = self._service.cancel(self._find_batch(call))
        shown = self.batch_json(batch)
        if shown["status"] != "cancelling":
            raise BadRequest(f"Cannot cancel a batch with status '{shown['status']}'.", status=409)
        return JsonResponse(shown)

    def batch_json(self, batch: Batch) -> Json:
        """A batch as it is now."""
        now = self._service.now()
        if self._service.shows_unknown_status(batch):
            return {**batch_json(batch, "in_progress", now), "status": UNKNOWN_STATUS}
        return with_named_files(self._service, batch, batch_json(batch, batch_status(batch, now), now), FILES)

    def publish(self, batch: Batch, items: Iterator[Item], open_file: OpenFile) -> str:
        """Write output and error file of a batch that ends; a file without a line is not created (§3.5)."""
        details = orjson.loads(batch.details)
        gone_at = self._service.gone_at(batch)
        output, errors = (
            open_file(NewFile(f"{batch.id}_{kind}.jsonl", "batch_output", batch.ended_at, gone_at))
            for kind in ("output", "errors")
        )
        write_row = RowWriter(batch, details["endpoint"], self._options.cached_share, self._service.usage_is_missing)
        for item in items:
            file, row = (output if item.outcome in OUTPUT else errors), write_row(item)
            file.write(2 * row if self._service.line_comes_twice(item) else row)
        output.close()
        errors.close()
        return dump({**details, "output_file_id": output.id, "error_file_id": errors.id, **write_row.figures()})

    def _keep(self, form: UploadForm, spool: IO[bytes]) -> StoredFile:
        name = check_upload(form)
        spool.seek(0)
        now = self._service.now()
        return self._files.add(NewFile(name, "batch", now, now + MONTH), spool)

    def _accept(self, call: Call, body: bytes | None) -> Accepted:
        require_bearer(call, self._options.key)
        refuse_by_rate(self._service)
        if body is None:
            raise BadRequest(f"the body has more than {MAX_CREATE_BYTES} bytes", status=413)
        order = parse_create(body)
        file = self._files.find(order["input_file_id"], self._service.now())
        if file is None or file.purpose != "batch":
            problem = "No such File object" if file is None else "The file's purpose is not 'batch'"
            raise BadRequest(f"{problem}: {order['input_file_id']}", "input_file_id")
        with temporary(self._service.store) as copy:
            copy.writelines(self._files.content(file))
            copy.flush()
            requests = InputFile(copy, order["endpoint"])
            errors = requests.check(self._max_requests)
            with self._queueing:
                return self._queue(requests, order, errors, hash_body(body))

    def _queue(self, requests: InputFile, order: Json, errors: list[Json], body_hash: bytes) -> Accepted:
        errors = errors or self._queue_errors(requests)
        details = {
            "endpoint": order["endpoint"],
            "input_file_id": order["input_file_id"],
            "metadata": order.get("metadata"),
            "tokens": requests.tokens,
            "errors": errors,
        }
        accepted: Requests = () if errors else requests
        new = NewBatch(requests.model, accepted, body_hash, None, dump(details), rejected=bool(errors))
        return self._service.accept(new)

    def _queue_errors(self, requests: InputFile) -> list[Json]:
        """The error of a batch for which the model's open batches leave no room (§3.6)."""
        limit = self._options.max_queued_tokens
        if limit is None or self._service.queued_tokens(requests.model) + requests.tokens <= limit:
            return []
        message = (
            f"Enqueued token limit reached for {requests.model} in organization org-emulator. "
            f"Limit: {limit:,} enqueued tokens. Please try again once some in_progress batches have been completed."
        )
        return [error_json(LineError("token_limit_exceeded", message))]

    def _find_file(self, call: Call) -> StoredFile:
        require_bearer(call, self._options.key)
        self._service.settle_all()
        return self._find_file_id(call.path_params["file_id"])

    def _find_file_id(self, file_id: str) -> StoredFile:
        file = self._files.find(file_id, self._service.now())
        if file is None:
            raise BadRequest(f"No such File object: {file_id}", "id", status=404)
        return file

    def _find_batch(self, call: Call) -> Batch:
        require_bearer(call, self._options.key)
        return self._find_batch_id(call.path_params["batch_id"])

    def _find_batch_id(self, batch_id: str) -> Batch:
        batch = self._service.batch(batch_id)
        if batch is None:
            raise BadRequest(f"No batch found with id '{batch_id}'.", status=404)
        return batch
