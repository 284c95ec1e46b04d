"""Mistral's JSON objects: files, jobs, and the lines of their files (§4)."""

import orjson

from blocks.emulator.service.batch import BILLED, Batch, Item, Outcome, Status
from blocks.emulator.service.files import StoredFile
from blocks.emulator.service.processing import queued_seconds, share_done
from blocks.emulator.wire.lines import Json

STATUSES = {
    Status.COMPLETED: "SUCCESS",
    Status.FAILED: "FAILED",
    Status.EXPIRED: "TIMEOUT_EXCEEDED",
    Status.CANCELLED: "CANCELLED",
}
OUTPUT = BILLED | {Outcome.REFUSED}  # outcomes in the output file
UNTOUCHED = (Outcome.CANCELLED, Outcome.EXPIRED)  # outcomes in neither file
ROW_ERRORS = {
    Outcome.FAILED: (500, "Internal server error", "internal_server_error"),
    Outcome.TIMED_OUT: (504, "The model took too long to answer", "timeout_error"),
}


def file_json(file: StoredFile) -> Json:
    """A file; what else is known about it is in its details."""
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
    """Mistral's state. Short states at the beginning and the end take as long as the emulator's queue."""
    short = queued_seconds(job.schedule.duration)
    if job.status is Status.CANCELLED and now < job.ended_at + short:
        return "CANCELLATION_REQUESTED"
    if job.status is not None:
        return STATUSES[job.status]
    return "QUEUED" if now < job.schedule.created_at + short else "RUNNING"


def job_json(job: Batch, status: str, now: float) -> Json:
    """A job."""
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
    """Why a job failed as a whole."""
    return details["errors"] or [{"message": job.error or "", "count": job.total}]


def counts_json(job: Batch, details: Json, share: float) -> Json:
    """Counters; `share` of an open job is done."""
    failed = details.get("failed", 0)
    if job.status is Status.FAILED:
        completed = 0
    elif job.status is not None:
        completed = job.total - job.missing - details["untouched"]
    else:
        completed = int(job.total * share)
    return {
        "total_requests": job.total,
        "completed_requests": completed,
        "succeeded_requests": completed - failed,
        "failed_requests": failed,
    }


def row_json(job: Batch, number: int, item: Item, *, with_usage: bool) -> Json:
    """A line of the output or error file."""
    row: Json = {
        "id": f"batch-{job.id[:8]}-{number}-{item.prompt_hash & 0xFFFF:04x}",
        "custom_id": item.custom_id or None,
        "response": response_json(job, number, item),
        "error": None,
    }
    if item.outcome in OUTPUT and not with_usage:
        del row["response"]["body"]["usage"]
    return row


def response_json(job: Batch, number: int, item: Item) -> Json:
    """The HTTP response of a row."""
    if item.outcome in OUTPUT:
        return {"status_code": 200, "body": chat_body(job, number, item)}
    if item.outcome is Outcome.UNEXPLAINED:
        return {"status_code": 500, "body": None}
    status, message, kind = ROW_ERRORS.get(item.outcome, (422, item.rejection, "invalid_request_error"))
    error = {"object": "error", "message": message, "type": kind, "param": None, "code": str(status)}
    return {"status_code": status, "body": error}


def chat_body(job: Batch, number: int, item: Item) -> Json:
    """A chat completion."""
    message = {"role": "assistant", "content": item.text, "tool_calls": None}
    reason = "length" if item.outcome is Outcome.TRUNCATED else "stop"
    return {
        "id": f"{job.number:016x}{number:016x}",
        "object": "chat.completion",
        "created": int(job.ended_at),
        "model": item.model,
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {
            "prompt_tokens": item.input_tokens,
            "completion_tokens": item.output_tokens,
            "total_tokens": item.input_tokens + item.output_tokens,
        },
    }
