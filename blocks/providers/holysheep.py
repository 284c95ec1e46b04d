"""HolySheep AI's batch dialect.

There is no authoritative reference for this protocol: the vendor's tutorials contradict each other. The calls are
those of the German tutorial of April 2026 that this project comes from; what it leaves open is decided here and
marked [ours]. All paths stand in `PATHS`, so that one place changes when a reference appears.

The codec is pure and stands on top; the calls follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import orjson

from blocks.batch import (
    Answer,
    BatchPhase,
    BatchStatus,
    EncodedBatch,
    Failure,
    FailureKind,
    Found,
    Limits,
    PollPlan,
    RequestForm,
    Usage,
)
from blocks.entries import Option, ProviderEntry
from blocks.errors import Transient, UnknownOutcome, UsageError
from blocks.transport import Complaint, Transport

BASE_URL = "https://api.holysheep.ai/v1"
PATHS = {
    "batches": "/batches",
    "batch": "/batches/{id}",
    "results": "/batches/{id}/results",  # [ours]; the tutorial reads results by (offset, limit)
    "cancel": "/batches/{id}/cancel",  # [ours]
}
IDEMPOTENCY_HEADER = "Idempotency-Key"  # [ours]; the tutorial names a key but no place for it
RESULTS_PAGE = 1000  # results a call
UNVERIFIED, VERIFIED = "unverified", "verified"  # whether the server is known to honour the idempotency key

LIMITS = Limits(
    max_requests=10_000,
    max_bytes=64 * 1024 * 1024,  # [ours]
    max_request_bytes=4 * 1024 * 1024,  # [ours]
    max_in_flight=50,
    submissions_per_hour=6_000,
)

# Codes of the items are ours except for the split itself; one that is not listed may pass.
NOT_RUN_CODES = {"expired", "cancelled", "canceled", "queue_full"}
TERMINAL_CODES = {"invalid_request", "context_length_exceeded", "request_too_large"}
SPEND_CODES = {"insufficient_quota"}  # [ours]; of a call: waiting is of no use


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

    def encode(self, custom_id: str, prompt: str, correction: str | None = None, *, longer: bool = False) -> bytes:  # noqa: ARG002  # the dialect has no limit of output tokens
        """One request; only the prompt itself is escaped anew, all else was when the format was made."""
        note = _json_text(_correction(correction)) if correction else b""
        return b'{"custom_id":"%b","prompt":"%b%b%b%b"}' % (
            custom_id.encode(),
            self._before,
            _json_text(prompt),
            self._after,
            note,
        )


def _json_text(text: str) -> bytes:
    """The inside of a JSON string: escapes of a whole are the escapes of its parts, one after another."""
    return orjson.dumps(text)[1:-1]


def _instruction(schema: Mapping[str, Any] | None) -> str:
    if schema is None:
        return ""
    text = orjson.dumps(schema).decode()
    return f"\n\nAnswer with one JSON object and nothing else. It must match this JSON Schema:\n{text}"


def _correction(reason: str) -> str:
    return f"\n\nYour previous answer was rejected: {reason}\nAnswer again, so that it matches the JSON Schema."


def read_status(body: Any) -> BatchStatus:
    """A batch object. A status that we don't know counts as running: nothing may be concluded from it."""
    if not isinstance(body, dict) or not _batch_id(body):
        raise _unexpected("a batch without its id")
    wording = str(body.get("status", "unknown"))
    phases = {
        "completed": BatchPhase.ENDED,
        "cancelled": BatchPhase.ENDED,
        "expired": BatchPhase.ENDED,
        "failed": BatchPhase.FAILED,
    }
    total, progress = body.get("total_items"), body.get("progress")
    done = round(total * progress / 100) if isinstance(total, int) and isinstance(progress, int | float) else None
    error = body.get("error")
    return BatchStatus(
        id=_batch_id(body),
        phase=phases.get(wording, BatchPhase.RUNNING),
        wording=wording,
        total=total if isinstance(total, int) else None,
        done=done,
        error=_message_of(error) if error else None,
    )


def _batch_id(body: Mapping[str, Any]) -> str:
    """The id that an answer names; empty where it names none."""
    named = body.get("batch_id")
    return str(named) if isinstance(named, str | int) else ""


def _unexpected(what: str) -> Transient:
    return Transient(
        f"holysheep answered with {what}",
        next_step="run the same command again: it goes on from here",
        provider="holysheep",
    )


def read_page(page: Any) -> tuple[list[Any], int]:
    """A page of results and how many results there are in all."""
    items, total = (page.get("results"), page.get("total_items")) if isinstance(page, dict) else (None, None)
    if not isinstance(items, list) or not isinstance(total, int):
        raise _unexpected("results that are no page of results")
    return items, total


