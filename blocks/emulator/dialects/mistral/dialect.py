"""Mistral's files and batch jobs, after its documentation and SDK; where these are silent, the choices are this
project's.

Those choices: a job whose input can't be read is accepted and then `FAILED`, an unsound body in a sound line fails its
row alone (422). Rows that a cancelled or timed out job did not come to are in neither file and not counted as
completed; rows that are absent for no reason count as succeeded. `outputs` holds the lines of the output file, not
those of the error file. A `custom_id` may be missing or come twice. Cancelling a job that has ended is a 409, deleting
one that runs cancels it. A create above the pending requests of the workspace is a 429 that names no time. Only
`/v1/chat/completions` is spoken; its refusals are plain text.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from hashlib import blake2b
from hmac import compare_digest
from math import inf
from secrets import token_bytes
from threading import Lock
from typing import IO, Any
from uuid import uuid4

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request as Call
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from blocks.emulator.service.batch import BILLED, Batch, Item, NewBatch, Outcome, Request, Requests, Status
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
from blocks.emulator.wire.lines import Json, LineError, Lines, parse_line, read_chat, required
from blocks.emulator.wire.transfers import UploadForm, answer_file, temporary

MAX_PENDING = 1_000_000  # requests of all open jobs
MAX_INLINE = 9_999
MAX_BYTES = 512 << 20  # of one file, and of a create
PAGE_SIZE, PAGE_SIZE_LIMIT = 100, 1000
TIMEOUT_HOURS = range(1, 7 * 24)
HOUR = 3600
URL_HOURS = range(1, 169)
PURPOSES = ("fine-tune", "batch", "ocr")
VISIBILITIES = ("workspace", "user")
UPLOAD_FIELDS = ("file", "purpose", "expiry", "visibility")
ENDPOINT = "/v1/chat/completions"
CREATE_FIELDS = (
    "endpoint", "input_files", "requests", "model", "agent_id", "metadata", "timeout_hours",
)  # fmt: skip
FILE_FILTERS = {"sample_type": "sample_type", "source": "source", "mimetypes": "mimetype"}  # from query key to field
LIST_FIELDS = (
    "page", "page_size", "model", "agent_id", "metadata", "created_after", "created_by_me", "status", "order_by",
)  # fmt: skip
STATUSES = {
    Status.COMPLETED: "SUCCESS",
    Status.FAILED: "FAILED",
    Status.EXPIRED: "TIMEOUT_EXCEEDED",
    Status.CANCELLED: "CANCELLED",
}
UNKNOWN_STATUS = "PREEMPTED"
OUTPUT = BILLED | {Outcome.REFUSED}  # what is in the output file, not in the error file
UNTOUCHED = (Outcome.CANCELLED, Outcome.EXPIRED)  # what is in neither
ROW_ERRORS = {
    Outcome.FAILED: (500, "Internal server error", "internal_server_error"),
    Outcome.TIMED_OUT: (504, "The model took too long to answer", "timeout_error"),
}
ERROR_TYPES = {
    "missing_key": "unauthorized",
    "invalid_key": "unauthorized",
    "rate_limited": "rate_limit_error",
    "insufficient_quota": "insufficient_quota",
    "unavailable": "service_unavailable",
    "internal_error": "internal_server_error",
}


class Unprocessable(CallError):
    """A 422 that says where the call is wrong."""

    def __init__(self, where: Sequence[str | int], message: str, kind: str = "value_error") -> None:
        super().__init__(422, kind, message)
        self.where = where


class Dialect:
    """Routes below `/v1`; clients put that into their paths themselves."""

    base_path = ""

    def __init__(self, service: Service) -> None:
        service.habits = Habits(bills_refusals=True)
        service.publish = self.publish
        self._service = service
        self._options = service.options
        self._files = service.store.files
        self._max_pending = service.options.max_requests or MAX_PENDING
        self._max_bytes = service.options.max_bytes or MAX_BYTES
        self._queueing = Lock()
        self._signing_key = token_bytes()

    def routes(self) -> list[BaseRoute]:
        file, job = "/v1/files/{file_id}", "/v1/batch/jobs/{job_id}"
        return [
            Route("/v1/files", self.upload_file, methods=["POST"]),
            Route("/v1/files", self.list_files, methods=["GET"]),
            Route(file, self.show_file, methods=["GET"]),
            Route(file, self.delete_file, methods=["DELETE"]),
            Route(f"{file}/content", self.download_file, methods=["GET"]),
            Route(f"{file}/url", self.sign_url, methods=["GET"]),
            Route("/v1/batch/jobs", self.create_job, methods=["POST"]),
            Route("/v1/batch/jobs", self.list_jobs, methods=["GET"]),
            Route(job, self.show_job, methods=["GET"]),
            Route(job, self.delete_job, methods=["DELETE"]),
            Route(f"{job}/cancel", self.cancel_job, methods=["POST"]),
        ]

    def headers(self) -> dict[str, str]:
        return {"mistral-correlation-id": str(uuid4())}

    def error_body(self, error: CallError) -> object:
        if isinstance(error, Unprocessable):
            return {"detail": [{"loc": list(error.where), "msg": error.message, "type": error.code}]}
        kind = ERROR_TYPES.get(error.code, "invalid_request_error")
        return {"object": "error", "message": error.message, "type": kind, "param": None, "code": str(error.status)}

    async def upload_file(self, call: Call) -> Response:
        with temporary(self._service.store) as spool:
            form = UploadForm(self._max_bytes, spool)
            problem = await form.read(call)
            require_bearer(call, self._options.key)
            if problem is not None:
                raise Unprocessable(("body",), str(problem))
            return JsonResponse(file_json(await run_in_threadpool(self._keep, form, spool)))

    def list_files(self, call: Call) -> Response:
        require_bearer(call, self._options.key)
        query = call.query_params
        self._service.settle_all()  # ended jobs leave files behind
        files = self._files.newest(query.get("purpose"), None, 1 << 40, self._service.now())
        shown = [file_json(file) for file in files]
        for key, name in FILE_FILTERS.items():
            if key in query:
                shown = [file for file in shown if file[name] in query.getlist(key)]
        shown = [file for file in shown if query.get("search", "").lower() in file["filename"].lower()]
        total = None if query.get("include_total", "true").lower() == "false" else len(shown)
        return JsonResponse({"object": "list", "data": page_of(shown, query), "total": total})

    def show_file(self, call: Call) -> Response:
        return JsonResponse({**file_json(self._find_file(call)), "deleted": False})

    def delete_file(self, call: Call) -> Response:
        file = self._find_file(call)
        self._files.delete(file)
        return JsonResponse({"id": file.id, "object": "file", "deleted": True})

    def download_file(self, call: Call) -> Response:
        if not self._is_signed(call):
            require_bearer(call, self._options.key)
        self._service.settle_all()
        return answer_file(self._service, self._find_file_id(call.path_params["file_id"]))

    def sign_url(self, call: Call) -> Response:
        file = self._find_file(call)
        hours = number_of(call.query_params, "expiry", 24, URL_HOURS[0], URL_HOURS[-1])
        until = int(self._service.now()) + hours * HOUR
        path = f"/v1/files/{file.id}/content?until={until}&signature={self._signature(file.id, str(until))}"
        return JsonResponse({"url": str(call.base_url).rstrip("/") + path})

    async def create_job(self, call: Call) -> Response:
        body = await read_body(call, self._max_bytes)
        accepted = await run_in_threadpool(self._accept, call, body)
        answer = JsonResponse(job_json(accepted.batch, "QUEUED", self._service.now()))
        return await answer_create(self._service, accepted, answer)

    def show_job(self, call: Call) -> Response:
        job = self._find_job(call)
        shown = self.job_json(job)
        if call.query_params.get("inline", "").lower() == "true" and shown["output_file"]:
            file = self._files.find(shown["output_file"], self._service.now())
            lines = b"".join(self._files.content(file)).splitlines() if file else []
            shown["outputs"] = [orjson.Fragment(line) for line in lines]
        return JsonResponse(shown)

    def list_jobs(self, call: Call) -> Response:
        require_bearer(call, self._options.key)
        query = call.query_params
        check_listing(query)
        jobs = self._service.batches(None, 1 << 40)
        if query.get("order_by") == "created":
            jobs.reverse()
        shown = [job for job in map(self.job_json, jobs) if is_wanted(job, query)]
        return JsonResponse({"object": "list", "total": len(shown), "data": page_of(shown, query)})

    def cancel_job(self, call: Call) -> Response:
        shown = self.job_json(self._service.cancel(self._find_job(call)))
        if shown["status"] not in ("CANCELLATION_REQUESTED", UNKNOWN_STATUS):
            raise CallError(409, "conflict", f"A job with status {shown['status']} can not be cancelled.")
        return JsonResponse(shown)

    def delete_job(self, call: Call) -> Response:
        job = self._find_job(call)
        self._service.delete(job)
        return JsonResponse({"id": job.id, "object": "batch", "deleted": True})

    def job_json(self, job: Batch) -> Json:
        """A job as it is now."""
        now = self._service.now()
        status = UNKNOWN_STATUS if self._service.shows_unknown_status(job) else job_status(job, now)
        return job_json(job, status, now)

    def publish(self, batch: Batch, items: Iterator[Item], open_file: OpenFile) -> str:
        """Writes output and error file of a job that ends; a file without a line does not come to be."""
        details = orjson.loads(batch.details)
        gone_at = self._service.gone_at(batch)
        output = open_file(result_file(batch, "batch_result", gone_at))
        errors = open_file(result_file(batch, "batch_error", gone_at))
        counts: Counter[str] = Counter()
        for number, item in enumerate(items):
            if item.outcome in UNTOUCHED:
                counts["untouched"] += 1
                continue
            counts["failed"] += item.outcome not in OUTPUT
            line = self._line(batch, number, item)
            file = output if item.outcome in OUTPUT else errors
            file.write(line + line if self._service.line_comes_twice(item) else line)
        output.close()
        errors.close()
        ended = {"output_file": output.id, "error_file": errors.id, "failed": counts["failed"]}
        return orjson.dumps({**details, **ended, "untouched": counts["untouched"]}).decode()

    def _line(self, batch: Batch, number: int, item: Item) -> bytes:
        row: Json = {
            "id": f"batch-{batch.id[:8]}-{number}-{item.prompt_hash & 0xFFFF:04x}",
            "custom_id": item.custom_id or None,
            "response": response_json(batch, number, item),
            "error": None,
        }
        if item.outcome in OUTPUT and self._service.usage_is_missing(item):
            del row["response"]["body"]["usage"]
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)

    def _keep(self, form: UploadForm, spool: IO[bytes]) -> StoredFile:
        """Refuses what is no sound upload."""
        hours = check_upload(form)
        spool.seek(0)
        now = self._service.now()
        purpose = form.text("purpose") or "fine-tune"
        details = {
            "sample_type": "batch_request" if purpose == "batch" else "instruct",
            "source": "upload",
            "visibility": form.text("visibility") or VISIBILITIES[0],
        }
        expires_at = None if hours is None else now + hours * HOUR
        name = form.filename or ""
        return self._files.add(NewFile(name, purpose, now, expires_at, dump(details), str(uuid4())), spool)

    def _accept(self, call: Call, body: bytes | None) -> Accepted:
        require_bearer(call, self._options.key)
        refuse_by_rate(self._service)
        if body is None:
            raise CallError(413, "too_large", f"the body has more than {self._max_bytes} bytes")
        wanted = parse_create(parse_json(body))
        with ExitStack() as stack:
            requests: FileRequests | InlineRequests = InlineRequests(wanted)
            if wanted["input_files"]:
                copy = stack.enter_context(temporary(self._service.store))
                for file_id in wanted["input_files"]:
                    self._copy_input(file_id, copy)
                copy.flush()
                requests = FileRequests(copy, wanted)
            errors = requests.check()
            with self._queueing:
                return self._queue(requests, wanted, errors, hash_body(body))

    def _copy_input(self, file_id: str, copy: IO[bytes]) -> None:
        """Behind what is there already; each file begins on a line of its own."""
        file = self._files.find(file_id, self._service.now())
        if file is None or file.purpose != "batch":
            raise CallError(404, "not_found", f"No batch file found with id {file_id}")
        last = b"\n"
        for piece in self._files.content(file):
            copy.write(piece)
            last = piece[-1:]
        if last != b"\n":
            copy.write(b"\n")

    def _queue(
        self, requests: "FileRequests | InlineRequests", wanted: Json, errors: list[Json], body_hash: bytes
    ) -> Accepted:
        asked: Requests = () if errors else requests
        self._refuse_above_pending(len(asked))
        details = {name: wanted[name] for name in ("endpoint", "input_files", "metadata", "timeout_hours")}
        details |= {"model": wanted["model"], "errors": errors}
        new = NewBatch(requests.model, asked, body_hash, None, dump(details), rejected=bool(errors), id=str(uuid4()))
        return self._service.accept(new)

    def _refuse_above_pending(self, more: int) -> None:
        self._service.settle_all()
        pending = sum(batch.total for batch in self._service.store.open_batches(inf))
        if pending + more > self._max_pending:
            message = f"{pending} requests are pending and {more} would come; at most {self._max_pending} may"
            raise CallError(429, "rate_limited", message)

    def _find_file(self, call: Call) -> StoredFile:
        require_bearer(call, self._options.key)
        self._service.settle_all()
        return self._find_file_id(call.path_params["file_id"])

    def _find_file_id(self, file_id: str) -> StoredFile:
        file = self._files.find(file_id, self._service.now())
        if file is None:
            raise CallError(404, "not_found", f"No file matches the given query: {file_id}")
        return file

    def _find_job(self, call: Call) -> Batch:
        require_bearer(call, self._options.key)
        job = self._service.batch(call.path_params["job_id"])
        if job is None:
            raise CallError(404, "not_found", f"Batch job not found: {call.path_params['job_id']}")
        return job

    def _is_signed(self, call: Call) -> bool:
        until, signature = call.query_params.get("until", ""), call.query_params.get("signature", "")
        expected = self._signature(call.path_params["file_id"], until)
        return compare_digest(signature.encode(), expected.encode()) and int(until) > self._service.now()

    def _signature(self, file_id: str, until: str) -> str:
        return blake2b(f"{file_id}/{until}".encode(), key=self._signing_key, digest_size=16).hexdigest()


class InputLine:
    """What the requests of one job have in common, taken together line by line."""

    def __init__(self, wanted: Json) -> None:
        self.model: str = wanted["model"] or ""

    def check(self, line: Json) -> None:
        """LineError if the whole job is to fail for this line."""
        body = required(line, "body", dict)
        custom_id = line.get("custom_id")
        if custom_id is not None and not isinstance(custom_id, str):
            raise LineError("invalid_request", "custom_id must be a string", "custom_id")
        model = body.get("model") or self.model
        if not isinstance(model, str) or not model:
            raise LineError("invalid_request", "No model was given, neither with the job nor in the body", "model")
        self.model = self.model or model
        if model != self.model:
            raise LineError("invalid_request", f"All requests of a job must use one model, {self.model!r}", "model")

    def request(self, line: Json) -> Request:
        body, custom_id = line["body"], line.get("custom_id") or ""
        try:
            prompt, schema = read_chat(body)
            check_parameters(body)
        except LineError as error:
            return Request(custom_id, dump(body), self.model, rejection=str(error))
        return Request(custom_id, prompt, self.model, schema, body.get("max_tokens"))


def check_parameters(body: Json) -> None:
    if body.get("stream"):
        raise LineError("invalid_request", "A batch can not stream.", "body.stream")
    most = body.get("max_tokens")
    if most is not None and (not isinstance(most, int) or most < 1):
        raise LineError("invalid_request", "max_tokens must be a whole number of at least 1", "body.max_tokens")


class InlineRequests:
    """The requests of a create without a file."""

    def __init__(self, wanted: Json) -> None:
        self._items: list[Json] = wanted["requests"] or []
        self._line = InputLine(wanted)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int, /) -> Request:
        return self._line.request(self._items[index])

    @property
    def model(self) -> str:
        return self._line.model

    def check(self) -> list[Json]:
        """What is wrong is told at once: a 422."""
        for number, item in enumerate(self._items):
            try:
                self._line.check(item)
            except LineError as error:
                raise Unprocessable(("body", "requests", number), str(error)) from None
        return []


class FileRequests:
    """The requests of uploaded files, one behind the other."""

    def __init__(self, content: IO[bytes], wanted: Json) -> None:
        self._lines = Lines(content)
        self._line = InputLine(wanted)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int, /) -> Request:
        return self._line.request(orjson.loads(self._lines[index]))

    @property
    def model(self) -> str:
        return self._line.model

    def check(self) -> list[Json]:
        """Reads everything once. What is wrong with it, as the job shows it; nothing if it may be worked on."""
        errors: Counter[str] = Counter()
        for line in self._lines.read():
            try:
                self._line.check(parse_line(line))
            except LineError as error:
                errors[str(error)] += 1
        if not len(self):
            errors["The input files are empty."] += 1
        return [{"message": message, "count": count} for message, count in errors.items()]


def check_upload(form: UploadForm) -> int | None:
    """Unprocessable says what is wrong. Returns the hours after which the file is to expire."""
    for name in form.fields:
        if name not in UPLOAD_FIELDS:
            raise Unprocessable(("body", name), "Extra inputs are not permitted", "extra_forbidden")
    if not form.filename:
        raise Unprocessable(("body", "file"), "Field required", "missing")
    if form.too_long:
        raise CallError(413, "too_large", f"the file is too long: {form.size} bytes")
    for name, allowed in (("purpose", PURPOSES), ("visibility", VISIBILITIES)):
        if name in form.fields and form.text(name) not in allowed:
            raise Unprocessable(("body", name), f"Input should be one of {', '.join(allowed)}", "enum")
    expiry = form.text("expiry")
    if not expiry:
        return None
    if not (expiry.isascii() and expiry.isdigit() and int(expiry[:9]) > 0):
        raise Unprocessable(("body", "expiry"), "Input should be a whole number of hours", "int_parsing")
    return int(expiry[:9])


def parse_create(content: Any) -> Json:
    """A create's fields, all of them present."""
    if not isinstance(content, dict):
        raise Unprocessable(("body",), "Input should be a valid dictionary", "dict_type")
    for name in content:
        if name not in CREATE_FIELDS:
            raise Unprocessable(("body", name), "Extra inputs are not permitted", "extra_forbidden")
    wanted: Json = {name: content.get(name) for name in CREATE_FIELDS}
    if wanted["endpoint"] != ENDPOINT:
        raise Unprocessable(("body", "endpoint"), f"The emulator speaks {ENDPOINT} only", "enum")
    if wanted["agent_id"] is not None:
        raise Unprocessable(("body", "agent_id"), "The emulator knows no agents")
    if not isinstance(wanted["model"], str | None):
        raise Unprocessable(("body", "model"), "Input should be a valid string", "string_type")
    check_metadata(wanted["metadata"])
    check_source(wanted)
    hours = content.get("timeout_hours", 24)
    if not isinstance(hours, int) or hours not in TIMEOUT_HOURS:
        message = f"Input should be from {TIMEOUT_HOURS[0]} to {TIMEOUT_HOURS[-1]}"
        raise Unprocessable(("body", "timeout_hours"), message, "less_than_equal")
    return {**wanted, "input_files": wanted["input_files"] or [], "timeout_hours": hours}


