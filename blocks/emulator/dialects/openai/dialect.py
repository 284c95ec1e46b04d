"""OpenAI's Files and Batches, after its published OpenAPI description; where that is silent, after reports of users.

Creating a batch reads its file at once, but what is wrong with it is told as the real service tells it: the batch is
accepted, is `validating` for a while, and then `failed`. A body without messages or input fails that way as well, where
the real service fails only the row. The choices of this project, where nothing is known: `failed` counts the rows of
the error file, and rows that are absent count as `completed`; cancelling a batch that has ended is a 409; the list of
files holds those of a cancelled batch as soon as it is `cancelling`. A limit on output tokens that is no whole number
above 0 is passed over.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from threading import Lock
from typing import IO, Any, NamedTuple
from uuid import uuid4

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as Call
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from blocks.emulator.service.batch import BILLED, Batch, Item, NewBatch, Outcome, Request, Requests, Status
from blocks.emulator.service.faults import UNKNOWN_STATUS
from blocks.emulator.service.files import NewFile, OpenFile, StoredFile
from blocks.emulator.service.processing import Habits, queued_seconds, share_done
from blocks.emulator.service.service import Accepted, Service
from blocks.emulator.wire.calls import (
    CallError,
    JsonResponse,
    answer_create,
    hash_body,
    parse_json,
    query_number,
    read_body,
    refuse_by_rate,
    require_bearer,
)
from blocks.emulator.wire.lines import (
    Json,
    LineError,
    Lines,
    dump_schema,
    member,
    parse_line,
    read_chat,
    read_messages,
    required,
)
from blocks.emulator.wire.transfers import UploadForm, answer_file, temporary

MAX_REQUESTS = 50_000
MAX_BYTES = 200 << 20  # of one file
CREATE_BYTES = 1 << 20  # of the body that creates a batch
FILE_LIST_LIMIT, LIST_LIMIT, LIST_DEFAULT = 10_000, 100, 20
DAY, MONTH = 86_400, 30 * 86_400
EXPIRY_SECONDS = range(3600, MONTH + 1)
METADATA_PAIRS, METADATA_KEY, METADATA_VALUE = 16, 64, 512
ERRORS_SHOWN = 100  # of a file that does not pass
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
UPLOAD_FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]", "file")
CREATE_FIELDS = ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after")
OTHER_ENDPOINTS = ("embeddings", "completions", "moderations", "images/generations", "images/edits", "videos")
TOKEN_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")  # the last is that of responses
MOST_TOKENS = 1 << 40  # of an answer; whatever is allowed beyond that
SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")
SNAPSHOT_DATE = "-2025-04-14"  # answers name the dated version of a model
OUTPUT = BILLED | {Outcome.REFUSED}  # what is in the output file, not in the error file
ERROR_NAMES = {  # type and code of errors that befall any call
    "invalid_key": ("invalid_request_error", "invalid_api_key"),
    "rate_limited": ("requests", "rate_limit_exceeded"),
    "insufficient_quota": ("insufficient_quota", "insufficient_quota"),
    "unavailable": ("server_error", "service_unavailable"),
    "internal_error": ("server_error", None),
}
ROW_ERRORS = {
    Outcome.CANCELLED: ("batch_cancelled", "This request was not executed before the batch was cancelled."),
    Outcome.EXPIRED: ("batch_expired", "This request could not be executed before the completion window expired."),
    Outcome.TIMED_OUT: ("request_timeout", "This request could not be completed before the model's time limit."),
}
SERVER_ERROR = {
    "message": "The server had an error while processing your request. Sorry about that!",
    "type": "server_error",
    "param": None,
    "code": None,
}


class BadRequest(CallError):
    """A 400 that names the parameter."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(status, code or "", message)
        self.param = param


