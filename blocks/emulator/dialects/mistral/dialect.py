"""Mistral's files and batch jobs, following its documentation and SDK.

Section numbers in this folder are those of docs/wire-protocols.md. Choices of this project, where nothing is known: a
job whose input can't be read is accepted and then `FAILED`, an invalid body in a valid line fails its row alone (422).
Rows that a cancelled or timed out job did not reach are in neither file and not counted as completed; rows that are
absent for no reason are not counted either. `outputs` has the lines of the output file, not those of the error file. A
`custom_id` may be missing or come twice. Cancelling a job that has ended is a 409. A create above the pending requests
of the workspace is a 429 that names no time. Only `/v1/chat/completions` is spoken; its refusals are plain text.
"""

from collections import Counter
from collections.abc import Iterator
from math import inf
from threading import Lock
from typing import IO
from uuid import uuid4

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as Call
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from blocks.emulator.dialects.mistral.jobs import OUTPUT, UNTOUCHED, file_json, job_json, job_status, row_json
from blocks.emulator.dialects.mistral.listing import check_listing, is_selected, page_of
from blocks.emulator.dialects.mistral.requests import (
    Unprocessable,
    check_file,
    check_upload,
    inline_requests,
    parse_create,
    to_request,
)
from blocks.emulator.service.batch import Batch, Item, NewBatch, Requests
from blocks.emulator.service.files import NewFile, OpenFile, StoredFile
from blocks.emulator.service.processing import Habits
from blocks.emulator.service.service import Accepted, Service
from blocks.emulator.wire.calls import CallError, JsonResponse, hash_body, parse_json, read_body, require_bearer
from blocks.emulator.wire.creates import answer_create, refuse_by_rate
from blocks.emulator.wire.downloads import answer_file, answer_results, with_faults, with_named_files
from blocks.emulator.wire.lines import Json, LineRequests, Lines, dump
from blocks.emulator.wire.uploads import UploadForm, temporary