def check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise Unprocessable(("body", "metadata"), "Input should be a valid dictionary", "dict_type")
    for name, value in metadata.items():
        if not isinstance(value, str):
            raise Unprocessable(("body", "metadata", name), "Input should be a valid string", "string_type")


def check_source(wanted: Json) -> None:
    """Either files or requests."""
    files, requests = wanted["input_files"], wanted["requests"]
    if bool(files) == bool(requests):
        raise Unprocessable(("body",), "Either input_files or requests must be given")
    if files and not (isinstance(files, list) and all(isinstance(each, str) for each in files)):
        raise Unprocessable(("body", "input_files"), "Input should be a list of file ids", "list_type")
    if requests and not (isinstance(requests, list) and all(isinstance(each, dict) for each in requests)):
        raise Unprocessable(("body", "requests"), "Input should be a list of objects", "list_type")
    if requests and len(requests) > MAX_INLINE:
        message = f"List should have at most {MAX_INLINE} items, not {len(requests)}"
        raise Unprocessable(("body", "requests"), message, "too_long")


def number_of(query: QueryParams, name: str, default: int, low: int, high: int) -> int:
    try:
        return query_number(query, name, default, low, high)
    except CallError as error:
        raise Unprocessable(("query", name), error.message, "int_parsing") from None


