"""Mistral's batch jobs: small ones carry their requests with them, large ones refer to a file that was uploaded.

The section numbers are those of docs/wire-protocols.md, §4 (Mistral) and §1.1 (a create whose answer was lost). What
the lines of error files, partial results and errors look like is not documented: what is read may be anything.
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
)
from blocks.errors import Complaint
from blocks.providers.chat import (
    ChatCodec,
    Codes,
    Outcome,
    body_of,
    error_failure,
    read_chat,
    status_failure,
    stopped,
    transient,
    up_to_prompt,
    usage_of,
)
from blocks.providers.complaints import said_of
from blocks.providers.lenient import array, id_of, is_count, mapping, string, time_of, unexpected
from blocks.providers.schemas import NotStrict, Subset, as_words, narrowed

CODES = Codes(  # of rows; the documentation names none of them [?]
    not_run={"batch_cancelled", "batch_expired", "cancelled", "canceled", "expired", "timeout_exceeded"},
    terminal={
        "context_length_exceeded",
        "extra_forbidden",
        "invalid_model",
        "invalid_request_error",
        "validation_error",
    },
    filtered={"content_filter", "content_policy_violation"},
)

# Mistral does not say which words it takes [?]. Without any of the optional ones an answer still gets its form; a word
# that is refused would cost all rows of a job.
STRICT = Subset()

# --- requests -------------------------------------------------------------------------------------------------------


class MistralCodec(ChatCodec):
    """JSONL of `{"custom_id", "body"}`, bodies of chat completions without the model, which the job names (§4)."""

    def __init__(self, form: RequestForm) -> None:
        system, answer = _spoken(form)
        first = {"role": "system", "content": system} if system else None
        after: dict[str, Any] = {} if form.temperature is None else {"temperature": form.temperature}
        if form.max_output_tokens is not None:
            after["max_tokens"] = form.max_output_tokens
        if answer is not None:
            after["response_format"] = answer
        super().__init__(b'","body":' + up_to_prompt({}, "messages", first), after)


def _spoken(form: RequestForm) -> tuple[str | None, dict[str, Any] | None]:
    """The system text and the format of the answer; a schema that can't be given strictly is said in words."""
    if form.schema is None:
        return form.system, None
    try:
        strict = {"name": "answer", "strict": True, "schema": narrowed(form.schema, STRICT)}
    except NotStrict:
        texts = [form.system, as_words(form.schema)]
        return "\n\n".join(text for text in texts if text), {"type": "json_object"}
    return form.system, {"type": "json_schema", "json_schema": strict}


def inline_order(order: Mapping[str, Any], lines: bytes) -> bytes:
    """The order for a job that carries its requests, which come as lines: these become a list.

    It is never parsed: within a line there is no line break, as JSON escapes them.
    """
    requests = lines.rstrip(b"\n").replace(b"\n", b",")
    return b"".join([orjson.dumps(order)[:-1], b',"requests":[', requests, b"]}"])


# --- jobs -----------------------------------------------------------------------------------------------------------

_PHASES = {
    "SUCCESS": BatchPhase.ENDED,
    "TIMEOUT_EXCEEDED": BatchPhase.ENDED,
    "CANCELLED": BatchPhase.ENDED,
    "CANCELED": BatchPhase.ENDED,
    "FAILED": BatchPhase.FAILED,
}


def read_status(body: Any) -> BatchStatus:
    """A job (§4). A state that we don't know counts as running: nothing may be concluded from it."""
    job = mapping(body)
    named = id_of(job)
    if not named:
        raise unexpected("mistral", "a job without its id")
    wording = string(job.get("status")) or "unknown"
    phase = _PHASES.get(wording.upper(), BatchPhase.RUNNING)
    if phase is BatchPhase.FAILED and _has_answers(job):
        phase = BatchPhase.ENDED
    return BatchStatus(
        id=named,
        phase=phase,
        wording=wording,
        error=_errors_of(job),
        created_at=time_of(job.get("created_at")),
        early=phase is BatchPhase.ENDED and wording.upper() != "SUCCESS",  # the rest stands in neither file
    )


def _has_answers(job: Mapping[str, Any]) -> bool:
    """Whether something can be read of a job that failed: what was answered was paid."""
    succeeded = job.get("succeeded_requests")
    files = string(job.get("output_file")) or string(job.get("error_file"))
    return bool(files or array(job.get("outputs")) or (is_count(succeeded) and succeeded))


def _errors_of(job: Mapping[str, Any]) -> str | None:
    """What went wrong in a job, from `[{"message", "count"}]`: the most frequent, and how many there are beside it."""
    found = [error for error in array(job.get("errors")) if isinstance(error, str) or mapping(error)]
    if not found:
        return None
    message, times = max(map(_counted, found), key=lambda error: error[1])
    said = f"{message or 'no reason given'}{f' ({times} times)' if times > 1 else ''}"
    return f"{said} (and {len(found) - 1} more)" if len(found) > 1 else said


def _counted(error: Any) -> tuple[str, int]:
    times = mapping(error).get("count")
    return complaint_of(error)[1], times if is_count(times) else 1


def read_page(page: Any) -> tuple[list[Mapping[str, Any]], int | None]:
    """A page of a list, and how many items the whole list has where it says so."""
    items, total = mapping(page).get("data"), mapping(page).get("total")
    if not isinstance(items, list):
        raise unexpected("mistral", "a list that is none")
    return [item for item in items if isinstance(item, Mapping)], total if is_count(total) else None


def complaint_of(error: Any) -> tuple[str, str]:
    """Code and message of an error in any of its forms (§4). A word says more than one of Mistral's numbers."""
    code, message, kind = said_of(error)
    return kind if kind and (not code or code.isdecimal()) else code, message


def read_error(body: Any) -> Complaint:
    """The body of a refusal."""
    code, message = complaint_of(body)
    return Complaint(code or None, message)


# --- answers --------------------------------------------------------------------------------------------------------


def read_row(row: Any, form: RequestForm) -> Answer | None:
    """A line of an output or error file, or a row within a job; None for one that names no request."""
    custom_id = string(mapping(row).get("custom_id"))
    return Answer(custom_id, *_outcome(row, form)) if custom_id else None


def _outcome(row: Mapping[str, Any], form: RequestForm) -> Outcome:
    """Answered, refused with an HTTP status, failed with a reason, or nothing said (§4)."""
    response = mapping(row.get("response"))
    body = body_of(response.get("body"))
    usage = usage_of(body.get("usage"))
    status = response.get("status_code")
    refused = status if type(status) is int and status not in range(200, 300) else None
    if row.get("error") or refused is not None:
        return None, usage, _failure(row.get("error") or body, refused)
    if "choices" in body:
        return read_chat(body, usage, form, _stopped)
    if body:
        return None, usage, _failure(body, None)
    return None, usage, transient("no_answer", "the provider gave neither an answer nor a reason")


def _failure(error: Any, status: int | None) -> Failure:
    """An error by its HTTP status, where it has one and its code does not say more."""
    code, message = complaint_of(error)
    failure = error_failure(code, message, CODES)
    if status is None or failure.kind in {FailureKind.NOT_RUN, FailureKind.FILTERED}:
        return failure
    return status_failure(status, code, message, CODES)


def _stopped(reason: Any, form: RequestForm) -> Failure | None:
    """Mistral's own reasons beside those that all chat completions have."""
    if reason == "model_length":
        return Failure(FailureKind.TERMINAL, "length", "the answer was cut off at the model's own limit")
    if reason == "error":
        return transient("error", "the model failed while it answered")
    return stopped(reason, form)
