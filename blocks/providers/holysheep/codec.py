"""HolySheep AI's batch dialect.

There is no authoritative reference for this protocol: the vendor's tutorials contradict each other. The calls are
those of the German tutorial of April 2026 that this project comes from; what it leaves open is decided here and
marked [ours]. All paths stand in `PATHS`, so that one place changes when a reference appears.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from blocks.batch import (
    Answer,
    BatchPhase,
    BatchStatus,
    Failure,
    FailureKind,
    RequestForm,
    Usage,
)
from blocks.errors import Complaint, UsageError
from blocks.providers.complaints import said_of
from blocks.providers.lenient import is_count, mapping, string, unexpected

# Codes of the items are ours except for the split itself; one that is not listed may pass.
NOT_RUN_CODES = {"expired", "cancelled", "canceled", "queue_full"}
TERMINAL_CODES = {"invalid_request", "context_length_exceeded", "request_too_large"}


class HolySheepCodec:
    """`{"model", "priority", "requests": [{"custom_id", "prompt"}]}`; system text and schema are part of the prompt."""

    separator = b","
    tail = b"]}"

    def __init__(self, form: RequestForm, priority: str = "normal") -> None:
        if form.temperature is not None:
            raise UsageError(
                "holysheep's batches take no temperature", next_step="leave `temperature` out of the job file"
            )
        head = orjson.dumps({"model": form.model, "priority": priority})
        self.head = head[:-1] + b',"requests":['
        self._before = _json_text(f"{form.system.rstrip()}\n\n" if form.system else "")
        self._after = _json_text(_instruction(form.schema))

    def encode(self, custom_id: str, prompt: str, *, longer: bool = False) -> bytes:  # noqa: ARG002  # the dialect has no limit of output tokens
        """One request; only the prompt itself is escaped anew, all else was when the format was made."""
        text = _json_text(prompt)
        return b'{"custom_id":"%b","prompt":"%b%b%b"}' % (custom_id.encode(), self._before, text, self._after)


def _json_text(text: str) -> bytes:
    """The inside of a JSON string: escapes of a whole are the escapes of its parts, one after another."""
    return orjson.dumps(text)[1:-1]


def _instruction(schema: Mapping[str, Any] | None) -> str:
    if schema is None:
        return ""
    text = orjson.dumps(schema).decode()
    return f"\n\nAnswer with one JSON object and nothing else. It must match this JSON Schema:\n{text}"


def read_status(body: Any) -> BatchStatus:
    """A batch object. A status that we don't know counts as running: nothing may be concluded from it."""
    if not isinstance(body, dict) or not batch_id_of(body):
        raise unexpected("holysheep", "a batch without its id")
    wording = str(body.get("status", "unknown"))
    phases = {
        "completed": BatchPhase.ENDED,
        "cancelled": BatchPhase.ENDED,
        "expired": BatchPhase.ENDED,
        "failed": BatchPhase.FAILED,
    }
    error = body.get("error")
    return BatchStatus(
        id=batch_id_of(body),
        phase=phases.get(wording, BatchPhase.RUNNING),
        wording=wording,
        error=said_of(error).message or "no reason given" if error else None,
    )


def batch_id_of(body: Any) -> str:
    """The id that an answer names; empty where it names none."""
    named = mapping(body).get("batch_id")
    return str(named) if isinstance(named, str | int) else ""


def read_page(page: Any) -> tuple[list[Any], int]:
    """A page of results and how many results there are in all."""
    items, total = (page.get("results"), page.get("total_items")) if isinstance(page, dict) else (None, None)
    if not isinstance(items, list) or not is_count(total):
        raise unexpected("holysheep", "results that are no page of results")
    return items, total


def read_item(item: Any) -> Answer | None:
    """One result. Anything that is not `success` is a failure; None for what names no request."""
    row = mapping(item)
    custom_id = string(row.get("custom_id"))
    if not custom_id:
        return None
    usage = _usage_of(row.get("usage"))
    if row.get("status") == "success":
        return Answer(custom_id, string(row.get("response")), usage, None)
    code, message, _ = said_of(row.get("error"))
    failure = Failure(_failure_kind(code), code or "unknown", message or "the provider gave no reason")
    return Answer(custom_id, None, usage, failure)


def _usage_of(usage: Any) -> Usage | None:
    """Tokens, or None where they are not both named: what is not known must not look free."""
    if not isinstance(usage, dict):
        return None
    tokens_in, tokens_out = usage.get("input_tokens"), usage.get("output_tokens")
    return Usage(tokens_in, tokens_out) if is_count(tokens_in) and is_count(tokens_out) else None


def _failure_kind(code: str) -> FailureKind:
    if code in NOT_RUN_CODES:
        return FailureKind.NOT_RUN
    if code == "content_policy":
        return FailureKind.FILTERED
    return FailureKind.TERMINAL if code in TERMINAL_CODES else FailureKind.TRANSIENT


def read_error(body: Any) -> Complaint:
    """`{"error": {"code", "message"}}`."""
    code, message, _ = said_of(body)
    return Complaint(code or None, message)