def page_of(shown: list[Json], query: QueryParams) -> list[Json]:
    size = number_of(query, "page_size", PAGE_SIZE, 1, PAGE_SIZE_LIMIT)
    first = size * number_of(query, "page", 0, 0, 10**9)
    return shown[first : first + size]


def check_listing(query: QueryParams) -> None:
    if query.get("order_by", "-created") not in ("created", "-created"):
        raise Unprocessable(("query", "order_by"), "Input should be 'created' or '-created'", "enum")
    if "created_after" in query:
        parse_time(query["created_after"])


def parse_time(text: str) -> float:
    """Seconds since 1970; without a zone it is UTC."""
    try:
        at = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)  # a plus that was not quoted
    except ValueError:
        where = ("query", "created_after")
        raise Unprocessable(where, "Input should be a valid datetime", "datetime_parsing") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def is_wanted(job: Json, query: QueryParams) -> bool:
    """Whether a job passes the filters of a list; keys that the list does not know are metadata."""
    metadata = job["metadata"] or {}
    return (
        all(metadata.get(name) == value for name, value in query.multi_items() if name not in LIST_FIELDS)
        and query.get("model", job["model"]) == job["model"]
        and not query.get("agent_id")
        and ("status" not in query or job["status"] in query.getlist("status"))
        and ("created_after" not in query or job["created_at"] > parse_time(query["created_after"]))
    )


