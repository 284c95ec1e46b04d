"""OpenAI's JSON objects: batches, files and pages of a list."""

import re

import orjson

from blocks.emulator.service.batch import BILLED, Batch, Outcome, Status
from blocks.emulator.service.files import StoredFile
from blocks.emulator.service.processing import queued_seconds, share_done
from blocks.emulator.wire.lines import Json

DAY = 86_400
SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")
SNAPSHOT_DATE = "-2025-04-14"  # responses name the dated version of a model
OUTPUT = BILLED | {Outcome.REFUSED}  # outcomes in the output file


def snapshot(model: str) -> str:
    """The dated name of a model."""
    return model if SNAPSHOT.search(model) else model + SNAPSHOT_DATE


def file_json(file: StoredFile) -> Json:
    """A file object (§3.2)."""
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
    """A page of a list; `shown` is one longer than `limit` if there is more."""
    data = shown[:limit]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, **ends, "has_more": len(shown) > limit}


def batch_status(batch: Batch, now: float) -> str:
    """OpenAI's state (§3.4). Short states at the beginning and the end take as long as the emulator's queue."""
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
    """A batch object (§3.4)."""
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
    """When a batch entered each state it has gone through; null for the others."""
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
    """Counters: all zero while a batch is validated or after it failed."""
    if status in ("validating", "failed"):
        return {"total": 0, "completed": 0, "failed": 0}
    if batch.status is not None:
        failed = details["failed"]
        return {
            "total": batch.total,
            "completed": batch.total - batch.missing - failed - details["unexplained"],
            "failed": failed,
        }
    return {"total": batch.total, "completed": int(batch.total * share_done(batch.schedule, now)), "failed": 0}


def errors_json(batch: Batch, details: Json) -> Json:
    """Why a batch failed as a whole."""
    failure = {"code": "server_error", "message": batch.error or "", "param": None, "line": None}
    data = details["errors"] or [failure]
    return {"object": "list", "data": data}


def usage_json(tokens_in: int, tokens_out: int, cached: int) -> Json:
    """Tokens in the form of batches and responses."""
    return {
        "input_tokens": tokens_in,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": tokens_out,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens_in + tokens_out,
    }
