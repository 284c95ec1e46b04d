"""The Gemini Developer API's batches and files, after its documentation, its SDK and one recorded batch; where these
are silent, the choices are this project's.

As JSON made of protocol buffers does it, figures that are zero, `done` that is false and lists that are empty are left
out; every name is understood in camelCase and in snake_case. The choices: results come in any order, though input order
is documented, for users saw that; the answers of a list leave inlined responses out; an unsound line of an input file
fails its row (400), one that is no JSON the whole batch; a batch that was cancelled keeps and bills what was done, one
that expired keeps and bills nothing; who cancels a batch that has ended hears `{}` too; what an upload brought can't be
downloaded. A refused request is billed its input, and shows as a candidate without content or as a blocked prompt.
Thinking counts towards `maxOutputTokens`: an answer may be used up by it.
"""

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from hmac import compare_digest
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

from blocks.emulator.dialects.gemini.requests import FileRequests, InlineRequests, dump, member, renamed
from blocks.emulator.service.batch import BILLED, Batch, Item, NewBatch, Outcome, Requests, Status
from blocks.emulator.service.faults import swap_answers, usage_is_huge
from blocks.emulator.service.files import NewFile, OpenFile, StoredFile
from blocks.emulator.service.processing import HUGE, Habits, count_written, queued_seconds, share_done
from blocks.emulator.service.service import Accepted, Service
from blocks.emulator.wire.calls import (
    CallError,
    JsonResponse,
    answer_create,
    hash_body,
    parse_json,
    read_body,
    refuse_by_rate,
)
from blocks.emulator.wire.lines import Json, LineError
from blocks.emulator.wire.resumable import (
    GRANULARITY,
    Begun,
    ResumableUpload,
    ResumableUploads,
    UploadError,
    commands_of,
)
from blocks.emulator.wire.transfers import answer_file, temporary

VERSIONS = ("v1beta", "v1")
INLINE_BYTES = 20 << 20  # of a create
FILE_BYTES = 2 << 30  # of an upload
MAX_OPEN = 100  # batches under way
FILE_SECONDS = 48 * 3600
PAGE_SIZE, PAGE_SIZE_LIMIT = 50, 100
FILE_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
GOOGLE = "type.googleapis.com/google"
METADATA_TYPE = f"{GOOGLE}.ai.generativelanguage.v1main.GenerateContentBatch"
OUTPUT_TYPE = f"{GOOGLE}.ai.generativelanguage.v1main.GenerateContentBatchOutput"
JSONL = "application/jsonl"
STATES = {
    Status.COMPLETED: "SUCCEEDED",
    Status.FAILED: "FAILED",
    Status.EXPIRED: "EXPIRED",
    Status.CANCELLED: "CANCELLED",
}
UNKNOWN_STATE = "PAUSED"
STATUS_WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
ANSWERED = BILLED | {Outcome.REFUSED}  # what has a response, not an error
UNTOUCHED = (Outcome.CANCELLED, Outcome.EXPIRED)  # what has neither
ROW_ERRORS: dict[Outcome, Json] = {
    Outcome.FAILED: {"code": 500, "message": "An internal error has occurred. Please retry."},
    Outcome.TIMED_OUT: {"code": 504, "message": "Deadline expired before operation could complete."},
    Outcome.UNEXPLAINED: {},
}
BATCH_ERRORS = {Status.FAILED: (13, "The batch failed."), Status.EXPIRED: (4, "The batch expired.")}


class StatusError(CallError):
    """An error with details, and with a word of its own where its status has several."""

    def __init__(self, status: int, message: str, *details: Json, word: str = "") -> None:
        super().__init__(status, word or STATUS_WORDS[status], message)
        self.details = details


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
        self._uploads = ResumableUploads(service.store, service.options.max_bytes or FILE_BYTES)
        self._queueing = Lock()

    def routes(self) -> list[BaseRoute]:
        return [route for version in VERSIONS for route in self._routes(version)]

    def headers(self) -> dict[str, str]:
        return {}

    def error_body(self, error: CallError) -> object:
        known = isinstance(error, StatusError)
        word = error.code if known else STATUS_WORDS.get(error.status, "INTERNAL")
        shown: Json = {"code": error.status, "message": error.message, "status": word}
        if isinstance(error, StatusError) and error.details:
            shown["details"] = list(error.details)
        return {"error": shown}

    async def create_batch(self, call: Call) -> Response:
        body = await read_body(call, self._inline_bytes)
        accepted = await run_in_threadpool(self._accept, call, body)
        shown = self._operation(accepted.batch, "PENDING")
        return await answer_create(self._service, accepted, JsonResponse(shown))

    def show_batch(self, call: Call) -> Response:
        batch = self._find_batch(call)
        state = self._state(batch)
        return JsonResponse(self._operation(batch, state, self._inlined(batch, state)))

    def list_batches(self, call: Call) -> Response:
        self._require_key(call)
        size, before = page_size(call.query_params), page_token(call.query_params)
        batches = self._service.batches(before, size + 1)
        shown = [self._operation(batch, self._state(batch)) for batch in batches[:size]]
        return JsonResponse(page_json("operations", shown, [batch.number for batch in batches], size))

    def cancel_batch(self, call: Call) -> Response:
        self._service.cancel(self._find_batch(call))
        return JsonResponse({})

    def delete_batch(self, call: Call) -> Response:
        self._service.delete(self._find_batch(call))
        return JsonResponse({})

    async def upload_file(self, call: Call) -> Response:
        """The first call of an upload, or one of those that bring its content: these carry no key."""
        upload_id = call.query_params.get("upload_id")
        if upload_id is None:
            return await self._begin_upload(call)
        upload = self._uploads.find(upload_id)
        if upload is None:
            await read_body(call, most=0)
            raise StatusError(404, "There is no such upload.")
        return await self._go_on_uploading(call, upload_id, upload)

    def list_files(self, call: Call) -> Response:
        self._require_key(call)
        self._service.settle_all()  # ended batches leave files behind
        size, before = page_size(call.query_params), page_token(call.query_params)
        files = self._files.newest(None, before, size + 1, self._service.now())
        shown = [file_json(file, call) for file in files[:size]]
        return JsonResponse(page_json("files", shown, [file.number for file in files], size))

    def show_file(self, call: Call) -> Response:
        return JsonResponse(file_json(self._find_file(call), call))

    def delete_file(self, call: Call) -> Response:
        self._files.delete(self._find_file(call))
        return JsonResponse({})

    def download_file(self, call: Call) -> Response:
        file = self._find_file(call)
        if file.purpose != "GENERATED":
            raise StatusError(400, "Only generated files can be downloaded.", word="FAILED_PRECONDITION")
        if call.query_params.get("alt") != "media":
            raise StatusError(400, "A download needs alt=media.")
        return answer_file(self._service, file)

    def publish(self, batch: Batch, items: Iterator[Item], open_file: OpenFile) -> str:
        """Counts what became of a batch, and writes its file if its requests came in one."""
        details = orjson.loads(batch.details)
        failed = untouched = 0
        file = open_file(self._result_file(batch, details))
        for item in swap_answers(self._options, items):
            failed += item.outcome not in ANSWERED and item.outcome not in UNTOUCHED
            untouched += item.outcome in UNTOUCHED
            if details["file"] and item.outcome not in UNTOUCHED:
                line = orjson.dumps(self._row(batch, item, details), option=orjson.OPT_APPEND_NEWLINE)
                file.write(line + line if self._service.line_comes_twice(item) else line)
        # One that is empty says that all rows are absent; none says that there is nothing to read any more.
        file.close(even_empty=details["file"] is not None and batch.status is Status.COMPLETED)
        ended = {"output_file": file.id, "failed": failed, "untouched": untouched}
        return dump({**details, **ended})

    def _routes(self, version: str) -> list[BaseRoute]:
        batches, files = f"/{version}/batches", f"/{version}/files"
        return [
            Route(f"/{version}/models/{{model}}:batchGenerateContent", self.create_batch, methods=["POST"]),
            Route(batches, self.list_batches, methods=["GET"]),
            Route(f"{batches}/{{batch_id}}:cancel", self.cancel_batch, methods=["POST"]),
            Route(f"{batches}/{{batch_id}}", self.show_batch, methods=["GET"]),
            Route(f"{batches}/{{batch_id}}", self.delete_batch, methods=["DELETE"]),
            Route(f"/upload/{version}/files", self.upload_file, methods=["POST"]),
            Route(files, self.list_files, methods=["GET"]),
            Route(f"{files}/{{file_id}}:download", self.download_file, methods=["GET"]),
            Route(f"/download{files}/{{file_id}}:download", self.download_file, methods=["GET"]),
            Route(f"{files}/{{file_id}}", self.show_file, methods=["GET"]),
            Route(f"{files}/{{file_id}}", self.delete_file, methods=["DELETE"]),
        ]

    def _require_key(self, call: Call) -> None:
        given = call.headers.get("x-goog-api-key") or call.query_params.get("key")
        if not given:
            raise StatusError(403, "Method doesn't allow unregistered callers. Please use an API Key.")
        if self._options.key is not None and not compare_digest(given.encode(), self._options.key.encode()):
            reason = {"@type": f"{GOOGLE}.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
            raise StatusError(400, "API key not valid. Please pass a valid API key.", reason)

    def _accept(self, call: Call, body: bytes | None) -> Accepted:
        self._require_key(call)
        self._refuse_by_rate()
        if body is None:
            raise StatusError(400, f"Request payload size exceeds the limit: {self._inline_bytes} bytes.")
        wanted = parse_create(parse_json(body))
        model = call.path_params["model"]
        if isinstance(wanted["source"], list):
            return self._queue(model, wanted, read_inlined(model, wanted["source"]), [], hash_body(body))
        file = self._files.find(wanted["source"].removeprefix("files/"), self._service.now())
        if file is None:
            raise StatusError(404, f"There is no file {wanted['source']}.")
        with temporary(self._service.store) as copy:
            copy.writelines(self._files.content(file))
            copy.flush()
            requests = FileRequests(model, copy)
            return self._queue(model, wanted, requests, requests.check(), hash_body(body))

    def _queue(
        self,
        model: str,
        wanted: Json,
        requests: InlineRequests | FileRequests,
        errors: list[str],
        body_hash: bytes,
    ) -> Accepted:
        asked: Requests = () if errors else requests
        source = None if isinstance(wanted["source"], list) else wanted["source"]
        details = {"display_name": wanted["displayName"], "file": source, "tokens": requests.tokens, "errors": errors}
        written = dump({**details, "priority": wanted["priority"]})
        batch_id = uuid4().hex
        with self._queueing:
            self._refuse_above_limits(model, len(asked), requests.tokens)
            new = NewBatch(model, asked, body_hash, None, written, rejected=bool(errors), id=batch_id)
            return self._service.accept(new)

    def _refuse_by_rate(self) -> None:
        """How long to wait stands in the body, whatever header is switched, unless it is none."""
        try:
            refuse_by_rate(self._service)
        except CallError as error:
            if error.code == "insufficient_quota":
                violation = {"quotaMetric": "generativelanguage.googleapis.com/batch", "quotaId": "SpendCap"}
                failure = {"@type": f"{GOOGLE}.rpc.QuotaFailure", "violations": [violation]}
                message = "You exceeded your current quota, please check your plan and billing details."
                raise StatusError(429, message, failure) from None
            delay = {"@type": f"{GOOGLE}.rpc.RetryInfo", "retryDelay": f"{self._options.retry_after:g}s"}
            raise StatusError(429, "Resource has been exhausted.", *([delay] if error.headers else [])) from None

    def _refuse_above_limits(self, model: str, count: int, tokens: int) -> None:
        self._service.settle_all()
        most = self._options.max_queued_tokens
        if self._options.max_requests is not None and count > self._options.max_requests:
            raise StatusError(400, f"A batch takes at most {self._options.max_requests} requests.")
        if len(self._service.store.open_batches(inf)) >= MAX_OPEN:
            raise StatusError(429, f"At most {MAX_OPEN} batches may be under way.")
        if most is not None and self._service.queued_tokens(model) + tokens > most:
            raise StatusError(429, f"The batches of {model} may hold at most {most} enqueued tokens.")

    async def _begin_upload(self, call: Call) -> Response:
        body = await read_body(call, 1 << 16)
        self._require_key(call)
        protocol = call.headers.get("x-goog-upload-protocol")
        if protocol != "resumable" or commands_of(call.headers) != {"start"} or body is None:
            raise StatusError(400, "Uploads are resumable ones here, and begin with the command start.")
        try:
            upload_id = self._uploads.begin(self._read_begin(call, body))
        except UploadError as error:
            raise StatusError(400, str(error)) from None
        url = f"{call.url.replace(query='')}?upload_id={upload_id}&upload_protocol=resumable"
        headers = {
            "x-goog-upload-url": url,
            "x-goog-upload-control-url": url,
            "x-goog-upload-chunk-granularity": str(GRANULARITY),
        }
        return JsonResponse({}, headers={**upload_status("active"), **headers})

    def _read_begin(self, call: Call, body: bytes) -> Begun:
        file = member(parse_json(body) if body else {}, "file")
        file_id = (file.get("name") or "").removeprefix("files/") or None
        if file_id is not None and not FILE_ID.fullmatch(file_id):
            raise StatusError(400, f"files/{file_id} is no name for a file.")
        if file_id is not None and self._files.find(file_id, self._service.now()):
            raise StatusError(409, f"files/{file_id} already exists.")
        size = call.headers.get("x-goog-upload-header-content-length", "")
        kind = call.headers.get("x-goog-upload-header-content-type") or file.get("mimeType") or JSONL
        return Begun(file_id, file.get("displayName"), kind, int(size) if size.isascii() and size.isdigit() else None)

    async def _go_on_uploading(self, call: Call, upload_id: str, upload: ResumableUpload) -> Response:
        commands = commands_of(call.headers)
        if commands in ({"query"}, {"cancel"}):
            await read_body(call, most=0)
            if commands == {"cancel"}:
                self._uploads.forget(upload_id)
                return JsonResponse({}, headers=upload_status("cancelled"))
            received = {"x-goog-upload-size-received": str(upload.received)}
            return JsonResponse({}, headers={**upload_status("active"), **received})
        try:
            await upload.take(call, commands)
        except UploadError as error:
            raise StatusError(400, str(error)) from None
        if "finalize" not in commands:
            return JsonResponse({}, headers=upload_status("active"))
        file = await run_in_threadpool(self._keep, upload)
        self._uploads.forget(upload_id)
        return JsonResponse({"file": file_json(file, call)}, headers=upload_status("final"))

    def _keep(self, upload: ResumableUpload) -> StoredFile:
        upload.spool.seek(0)
        begun, now = upload.begun, self._service.now()
        hashed = base64.b64encode(upload.sha256.encode()).decode()
        details = dump({"mimeType": begun.mime_type, "sha256Hash": hashed})
        file_id = begun.id or uuid4().hex[:12]
        new = NewFile(begun.display_name or "", "UPLOADED", now, now + FILE_SECONDS, details, file_id)
        return self._files.add(new, upload.spool)

    def _result_file(self, batch: Batch, details: Json) -> NewFile:
        expires_at = min(batch.ended_at + FILE_SECONDS, self._service.gone_at(batch) or inf)
        kind = dump({"mimeType": JSONL})
        return NewFile(
            details["display_name"] or "", "GENERATED", batch.ended_at, expires_at, kind, f"batch-{batch.id}"
        )

    def _find_file(self, call: Call) -> StoredFile:
        self._require_key(call)
        self._service.settle_all()
        file = self._files.find(call.path_params["file_id"], self._service.now())
        if file is None:
            raise StatusError(404, f"There is no file files/{call.path_params['file_id']}.")
        return file

    def _find_batch(self, call: Call) -> Batch:
        self._require_key(call)
        batch = self._service.batch(call.path_params["batch_id"])
        if batch is None:
            raise StatusError(404, f"There is no batch batches/{call.path_params['batch_id']}.")
        return batch

    def _state(self, batch: Batch) -> str:
        return UNKNOWN_STATE if self._service.shows_unknown_status(batch) else batch_state(batch, self._service.now())

    def _operation(self, batch: Batch, state: str, output: Json | None = None) -> Json:
        """A batch as it is now; `output` where it is not a file."""
        details = orjson.loads(batch.details)
        over = state in STATES.values()
        if over and details.get("output_file"):
            output = {"responsesFile": f"files/{details['output_file']}"}
        shares = share_done(batch.schedule, self._service.now()) if state == "RUNNING" else 0.0
        metadata = {
            "@type": METADATA_TYPE,
            "model": f"models/{batch.model}",
            "displayName": details["display_name"],
            "inputConfig": {"fileName": details["file"]} if details["file"] else None,
            "output": output,
            **stamps_json(batch, self._service.now(), over=over),
            "batchStats": stats_json(batch, details, shares),
            "state": f"{self._options.state_prefix}_{state}",
            "priority": details["priority"],
            "name": f"batches/{batch.id}",
        }
        shown: Json = {"name": f"batches/{batch.id}", "metadata": without_empty(metadata)}
        if over:
            shown["done"] = True
            if batch.status in BATCH_ERRORS:
                shown["error"] = error_json(batch, details)
            else:
                shown["response"] = {"@type": OUTPUT_TYPE, **(output or {})}
        return shown

    def _inlined(self, batch: Batch, state: str) -> Json | None:
        """The results of a batch whose requests came without a file, once it is over."""
        details = orjson.loads(batch.details)
        kept = batch.status in (Status.COMPLETED, Status.CANCELLED) and not self._service.results_are_gone(batch)
        if details["file"] or state not in STATES.values() or not kept:
            return None
        items = swap_answers(self._options, iter(self._service.items(batch, 0, batch.total)))
        rows = [self._row(batch, item, details) for item in items if item.outcome not in UNTOUCHED]
        return {"inlinedResponses": {"inlinedResponses": orjson.Fragment(orjson.dumps(rows))}}

    def _row(self, batch: Batch, item: Item, details: Json) -> Json:
        row: Json = {}
        if details["file"]:
            row = {} if item.note == "null" else {"key": item.custom_id}
        elif item.note != "null":
            row = {"metadata": orjson.Fragment(item.note) if item.note else {"key": item.custom_id}}
        if item.outcome in ANSWERED:
            row["response"] = self._response(batch, item)
        else:
            row["error"] = ROW_ERRORS.get(item.outcome, {"code": 400, "message": item.rejection})
        return row

    def _response(self, batch: Batch, item: Item) -> Json:
        response: Json = (
            blocked_json(item) if item.outcome is Outcome.REFUSED else {"candidates": [candidate_json(item)]}
        )
        if not self._service.usage_is_missing(item):
            factor = HUGE if usage_is_huge(self._options, item.prompt_hash, item.attempt) else 1
            response["usageMetadata"] = usage_json(item, factor, self._options.cached_share)
        return {**response, "modelVersion": batch.model, "responseId": f"{item.prompt_hash & (1 << 64) - 1:016x}"}


def read_inlined(model: str, items: list[Any]) -> InlineRequests:
    try:
        return InlineRequests(model, items)
    except LineError as error:
        raise StatusError(400, str(error)) from None


def parse_create(content: Any) -> Json:
    """Display name, priority and source: a file's name or a list of requests."""
    if not isinstance(content, dict):
        raise StatusError(400, "The body must be a JSON object.")
    try:
        batch = member(renamed(content, {"batch"}), "batch")
        batch = renamed(batch, {"displayName", "inputConfig", "priority", "webhookConfig", "model", "name"})
        config = renamed(member(batch, "inputConfig"), {"requests", "fileName"})
    except LineError as error:
        raise StatusError(400, str(error)) from None
    source = config.get("fileName") or member(config, "requests").get("requests")
    if not isinstance(source, str | list) or not source or len(config) > 1:
        raise StatusError(400, "batch.input_config must have either requests or a file_name.")
    name = batch.get("displayName")
    if not isinstance(name, str | None):
        raise StatusError(400, "batch.display_name must be a string.")
    return {"displayName": name, "priority": batch.get("priority"), "source": source}


def page_size(query: QueryParams) -> int:
    """As elsewhere at Google, too much is no error."""
    text = query.get("pageSize", "0")
    if not (text.isascii() and text.isdigit()):
        raise StatusError(400, f"pageSize must be a whole number, not {text!r}.")
    return min(int(text[:9]) or PAGE_SIZE, PAGE_SIZE_LIMIT)


def page_token(query: QueryParams) -> int | None:
    """The number before which a page begins."""
    text = query.get("pageToken")
    if not text:
        return None
    try:
        return int(base64.urlsafe_b64decode(text))
    except ValueError:
        raise StatusError(400, "pageToken is not valid.") from None


def page_json(name: str, shown: list[Json], numbers: list[int], size: int) -> Json:
    """A page of a list of which one more was asked for than fits."""
    page: Json = {name: shown} if shown else {}
    if len(numbers) > size:
        page["nextPageToken"] = base64.urlsafe_b64encode(b"%d" % numbers[size - 1]).decode()
    return page


def upload_status(status: str) -> dict[str, str]:
    return {"x-goog-upload-status": status}


def file_json(file: StoredFile, call: Call) -> Json:
    details = orjson.loads(file.details)
    uri = f"{str(call.base_url).rstrip('/')}/v1beta/files/{file.id}"
    shown = {
        "name": f"files/{file.id}",
        "displayName": file.name,
        **details,
        "sizeBytes": str(file.bytes),
        "createTime": time_json(file.created_at),
        "updateTime": time_json(file.created_at),
        "expirationTime": None if file.expires_at is None else time_json(file.expires_at),
        "uri": uri,
        "downloadUri": f"{uri}:download?alt=media" if file.purpose == "GENERATED" else None,
        "state": "ACTIVE",
        "source": file.purpose,
    }
    return without_empty(shown)


def without_empty(values: Json) -> Json:
    return {name: value for name, value in values.items() if value not in (None, "", {})}


def time_json(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def batch_state(batch: Batch, now: float) -> str:
    """Without its prefix. A batch that was cancelled goes on for as long as the emulator's queue takes."""
    short = queued_seconds(batch.schedule.duration)
    if batch.status is Status.CANCELLED and now < batch.ended_at + short:
        return "RUNNING"
    if batch.status is not None:
        return STATES[batch.status]
    return "PENDING" if now < batch.schedule.created_at + short else "RUNNING"


def stamps_json(batch: Batch, now: float, *, over: bool) -> Json:
    return {
        "createTime": time_json(batch.schedule.created_at),
        "endTime": time_json(batch.ended_at) if over else None,
        "updateTime": time_json(batch.ended_at if over else now),
    }


def stats_json(batch: Batch, details: Json, share: float) -> Json:
    """In text, and without what is zero."""
    failed = details.get("failed", 0)
    if batch.status is Status.FAILED or (batch.status is None and not share):
        successful = 0
    elif batch.status is not None and "untouched" in details:
        successful = batch.total - failed - details["untouched"]
    else:
        successful = int(batch.total * share)
    counts = {
        "requestCount": batch.total,
        "successfulRequestCount": successful,
        "failedRequestCount": failed,
        "pendingRequestCount": batch.total - successful - failed,
    }
    return {name: str(count) for name, count in counts.items() if count}


def error_json(batch: Batch, details: Json) -> Json:
    code, message = BATCH_ERRORS[batch.status] if batch.status else (2, "")
    if details["errors"]:
        return {"code": 3, "message": details["errors"][0]}
    return {"code": code, "message": message}


def candidate_json(item: Item) -> Json:
    content: Json = {"parts": [{"text": item.text}], "role": "model"} if item.text else {"role": "model"}
    reason = "MAX_TOKENS" if item.outcome is Outcome.TRUNCATED else "STOP"
    return {"content": content, "finishReason": reason, "index": 0}


def blocked_json(item: Item) -> Json:
    """One of the shapes that a refusal has, always the same for a prompt."""
    shape = item.prompt_hash % 3
    if shape == 0:
        return {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
    return {"candidates": [{"finishReason": "SAFETY" if shape == 1 else "PROHIBITED_CONTENT", "index": 0}]}


def usage_json(item: Item, factor: int, cached_share: float) -> Json:
    """Thinking is all output that no text is left of."""
    written = factor * count_written(item.text)
    usage = {
        "promptTokenCount": item.input_tokens,
        "cachedContentTokenCount": int(item.input_tokens * cached_share),
        "candidatesTokenCount": written,
        "thoughtsTokenCount": item.output_tokens - written,
        "totalTokenCount": item.input_tokens + item.output_tokens,
    }
    shown: Json = {name: count for name, count in usage.items() if count}
    return {**shown, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": item.input_tokens}]}
