"""Gemini's batches as operations, and the rows of their results (§5).

As usual for JSON from protocol buffers, zeros, a false `done` and empty lists are left out.
"""

import base64
from datetime import UTC, datetime

import orjson

from blocks.emulator.dialects.gemini.errors import GOOGLE
from blocks.emulator.dialects.gemini.requests import NO_KEY
from blocks.emulator.service.batch import BILLED, Batch, Item, Outcome, Status
from blocks.emulator.service.faults import usage_is_huge
from blocks.emulator.service.processing import HUGE, count_output, queued_seconds, share_done
from blocks.emulator.service.service import Service
from blocks.emulator.wire.lines import Json

METADATA_TYPE = f"{GOOGLE}.ai.generativelanguage.v1main.GenerateContentBatch"
OUTPUT_TYPE = f"{GOOGLE}.ai.generativelanguage.v1main.GenerateContentBatchOutput"
STATES = {
    Status.COMPLETED: "SUCCEEDED",
    Status.FAILED: "FAILED",
    Status.EXPIRED: "EXPIRED",
    Status.CANCELLED: "CANCELLED",
}
ANSWERED = BILLED | {Outcome.REFUSED}  # rows with a response, not an error
UNTOUCHED = (Outcome.CANCELLED, Outcome.EXPIRED)  # rows with neither
ROW_ERRORS: dict[Outcome, Json] = {
    Outcome.FAILED: {"code": 500, "message": "An internal error has occurred. Please retry."},
    Outcome.TIMED_OUT: {"code": 504, "message": "Deadline expired before operation could complete."},
    Outcome.UNEXPLAINED: {},
}
BATCH_ERRORS = {Status.FAILED: (13, "The batch failed."), Status.EXPIRED: (4, "The batch expired.")}


def operation_json(batch: Batch, state: str, now: float, state_prefix: str, output: Json | None = None) -> Json:
    """An operation about a batch; `output` are its results if they are not in a file."""
    details = orjson.loads(batch.details)
    over = state in STATES.values()
    if over and details.get("output_file"):
        output = {"responsesFile": f"files/{details['output_file']}"}
    metadata = {
        "@type": METADATA_TYPE,
        "model": f"models/{batch.model}",
        "displayName": details["display_name"],
        "inputConfig": {"fileName": details["file"]} if details["file"] else None,
        "output": output,
        "createTime": time_json(batch.schedule.created_at),
        "endTime": time_json(batch.ended_at) if over else None,
        "updateTime": time_json(batch.ended_at if over else now),
        "batchStats": stats_json(batch, details, share_done(batch.schedule, now) if state == "RUNNING" else 0.0),
        "state": f"{state_prefix}_{state}",
        "name": f"batches/{batch.id}",
    }
    shown: Json = {"name": f"batches/{batch.id}", "metadata": without_empty(metadata)}
    if not over:
        return shown
    failed = batch.status in BATCH_ERRORS
    end = {"error": failure_json(batch, details)} if failed else {"response": {"@type": OUTPUT_TYPE, **(output or {})}}
    return {**shown, "done": True, **end}


def batch_state(batch: Batch, now: float) -> str:
    """Without its prefix. A batch that was cancelled keeps running for as long as the emulator's queue takes."""
    short = queued_seconds(batch.schedule.duration)
    if batch.status is Status.CANCELLED and now < batch.ended_at + short:
        return "RUNNING"
    if batch.status is not None:
        return STATES[batch.status]
    return "PENDING" if now < batch.schedule.created_at + short else "RUNNING"


def stats_json(batch: Batch, details: Json, share: float) -> Json:
    """Counters as text, without those that are zero; `share` of an open batch is done."""
    failed = details.get("failed", 0)
    if batch.status is Status.FAILED or (batch.status is None and not share):
        successful = 0
    elif batch.status is not None and "untouched" in details:
        successful = batch.total - batch.missing - failed - details["untouched"]
    else:
        successful = int(batch.total * share)
    counts = {
        "requestCount": batch.total,
        "successfulRequestCount": successful,
        "failedRequestCount": failed,
        "pendingRequestCount": batch.total - successful - failed,
    }
    return {name: str(count) for name, count in counts.items() if count}


def failure_json(batch: Batch, details: Json) -> Json:
    """Why a batch failed as a whole."""
    if details["errors"]:
        return {"code": 3, "message": details["errors"][0]}
    code, message = BATCH_ERRORS[batch.status] if batch.status else (2, "")
    return {"code": code, "message": message}


class RowWriter:
    """Makes the rows of a batch's results: of a file, if its requests came in one, or of an operation."""

    def __init__(self, batch: Batch, service: Service, *, in_file: bool) -> None:
        self._batch = batch
        self._options = service.options
        self._usage_is_missing = service.usage_is_missing
        self._in_file = in_file

    def row(self, item: Item) -> Json:
        """One row, under the key or the metadata that its request came with."""
        row: Json = {}
        if item.note != NO_KEY and self._in_file:
            row = {"key": item.custom_id}
        elif item.note != NO_KEY:
            row = {"metadata": orjson.Fragment(item.note) if item.note else {"key": item.custom_id}}
        if item.outcome in ANSWERED:
            row["response"] = self._response(item)
        else:
            row["error"] = ROW_ERRORS.get(item.outcome, {"code": 400, "message": item.rejection})
        return row

    def _response(self, item: Item) -> Json:
        refused = item.outcome is Outcome.REFUSED
        response: Json = blocked_json(item) if refused else {"candidates": [candidate_json(item)]}
        if not self._usage_is_missing(item):
            factor = HUGE if usage_is_huge(self._options, item.prompt_hash, item.attempt) else 1
            response["usageMetadata"] = usage_json(item, factor, self._options.cached_share)
        return {**response, "modelVersion": self._batch.model, "responseId": f"{item.prompt_hash & (1 << 64) - 1:016x}"}


def candidate_json(item: Item) -> Json:
    """An answer; one that was used up by thinking has no parts."""
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
    """Thinking is all output that is not in the text; `factor` is what the usage was multiplied by."""
    candidates = factor * count_output(item.text)
    usage = {
        "promptTokenCount": item.input_tokens,
        "cachedContentTokenCount": int(item.input_tokens * cached_share),
        "candidatesTokenCount": candidates,
        "thoughtsTokenCount": item.output_tokens - candidates,
        "totalTokenCount": item.input_tokens + item.output_tokens,
    }
    shown: Json = {name: count for name, count in usage.items() if count}
    return {**shown, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": item.input_tokens}]}


def page_json(shown: list[Json], numbers: list[int], size: int) -> Json:
    """A page of operations; `numbers`, those of the batches, is one longer than `size` if there is more."""
    page: Json = {"operations": shown} if shown else {}
    if len(numbers) > size:
        page["nextPageToken"] = base64.urlsafe_b64encode(b"%d" % numbers[size - 1]).decode()
    return page


def without_empty(values: Json) -> Json:
    """An object without the members that protocol buffers leave out."""
    return {name: value for name, value in values.items() if value not in (None, "", {})}


def time_json(at: float) -> str:
    """Always with microseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