def read_item(item: Any) -> Answer:
    """One result. Anything that is not `success` is a failure; what names no request belongs to none."""
    if not isinstance(item, dict):
        return Answer("", None, None, Failure(FailureKind.TRANSIENT, "unknown", "a result that is no object"))
    custom_id = str(item.get("custom_id", ""))
    usage = _usage_of(item.get("usage"))
    if item.get("status") == "success":
        text = item.get("response")
        return Answer(custom_id, text if isinstance(text, str) else "", usage, None)
    error = item.get("error") or {}
    code = str(error.get("code", "unknown")) if isinstance(error, dict) else "unknown"
    failure = Failure(_failure_kind(code), code, _message_of(error) or "the provider gave no reason")
    return Answer(custom_id, None, usage, failure)


def _usage_of(usage: Any) -> Usage | None:
    """Tokens, or None where they are not both named: what is not known must not look free."""
    if not isinstance(usage, dict):
        return None
    tokens_in, tokens_out = usage.get("input_tokens"), usage.get("output_tokens")
    return Usage(tokens_in, tokens_out) if _is_count(tokens_in) and _is_count(tokens_out) else None


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 2**40


def _failure_kind(code: str) -> FailureKind:
    if code in NOT_RUN_CODES:
        return FailureKind.NOT_RUN
    if code == "content_policy":
        return FailureKind.FILTERED
    return FailureKind.TERMINAL if code in TERMINAL_CODES else FailureKind.TRANSIENT


def _message_of(error: Any) -> str:
    return str(error.get("message", "")) if isinstance(error, dict) else str(error)


def read_error(body: Any) -> Complaint:
    """`{"error": {"code", "message"}}`."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return Complaint(None, "")
    return Complaint(error.get("code"), str(error.get("message", "")))


class HolySheep:
    """HolySheep's calls. `idempotency` is `verified` where the server is known to honour the idempotency key."""

    name = "holysheep"
    polling = PollPlan(first=2.0, factor=1.5, longest=30.0)

    def __init__(
        self,
        api_key: str,
        base_url: str = BASE_URL,
        *,
        limits: Limits = LIMITS,
        polling: PollPlan | None = None,
        idempotency: str = UNVERIFIED,
    ) -> None:
        self.limits = limits
        self.polling = polling or self.polling
        self.verified_lookup = idempotency == VERIFIED
        headers = {"authorization": f"Bearer {api_key}"}
        self._http = Transport(self.name, base_url, headers, read_error, out_of_money=_out_of_money)

    def format(self, form: RequestForm) -> HolySheepCodec:
        """How to encode requests of this form."""
        return HolySheepCodec(form)

    def submit(self, batch: EncodedBatch, form: RequestForm) -> str:  # noqa: ARG002  # the form is in the body
        """Send a batch under its tag as idempotency key."""
        headers = {IDEMPOTENCY_HEADER: batch.tag}
        body = self._http.create(PATHS["batches"], batch.path, batch.bytes, headers)
        named = _batch_id(body) if isinstance(body, dict) else ""
        if not named:
            raise UnknownOutcome("holysheep accepted a batch and named no id for it", provider=self.name)
        return named

    def find(self, batch: EncodedBatch, form: RequestForm) -> Found:
        """Replay the call: the same key and body answer the first batch again, where that is verified."""
        if not self.verified_lookup:
            raise UnknownOutcome(
                f"holysheep can't tell whether the batch {batch.tag} was accepted",
                next_step="if the server is known to honour idempotency keys, add --option idempotency=verified",
                provider=self.name,
            )
        return Found(self.submit(batch, form))

    def poll(self, batch_id: str) -> BatchStatus:
        """Where the batch stands."""
        return read_status(self._http.get(PATHS["batch"].format(id=batch_id)))

    def results(self, batch_id: str, form: RequestForm) -> Iterator[Answer]:  # noqa: ARG002  # answers are read as they are
        """All items, a page at a time."""
        offset, total = 0, 1
        while offset < total:
            page = self._http.get(PATHS["results"].format(id=batch_id), offset=offset, limit=RESULTS_PAGE)
            items, total = read_page(page)
            if not items:
                return  # fewer items than promised: what is missing is counted by whoever sent the requests
            yield from map(read_item, items)
            offset += len(items)

    def cancel(self, batch_id: str) -> BatchStatus:
        """Ask to stop; finished items are kept and paid."""
        return read_status(self._http.post(PATHS["cancel"].format(id=batch_id)))

    def close(self) -> None:
        """Close all connections."""
        self._http.close()


def _out_of_money(status: int, code: str | None, retry_after: float | None) -> bool:  # noqa: ARG001  # not by these
    return code in SPEND_CODES


ENTRY = ProviderEntry(
    name="holysheep",
    title="HolySheep",
    service="HolySheep AI's batch API",
    key_variable="HOLYSHEEP_API_KEY",
    base_url=BASE_URL,
    limits=LIMITS,
    client=HolySheep,
    codec=HolySheepCodec,
    options=(
        Option(
            "idempotency",
            "`verified` once the server is known to answer a repeated Idempotency-Key with the first batch.",
            (UNVERIFIED, VERIFIED),
        ),
    ),
    emulated={"idempotency": VERIFIED},
)