def result_file(batch: Batch, kind: str, gone_at: float | None) -> NewFile:
    details = dump({"sample_type": kind, "source": "mistral", "visibility": "workspace"})
    return NewFile(f"{batch.id}_{kind}.jsonl", "batch", batch.ended_at, gone_at, details, str(uuid4()))


def file_json(file: StoredFile) -> Json:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at),
        "filename": file.name,
        "purpose": file.purpose,
        "num_lines": None,
        "mimetype": "application/jsonl",
        "signature": None,
        "expires_at": None if file.expires_at is None else int(file.expires_at),
        **orjson.loads(file.details),
    }


def job_status(job: Batch, now: float) -> str:
    """In Mistral's words. Short states at beginning and end take as long as the emulator's queue."""
    short = queued_seconds(job.schedule.duration)
    if job.status is Status.CANCELLED and now < job.ended_at + short:
        return "CANCELLATION_REQUESTED"
    if job.status is not None:
        return STATUSES[job.status]
    return "QUEUED" if now < job.schedule.created_at + short else "RUNNING"


def job_json(job: Batch, status: str, now: float) -> Json:
    details = orjson.loads(job.details)
    over = status in STATUSES.values()
    started = status not in ("QUEUED", "FAILED")
    return {
        "id": job.id,
        "object": "batch",
        "input_files": details["input_files"],
        "metadata": details["metadata"],
        "endpoint": details["endpoint"],
        "model": details["model"],
        "agent_id": None,
        "output_file": details.get("output_file") if over else None,
        "error_file": details.get("error_file") if over else None,
        "errors": errors_json(job, details) if status == "FAILED" else [],
        "outputs": None,
        "status": status,
        "created_at": int(job.schedule.created_at),
        "started_at": int(job.schedule.created_at + queued_seconds(job.schedule.duration)) if started else None,
        "completed_at": int(job.ended_at) if over else None,
        **counts_json(job, details, 0 if status == "QUEUED" else share_done(job.schedule, now)),
    }