MAX_PENDING = 1_000_000  # requests of all open jobs
MAX_BYTES = 512 << 20  # of one file, and of a create
EVERYTHING = 1 << 40  # more than any list has
UNKNOWN_STATUS = "PREEMPTED"
ERROR_TYPES = {
    "missing_key": "unauthorized",
    "invalid_key": "unauthorized",
    "rate_limited": "rate_limit_error",
    "insufficient_quota": "insufficient_quota",
    "unavailable": "service_unavailable",
    "internal_error": "internal_server_error",
}


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

    def routes(self) -> list[BaseRoute]:
        """Jobs, and files as far as jobs need them."""
        jobs = "/v1/batch/jobs"
        return [
            Route("/v1/files", self.upload_file, methods=["POST"]),
            Route("/v1/files", self.list_files, methods=["GET"]),
            Route("/v1/files/{file_id}/content", self.download_file, methods=["GET"]),
            Route(jobs, self.create_job, methods=["POST"]),
            Route(jobs, self.list_jobs, methods=["GET"]),
            Route(f"{jobs}/{{job_id}}", self.show_job, methods=["GET"]),
            Route(f"{jobs}/{{job_id}}/cancel", self.cancel_job, methods=["POST"]),
        ]

    def headers(self) -> dict[str, str]:
        """A new id for each call."""
        return {"mistral-correlation-id": str(uuid4())}

    def error_body(self, error: CallError) -> object:
        """`{"detail": [{"loc", "msg", "type"}]}` for a 422, else `{"object": "error", "message", "type", "code"}`."""
        if isinstance(error, Unprocessable):
            return {"detail": [{"loc": list(error.where), "msg": error.message, "type": error.code}]}
        kind = ERROR_TYPES.get(error.code, "invalid_request_error")
        return {"object": "error", "message": error.message, "type": kind, "param": None, "code": str(error.status)}

    async def upload_file(self, call: Call) -> Response:
        """POST /files."""
        with temporary(self._service.store) as spool:
            form = UploadForm(self._max_bytes, spool)
            problem = await form.read(call)
            require_bearer(call, self._options.key)
            if problem is not None:
                raise Unprocessable(("body",), problem)
            return JsonResponse(file_json(await run_in_threadpool(self._keep, form, spool)))

    def list_files(self, call: Call) -> Response:
        """GET /files, newest first, by purpose and by a part of the name."""
        require_bearer(call, self._options.key)
        query = call.query_params
        self._service.settle_all()  # ended jobs leave files behind
        files = self._files.newest(query.get("purpose"), None, EVERYTHING, self._service.now())
        sought = query.get("search", "").lower()
        shown = [file_json(file) for file in files if sought in file.name.lower()]
        return JsonResponse({"object": "list", "data": page_of(shown, query), "total": len(shown)})

    def download_file(self, call: Call) -> Response:
        """GET /files/{id}/content."""
        require_bearer(call, self._options.key)
        self._service.settle_all()
        return answer_file(self._service, self._find_file(call.path_params["file_id"]))

    async def create_job(self, call: Call) -> Response:
        """POST /batch/jobs."""
        body = await read_body(call, self._max_bytes)
        accepted = await run_in_threadpool(self._accept, call, body)
        answer = JsonResponse(job_json(accepted.batch, "QUEUED", self._service.now()))
        return await answer_create(self._service, accepted, answer)

    def show_job(self, call: Call) -> Response:
        """GET /batch/jobs/{id}, with its answers if `inline` is true."""
        job = self._find_job(call)
        shown = self.job_json(job)
        output = orjson.loads(job.details).get("output_file")
        if call.query_params.get("inline", "").lower() == "true" and output:
            file = self._files.find(output, self._service.now())
            lines = b"".join(self._files.content(file)).splitlines() if file else []
            shown["outputs"] = with_faults(self._service, [orjson.Fragment(line) for line in lines])
            return answer_results(self._service, shown)
        return JsonResponse(shown)

    def list_jobs(self, call: Call) -> Response:
        """GET /batch/jobs, newest first, by time and by metadata."""
        require_bearer(call, self._options.key)
        query = call.query_params
        check_listing(query)
        jobs = map(self.job_json, self._service.batches(None, EVERYTHING))
        shown = [job for job in jobs if is_selected(job, query)]
        return JsonResponse({"object": "list", "total": len(shown), "data": page_of(shown, query)})

    def cancel_job(self, call: Call) -> Response:
        """POST /batch/jobs/{id}/cancel."""
        shown = self.job_json(self._service.cancel(self._find_job(call)))
        if shown["status"] not in ("CANCELLATION_REQUESTED", UNKNOWN_STATUS):
            raise CallError(409, "conflict", f"A job with status {shown['status']} cannot be cancelled.")
        return JsonResponse(shown)

    def job_json(self, job: Batch) -> Json:
        """A job as it is now."""
        now = self._service.now()
        status = UNKNOWN_STATUS if self._service.shows_unknown_status(job) else job_status(job, now)
        shown = job_json(job, status, now)
        if self._options.without_files:
            shown["output_file"] = None
        return with_named_files(self._service, job, shown, ("output_file", "error_file"))

    def publish(self, batch: Batch, items: Iterator[Item], open_file: OpenFile) -> str:
        """Write output and error file of a job that ends; a file without a line is not created."""
        gone_at = self._service.gone_at(batch)
        output = open_file(result_file(batch, "batch_result", gone_at))
        errors = open_file(result_file(batch, "batch_error", gone_at))
        counts = Counter(failed=0, untouched=0)
        for number, item in enumerate(items):
            if item.outcome in UNTOUCHED:
                counts["untouched"] += 1
                continue
            counts["failed"] += item.outcome not in OUTPUT
            row = row_json(batch, number, item, with_usage=not self._service.usage_is_missing(item))
            line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
            file = output if item.outcome in OUTPUT else errors
            file.write(line + line if self._service.line_comes_twice(item) else line)
        output.close()
        errors.close()
        details = orjson.loads(batch.details)
        return dump({**details, "output_file": output.id, "error_file": errors.id, **counts})

    def _keep(self, form: UploadForm, spool: IO[bytes]) -> StoredFile:
        name = check_upload(form)
        spool.seek(0)
        details = dump({"sample_type": "batch_request", "source": "upload", "visibility": "workspace"})
        return self._files.add(NewFile(name, "batch", self._service.now(), None, details, str(uuid4())), spool)

    def _accept(self, call: Call, body: bytes | None) -> Accepted:
        require_bearer(call, self._options.key)
        refuse_by_rate(self._service)
        if body is None:
            raise CallError(413, "too_large", f"the body has more than {self._max_bytes} bytes")
        order = parse_create(parse_json(body))
        if not order["input_files"]:
            return self._queue(inline_requests(order), order, [], hash_body(body))
        file = self._find_file(order["input_files"][0])
        if file.purpose != "batch":
            raise CallError(404, "not_found", f"No batch file found with id {file.id}")
        with temporary(self._service.store) as copy:
            copy.writelines(self._files.content(file))
            copy.flush()
            lines = Lines(copy)
            errors = check_file(lines)
            requests = LineRequests(lines, lambda text: to_request(orjson.loads(text), order["model"]))
            return self._queue(requests, order, errors, hash_body(body))

    def _queue(self, requests: Requests, order: Json, errors: list[Json], body_hash: bytes) -> Accepted:
        accepted: Requests = () if errors else requests
        details = {name: order[name] for name in ("endpoint", "input_files", "metadata", "model")}
        written = dump({**details, "errors": errors})
        with self._queueing:
            self._refuse_above_pending(len(accepted))
            new = NewBatch(order["model"], accepted, body_hash, None, written, rejected=bool(errors), id=str(uuid4()))
            return self._service.accept(new)

    def _refuse_above_pending(self, more: int) -> None:
        self._service.settle_all()
        pending = sum(batch.total for batch in self._service.store.open_batches(inf))
        if pending + more > self._max_pending:
            message = f"{pending} requests are pending and {more} would be added; the limit is {self._max_pending}"
            raise CallError(429, "rate_limited", message)

    def _find_file(self, file_id: str) -> StoredFile:
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


def result_file(batch: Batch, kind: str, gone_at: float | None) -> NewFile:
    """The output or error file of a job, by its `sample_type`."""
    details = dump({"sample_type": kind, "source": "mistral", "visibility": "workspace"})
    return NewFile(f"{batch.id}_{kind}.jsonl", "batch", batch.ended_at, gone_at, details, str(uuid4()))