class Dialect:
    """Routes below `/v1`."""

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
        return {"x-request-id": f"req_{uuid4().hex}", "openai-version": "2020-10-01", "openai-processing-ms": "1"}

    def error_body(self, error: CallError) -> object:
        if isinstance(error, BadRequest):
            kind, code, param = "invalid_request_error", error.code or None, error.param
        else:
            kind, code = ERROR_NAMES.get(error.code, ("invalid_request_error", None))
            param = None
        return {"error": {"message": error.message, "type": kind, "param": param, "code": code}}

    async def upload_file(self, call: Call) -> Response:
        with temporary(self._service.store) as spool:
            form = UploadForm(self._max_bytes, spool)
            problem = await form.read(call)
            require_bearer(call, self._options.key)
            if problem is not None:
                raise BadRequest(str(problem))
            return JsonResponse(file_json(await run_in_threadpool(self._keep, form, spool)))

    def list_files(self, call: Call) -> Response:
        require_bearer(call, self._options.key)
        query = call.query_params
        limit = query_number(query, "limit", FILE_LIST_LIMIT, 1, FILE_LIST_LIMIT)
        if query.get("order", "desc") not in ("asc", "desc"):
            raise BadRequest("order must be 'asc' or 'desc'", "order")
        after = self._find_file_id(query["after"]).number if "after" in query else None
        self._service.settle_all()  # ended batches leave files behind
        listed = self._files.oldest if query.get("order") == "asc" else self._files.newest
        files = listed(query.get("purpose"), after, limit + 1, self._service.now())
        return JsonResponse(page_json([file_json(file) for file in files], limit))

    def show_file(self, call: Call) -> Response:
        return JsonResponse(file_json(self._find_file(call)))

    def delete_file(self, call: Call) -> Response:
        file = self._find_file(call)
        self._files.delete(file)
        return JsonResponse({"object": "file", "id": file.id, "deleted": True})

    def download_file(self, call: Call) -> Response:
        file = self._find_file(call)
        return answer_file(self._service, file)

    async def create_batch(self, call: Call) -> Response:
        body = await read_body(call, CREATE_BYTES)
        accepted = await run_in_threadpool(self._accept, call, body)
        answer = JsonResponse(batch_json(accepted.batch, "validating", self._service.now()))
        return await answer_create(self._service, accepted, answer)

    def show_batch(self, call: Call) -> Response:
        return JsonResponse(self.batch_json(self._find_batch(call)))

    def list_batches(self, call: Call) -> Response:
        require_bearer(call, self._options.key)
        limit = query_number(call.query_params, "limit", LIST_DEFAULT, 1, LIST_LIMIT)
        after = call.query_params.get("after")
        before = None if after is None else self._find_batch_id(after).number
        batches = self._service.batches(before, limit + 1)
        return JsonResponse(page_json([self.batch_json(batch) for batch in batches], limit))

    def cancel_batch(self, call: Call) -> Response:
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
        return batch_json(batch, batch_status(batch, now), now)

    def publish(self, batch: Batch, items: Iterator[Item], open_file: OpenFile) -> str:
        """Writes output and error file of a batch that ends; a file without a line does not come to be."""
        details = orjson.loads(batch.details)
        new = new_result_file(batch, details["output_seconds"], self._service.gone_at(batch))
        output, errors = open_file(new("output")), open_file(new("errors"))
        write_row = RowWriter(batch, details["endpoint"], self._options.cached_share, self._service.usage_is_missing)
        for item in items:
            file, row = (output if item.outcome in OUTPUT else errors), write_row(item)
            file.write(2 * row if self._service.line_comes_twice(item) else row)
        output.close()
        errors.close()
        ended = {"output_file_id": output.id, "error_file_id": errors.id, **write_row.figures()}
        return orjson.dumps({**details, **ended}).decode()

    def _keep(self, form: UploadForm, spool: IO[bytes]) -> StoredFile:
        """Refuses what is no sound upload."""
        seconds = check_upload(form)
        purpose = form.text("purpose")
        spool.seek(0)
        now = self._service.now()
        if seconds is None and purpose == "batch":
            seconds = MONTH
        expires_at = None if seconds is None else now + seconds
        return self._files.add(NewFile(form.filename or "", purpose, now, expires_at), spool)

    def _accept(self, call: Call, body: bytes | None) -> Accepted:
        require_bearer(call, self._options.key)
        refuse_by_rate(self._service)
        if body is None:
            raise BadRequest(f"the body has more than {CREATE_BYTES} bytes", status=413)
        wanted = parse_create(body)
        file = self._files.find(wanted["input_file_id"], self._service.now())
        if file is None or file.purpose != "batch":
            problem = "No such File object" if file is None else "The file's purpose is not 'batch'"
            raise BadRequest(f"{problem}: {wanted['input_file_id']}", "input_file_id")
        with temporary(self._service.store) as copy:
            copy.writelines(self._files.content(file))
            copy.flush()
            requests = InputFile(copy, wanted["endpoint"])
            errors = requests.check(self._max_requests)
            with self._queueing:
                return self._queue(requests, wanted, errors, hash_body(body))

    def _queue(self, requests: "InputFile", wanted: Json, errors: list[Json], body_hash: bytes) -> Accepted:
        errors = errors or self._queue_errors(requests)
        after = wanted.get("output_expires_after")
        details = {
            "endpoint": wanted["endpoint"],
            "input_file_id": wanted["input_file_id"],
            "metadata": wanted.get("metadata"),
            "output_seconds": after["seconds"] if after else None,
            "tokens": requests.tokens,
            "errors": errors,
        }
        asked: Requests = () if errors else requests
        written = orjson.dumps(details).decode()
        return self._service.accept(NewBatch(requests.model, asked, body_hash, None, written, rejected=bool(errors)))

    def _queue_errors(self, requests: "InputFile") -> list[Json]:
        """What there is to say if the model's open batches hold too many tokens already."""
        most = self._options.max_queued_tokens
        if most is None:
            return []
        if self._service.queued_tokens(requests.model) + requests.tokens <= most:
            return []
        message = (
            f"Enqueued token limit reached for {requests.model} in organization org-emulator. "
            f"Limit: {most:,} enqueued tokens. Please try again once some in_progress batches have been completed."
        )
        return [shown(LineError("token_limit_exceeded", message))]

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