def errors_json(job: Batch, details: Json) -> list[Json]:
    return details["errors"] or [{"message": job.error or "", "count": job.total}]


def counts_json(job: Batch, details: Json, share: float) -> Json:
    failed = details.get("failed", 0)
    if job.status is Status.FAILED:
        completed = 0
    elif job.status is not None:
        completed = job.total - details["untouched"]
    else:
        completed = int(job.total * share)
    return {
        "total_requests": job.total,
        "completed_requests": completed,
        "succeeded_requests": completed - failed,
        "failed_requests": failed,
    }


def response_json(batch: Batch, number: int, item: Item) -> Json:
    if item.outcome in OUTPUT:
        return {"status_code": 200, "body": chat_body(batch, number, item)}
    if item.outcome is Outcome.UNEXPLAINED:
        return {"status_code": 500, "body": None}
    status, message, kind = ROW_ERRORS.get(item.outcome, (422, item.rejection, "invalid_request_error"))
    error = {"object": "error", "message": message, "type": kind, "param": None, "code": str(status)}
    return {"status_code": status, "body": error}


def chat_body(batch: Batch, number: int, item: Item) -> Json:
    message = {"role": "assistant", "content": item.text, "tool_calls": None}
    reason = "length" if item.outcome is Outcome.TRUNCATED else "stop"
    return {
        "id": f"{batch.number:016x}{number:016x}",
        "object": "chat.completion",
        "created": int(batch.ended_at),
        "model": item.model,
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {
            "prompt_tokens": item.input_tokens,
            "completion_tokens": item.output_tokens,
            "total_tokens": item.input_tokens + item.output_tokens,
        },
    }


def dump(value: object) -> str:
    return orjson.dumps(value).decode()