def check_upload(form: UploadForm) -> int | None:
    """BadRequest says what is wrong. Returns the seconds after which the file is to expire."""
    purpose = form.text("purpose")
    for name in form.fields:
        if name not in UPLOAD_FIELDS:
            raise BadRequest(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    for name in ("purpose", "file"):
        if name not in form.fields:
            raise BadRequest(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    if purpose not in PURPOSES:
        raise BadRequest(f"'{purpose}' is not one of {list(PURPOSES)}", "purpose")
    if form.too_long:
        raise BadRequest(f"the file is too long: {form.size} bytes", "file", status=413)
    if not form.filename:
        raise BadRequest("the file has no name", "file")
    if purpose == "batch" and not form.filename.endswith(".jsonl"):
        raise BadRequest("Invalid file format for Batch API. Must be .jsonl")
    return read_expiry(form)


def read_expiry(form: UploadForm) -> int | None:
    anchor, seconds = form.text("expires_after[anchor]"), form.text("expires_after[seconds]")
    if not anchor and not seconds:
        return None
    number = int(seconds) if seconds.isascii() and seconds.isdigit() and len(seconds) < 16 else None
    return check_expiry({"anchor": anchor, "seconds": number}, "expires_after")


def shown(error: LineError, line: int | None = None) -> Json:
    return {"code": error.code, "message": str(error), "param": error.param, "line": line}


class InputFile:
    """The requests of an uploaded file."""

    def __init__(self, content: IO[bytes], endpoint: str) -> None:
        self._lines = Lines(content)
        self._endpoint = endpoint
        self.model = ""

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int, /) -> Request:
        line = orjson.loads(self._lines[index])
        prompt, schema = FORMS[self._endpoint].read(line["body"])
        return Request(line["custom_id"], prompt, self.model, schema, token_limit(line["body"]))

    @property
    def tokens(self) -> int:
        return self._lines.tokens

    def check(self, most: int) -> list[Json]:
        """Reads the file once. What is wrong with it, as the batch shows it; nothing if it may be worked on."""
        errors: list[Json] = []
        known: set[str] = set()
        for number, line in enumerate(self._lines.read(), 1):
            if number > most:
                message = f"The batch input file contains too many requests. The maximum is {most} requests."
                return [shown(LineError("too_many_tasks", message))]
            try:
                self._check_line(line, known)
            except LineError as error:
                errors.append(shown(error, number))
                if len(errors) == ERRORS_SHOWN:
                    break
        return errors if len(self) else [shown(LineError("empty_file", "The input file is empty."))]

    def _check_line(self, text: bytes, known: set[str]) -> None:
        line = parse_line(text)
        custom_id = required(line, "custom_id", str)
        if custom_id in known:
            message = f"The custom_id '{custom_id}' for this request is a duplicate of another request."
            raise LineError("duplicate_custom_id", message, "custom_id")
        known.add(custom_id)
        if required(line, "method", str) != "POST":
            raise LineError("invalid_method", "The method must be POST.", "method")
        if required(line, "url", str) != self._endpoint:
            raise LineError("url_mismatch", "The URL of this request is not the endpoint of the batch.", "url")
        body = required(line, "body", dict)
        model = required(body, "model", str, "body.")
        self.model = self.model or model
        if model != self.model:
            message = f"The model '{model}' does not match the rest of the batch ('{self.model}')."
            raise LineError("mismatched_model", message, "body.model")
        if body.get("stream"):
            raise LineError("invalid_request", "A batch can not stream.", "body.stream")
        FORMS[self._endpoint].read(body)


def token_limit(body: Json) -> int | None:
    """How many tokens an answer may have."""
    limits = [body[name] for name in TOKEN_LIMITS if type(body.get(name)) is int and 0 < body[name] < MOST_TOKENS]
    return min(limits, default=None)


def read_response(body: Json) -> tuple[str, str | None]:
    """Prompt and schema of a body for `/v1/responses`."""
    asked = body.get("input")
    prompt = asked if isinstance(asked, str) else read_messages(required(body, "input", list, "body."), "body.input")
    if instructions := body.get("instructions"):
        prompt = f"{instructions}\n\n{prompt}"
    form = member(member(body, "text"), "format")
    return prompt, dump_schema(form.get("schema") if form.get("type") == "json_schema" else None)


def chat_body(item: Item, common: Json, name: str, cached: int) -> Json:
    """An answer of `/v1/chat/completions`."""
    refused = item.outcome is Outcome.REFUSED
    message: Json = {
        "role": "assistant",
        "content": None if refused else item.text,
        "refusal": item.text if refused else None,
        "annotations": [],
    }
    reason = "length" if item.outcome is Outcome.TRUNCATED else "stop"
    return {
        "id": f"chatcmpl-{name}",
        "object": "chat.completion",
        "created": common["at"],
        "model": common["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": {
            "prompt_tokens": item.input_tokens,
            "completion_tokens": item.output_tokens,
            "total_tokens": item.input_tokens + item.output_tokens,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": None,
    }


def response_body(item: Item, common: Json, name: str, cached: int) -> Json:
    """An answer of `/v1/responses`."""
    status = "incomplete" if item.outcome is Outcome.TRUNCATED else "completed"
    content: Json = {"type": "output_text", "annotations": [], "logprobs": [], "text": item.text}
    if item.outcome is Outcome.REFUSED:
        content = {"type": "refusal", "refusal": item.text}
    message = {"id": f"msg_{name}", "type": "message", "status": status, "role": "assistant", "content": [content]}
    usage = usage_json(item.input_tokens, item.output_tokens, cached)
    usage["input_tokens_details"]["cache_write_tokens"] = 0
    return {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": common["at"],
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": None,
        "metadata": {},
        "model": common["model"],
        "output": [message],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage,
    }


class BodyForm(NamedTuple):
    """How the bodies of one endpoint are read and written."""

    read: Callable[[Json], tuple[str, str | None]]
    write: Callable[[Item, Json, str, int], Json]


FORMS = {
    "/v1/chat/completions": BodyForm(read_chat, chat_body),
    "/v1/responses": BodyForm(read_response, response_body),
}


class RowWriter:
    """Writes the lines of a batch's output and error file, and keeps count."""

    def __init__(self, batch: Batch, endpoint: str, cached_share: float, lacks_usage: Callable[[Item], bool]) -> None:
        self._number = batch.number
        self._total = batch.total
        self._common = {"at": int(batch.ended_at), "model": snapshot(batch.model)}
        self._write_body = FORMS[endpoint].write
        self._cached_share = cached_share
        self._lacks_usage = lacks_usage
        self._outcomes: Counter[Outcome] = Counter()
        self._rows = 0
        self._cached = 0

    def __call__(self, item: Item) -> bytes:
        self._outcomes[item.outcome] += 1
        self._rows += 1
        name = f"{self._number:08x}{self._rows:016x}"
        row = {"id": f"batch_req_{name}", "custom_id": item.custom_id, **self._result(item, name)}
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)

    def figures(self) -> Json:
        unexplained = self._outcomes[Outcome.UNEXPLAINED]
        failed = sum(count for outcome, count in self._outcomes.items() if outcome not in OUTPUT) - unexplained
        return {"failed": failed, "unexplained": unexplained, "cached_tokens": self._cached}

    def _result(self, item: Item, name: str) -> Json:
        if item.outcome in OUTPUT:
            cached = int(item.input_tokens * self._cached_share)
            self._cached += cached
            body = self._write_body(item, self._common, name, cached)
            if self._lacks_usage(item):
                del body["usage"]
            return answered(200, name, body)
        if item.outcome is Outcome.UNEXPLAINED:
            return {"response": {"status_code": 0, "request_id": "", "body": {}}, "error": None}
        if item.outcome in ROW_ERRORS:
            code, message = ROW_ERRORS[item.outcome]
            return {"response": None, "error": {"code": code, "message": message}}
        return answered(500, name, {"error": SERVER_ERROR})


def answered(status: int, name: str, body: Json) -> Json:
    return {"response": {"status_code": status, "request_id": f"req_{name}", "body": body}, "error": None}


def new_result_file(batch: Batch, seconds: int | None, gone_at: float | None) -> Callable[[str], NewFile]:
    ends = [gone_at, None if seconds is None else batch.ended_at + seconds]
    expires_at = min((end for end in ends if end is not None), default=None)
    return lambda kind: NewFile(f"{batch.id}_{kind}.jsonl", "batch_output", batch.ended_at, expires_at)


def parse_create(body: bytes) -> Json:
    wanted = parse_json(body)
    if not isinstance(wanted, dict):
        raise BadRequest("the body must be a JSON object")
    for name in wanted:
        if name not in CREATE_FIELDS:
            raise BadRequest(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    for name in CREATE_FIELDS[:3]:
        if not isinstance(wanted.get(name), str):
            raise BadRequest(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    if wanted["endpoint"] not in FORMS:
        known = wanted["endpoint"].removeprefix("/v1/") in OTHER_ENDPOINTS
        problem = "is not spoken by the emulator" if known else "is not an endpoint for batches"
        raise BadRequest(f"Invalid value: '{wanted['endpoint']}' {problem}.", "endpoint", "invalid_value")
    if wanted["completion_window"] != "24h":
        raise BadRequest("Invalid value: completion_window must be '24h'.", "completion_window", "invalid_value")
    check_metadata(wanted.get("metadata"))
    if wanted.get("output_expires_after") is not None:
        check_expiry(wanted["output_expires_after"], "output_expires_after")
    return wanted


def check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or len(metadata) > METADATA_PAIRS:
        raise BadRequest(f"metadata must be an object of at most {METADATA_PAIRS} pairs", "metadata")
    for key, value in metadata.items():
        if len(key) > METADATA_KEY:
            raise BadRequest(f"a key of metadata has more than {METADATA_KEY} characters", "metadata")
        if not isinstance(value, str) or len(value) > METADATA_VALUE:
            raise BadRequest(
                f"metadata.{key} must be a string of at most {METADATA_VALUE} characters", f"metadata.{key}"
            )


def check_expiry(expiry: Any, param: str) -> int:
    if not isinstance(expiry, dict) or expiry.get("anchor") != "created_at":
        raise BadRequest(f"{param}.anchor must be 'created_at'", f"{param}.anchor")
    seconds = expiry.get("seconds")
    if not isinstance(seconds, int) or seconds not in EXPIRY_SECONDS:
        low, high = EXPIRY_SECONDS[0], EXPIRY_SECONDS[-1]
        raise BadRequest(f"{param}.seconds must be a whole number from {low} to {high}", f"{param}.seconds")
    return seconds


def snapshot(model: str) -> str:
    return model if SNAPSHOT.search(model) else model + SNAPSHOT_DATE


def file_json(file: StoredFile) -> Json:
    return {
        "object": "file",
        "id": file.id,
        "purpose": file.purpose,
        "filename": file.name,
        "bytes": file.bytes,
        "created_at": int(file.created_at),
        "expires_at": None if file.expires_at is None else int(file.expires_at),
        "status": "processed",
        "status_details": None,
    }


def page_json(shown: list[Json], limit: int) -> Json:
    """A page of a list of which one more was asked for than fits."""
    data = shown[:limit]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, **ends, "has_more": len(shown) > limit}


def batch_status(batch: Batch, now: float) -> str:
    """In OpenAI's words. Short states at beginning and end take as long as the emulator's queue."""
    short = queued_seconds(batch.schedule.duration)
    if batch.status is Status.CANCELLED:
        return "cancelling" if now < batch.ended_at + short else "cancelled"
    if batch.status is not None:
        return batch.status.value
    if batch.schedule.ending is Status.FAILED or now < batch.schedule.created_at + short:
        return "validating"
    finalizing = batch.schedule.ending is Status.COMPLETED and now >= batch.schedule.ends_at - short
    return "finalizing" if finalizing else "in_progress"


def batch_json(batch: Batch, status: str, now: float) -> Json:
    details = orjson.loads(batch.details)
    over = batch.status is not None and status not in ("cancelling", "in_progress")
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": details["endpoint"],
        "model": snapshot(batch.model) if batch.model else None,
        "errors": errors_json(batch, details) if status == "failed" else None,
        "input_file_id": details["input_file_id"],
        "completion_window": "24h",
        "status": status,
        "output_file_id": details["output_file_id"] if over else None,
        "error_file_id": details["error_file_id"] if over else None,
        **stamps_json(batch, status),
        "request_counts": counts_json(batch, details, status, now),
        "usage": usage_json(batch.input_tokens, batch.output_tokens, details["cached_tokens"]) if over else None,
        "metadata": details["metadata"],
    }


def stamps_json(batch: Batch, status: str) -> Json:
    """When a batch came into the states it has gone through; the others are null."""
    created, short = batch.schedule.created_at, queued_seconds(batch.schedule.duration)
    stopped = status in ("cancelling", "cancelled")
    started = status not in ("validating", "failed") and not (stopped and batch.ended_at < created + short)
    times = {
        "created_at": created,
        "in_progress_at": created + short if started else None,
        "expires_at": created + DAY,
        "finalizing_at": batch.schedule.ends_at - short if status in ("finalizing", "completed") else None,
        "completed_at": batch.ended_at if status == "completed" else None,
        "failed_at": batch.ended_at if status == "failed" else None,
        "expired_at": batch.ended_at if status == "expired" else None,
        "cancelling_at": batch.ended_at if stopped else None,
        "cancelled_at": batch.ended_at + short if status == "cancelled" else None,
    }
    return {name: None if at is None else int(at) for name, at in times.items()}


def counts_json(batch: Batch, details: Json, status: str, now: float) -> Json:
    if status in ("validating", "failed"):
        return {"total": 0, "completed": 0, "failed": 0}
    if batch.status is not None:
        failed = details["failed"]
        return {
            "total": batch.total,
            "completed": batch.total - failed - details["unexplained"],
            "failed": failed,
        }
    return {"total": batch.total, "completed": int(batch.total * share_done(batch.schedule, now)), "failed": 0}


def errors_json(batch: Batch, details: Json) -> Json:
    data = details["errors"] or [shown(LineError("server_error", batch.error or ""))]
    return {"object": "list", "data": data}


def usage_json(read: int, written: int, cached: int) -> Json:
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }
