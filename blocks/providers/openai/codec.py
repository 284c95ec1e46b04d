"""OpenAI's batch dialect: a file of requests is uploaded, a batch made from it, and two files of answers are read.

The section numbers are those of docs/wire-protocols.md, §3 (OpenAI), §1.1 (a create whose answer was lost) and §7
(other services that speak the same dialect). What is sent keeps to the reference; what is read may be anything:
absent and null fields, upper-case states, `{}` for null, unknown words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from blocks.batch import (
    Answer,
    BatchPhase,
    BatchStatus,
    Failure,
    FailureKind,
    Obstacle,
    RequestForm,
    Usage,
)
from blocks.errors import Complaint
from blocks.providers.chat import (
    ChatCodec,
    Codes,
    Outcome,
    body_of,
    error_failure,
    joined,
    read_chat,
    status_failure,
    stopped,
    transient,
    up_to_prompt,
    usage_of,
)
from blocks.providers.complaints import said_of
from blocks.providers.lenient import array, id_of, is_count, mapping, string, time_of, unexpected
from blocks.providers.schemas import ANY_NUMBER, NotStrict, Subset, as_words, narrowed

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"  # what a batch's requests call

JSON_SCHEMA, JSON_OBJECT, IN_PROMPT, OFF = "json_schema", "json_object", "prompt", "off"  # how an answer gets its form
MAX_COMPLETION_TOKENS, MAX_TOKENS = "max_completion_tokens", "max_tokens"

CODES = Codes(  # of rows (§3.5)
    not_run={"batch_expired", "batch_cancelled", "batch_canceled"},
    terminal={
        "context_length_exceeded",
        "invalid_prompt",
        "invalid_request_error",
        "model_not_found",
        "string_above_max_length",
    },
    filtered={"content_filter", "content_policy_violation"},
)
OBSTACLES = {"token_limit_exceeded": Obstacle.QUEUE_FULL, "too_many_tasks": Obstacle.TOO_LARGE}  # of batches (§3.4)

# The subset that OpenAI's guide "Structured Outputs", section "Supported schemas", names (read February 2026).
STRICT = Subset(
    bounds=("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    formats={"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"},
    patterns=True,
    most_items=ANY_NUMBER,
    recursive=True,
    deepest=10,
    most_properties=5000,
    most_choices=1000,
)

# --- requests -------------------------------------------------------------------------------------------------------


class OpenAICodec(ChatCodec):
    """JSONL of `{"custom_id", "method", "url", "body"}`, bodies of chat completions or of responses (§3.3)."""

    def __init__(
        self,
        form: RequestForm,
        endpoint: str = CHAT,
        structured: str = JSON_SCHEMA,
        token_limit: str = MAX_COMPLETION_TOKENS,
    ) -> None:
        spoken = _spoken(form, structured)
        before, after = _chat_body(spoken, token_limit) if endpoint == CHAT else _responses_body(spoken)
        super().__init__(b'","method":"POST","url":%b,"body":%b' % (orjson.dumps(endpoint), before), after)


class _Spoken(NamedTuple):
    """A form as it is said to a service; `answer`: the format that structured output is asked for in."""

    form: RequestForm
    system: str | None
    answer: Mapping[str, Any] | None


def _spoken(form: RequestForm, structured: str) -> _Spoken:
    """What a service that takes no JSON Schema is asked for instead: JSON of any shape, or just words."""
    if form.schema is None or structured == OFF:
        return _Spoken(form, form.system, None)
    if structured == JSON_SCHEMA:
        return _Spoken(form, form.system, _answer_format(form.schema))
    system = "\n\n".join(text for text in (form.system, as_words(form.schema)) if text)
    return _Spoken(form, system, {} if structured == JSON_OBJECT else None)


def _chat_body(spoken: _Spoken, token_limit: str) -> tuple[bytes, dict[str, Any]]:
    """A body up to the prompt, and the members that follow its messages."""
    form = spoken.form
    after: dict[str, Any] = {} if form.temperature is None else {"temperature": form.temperature}
    if form.max_output_tokens is not None:
        after[token_limit] = form.max_output_tokens
    if spoken.answer:
        after["response_format"] = {"type": "json_schema", "json_schema": spoken.answer}
    elif spoken.answer is not None:
        after["response_format"] = {"type": "json_object"}
    system = {"role": "system", "content": spoken.system} if spoken.system else None
    return up_to_prompt({"model": form.model}, "messages", system), after


def _responses_body(spoken: _Spoken) -> tuple[bytes, dict[str, Any]]:
    """The same for responses, which the service is asked not to keep."""
    form = spoken.form
    before: dict[str, Any] = {"model": form.model, "store": False}
    if spoken.system:
        before["instructions"] = spoken.system
    after: dict[str, Any] = {} if form.temperature is None else {"temperature": form.temperature}
    if form.max_output_tokens is not None:
        after["max_output_tokens"] = form.max_output_tokens
    if spoken.answer is not None:
        kind = "json_schema" if spoken.answer else "json_object"
        after["text"] = {"format": {"type": kind, **spoken.answer}}
    return up_to_prompt(before, "input", None), after


def _answer_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Strict where the schema can be said strictly, else as it is, for the model to follow as well as it can."""
    try:
        return {"name": "answer", "strict": True, "schema": narrowed(schema, STRICT)}
    except NotStrict:
        return {"name": "answer", "strict": False, "schema": schema}


# --- batches --------------------------------------------------------------------------------------------------------

_PHASES = {
    "completed": BatchPhase.ENDED,
    "expired": BatchPhase.ENDED,
    "cancelled": BatchPhase.ENDED,
    "canceled": BatchPhase.ENDED,
    "failed": BatchPhase.FAILED,
}


def read_status(body: Any) -> BatchStatus:
    """A batch object (§3.4). A state that we don't know counts as running: nothing may be concluded from it."""
    batch = batch_of(body)
    named = id_of(batch)
    if not named:
        raise unexpected("openai", "a batch without its id")
    wording = string(batch.get("status")) or "unknown"
    phase = _PHASES.get(wording.lower(), BatchPhase.RUNNING)
    if phase is BatchPhase.FAILED and string(batch.get("output_file_id")):
        phase = BatchPhase.ENDED  # not OpenAI's way; but what was answered was paid
    code, error = _errors_of(batch)
    return BatchStatus(
        id=named,
        phase=phase,
        wording=wording,
        error=error,
        created_at=time_of(batch.get("created_at")),
        obstacle=OBSTACLES.get(code or ""),
    )


def batch_of(body: Any) -> Mapping[str, Any]:
    """A batch, also where it comes wrapped: Together answers a create with `{"job", "warning"}` (§7)."""
    batch = mapping(body)
    return mapping(batch.get("job")) if "id" not in batch and "job" in batch else batch


def _errors_of(batch: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The code and the sentence of a batch's errors, the one that may pass first; codes lead the sentence."""
    errors = batch.get("errors") or batch.get("error")
    data = errors.get("data") if isinstance(errors, Mapping) and "data" in errors else errors
    listed = [data] if isinstance(data, Mapping | str) else data
    found = [_error_of(error) for error in listed if error] if isinstance(listed, list) else []
    if not found:
        return None, None
    found.sort(key=lambda error: OBSTACLES.get(error[0]) is not Obstacle.QUEUE_FULL)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    code, message = found[0]
    said = ": ".join(part for part in (code, message) if part)
    return code or None, f"{said or 'no reason given'}{more}"


def _error_of(error: Any) -> tuple[str, str]:
    """Code and message of an error, with the line of the input file that it is about."""
    code, message, _ = said_of(error)
    line = mapping(error).get("line")
    return code, f"{message} (line {line})" if is_count(line) else message


def read_page(page: Any) -> tuple[list[Mapping[str, Any]], bool]:
    """A page of a list and whether there are more."""
    items = page.get("data") if isinstance(page, Mapping) else page
    if not isinstance(items, list):
        raise unexpected("openai", "a list that is none")
    return [item for item in items if isinstance(item, Mapping)], isinstance(page, Mapping) and bool(
        page.get("has_more")
    )


# --- answers --------------------------------------------------------------------------------------------------------


def read_row(row: Any, form: RequestForm) -> Answer | None:
    """A line of an output or error file; None for one that names no request."""
    custom_id = string(mapping(row).get("custom_id"))
    return Answer(custom_id, *_outcome(row, form)) if custom_id else None


def _outcome(row: Mapping[str, Any], form: RequestForm) -> Outcome:
    """The five kinds of line (§3.5): answered, refused with an HTTP status, expired or cancelled, timed out, unsaid."""
    response = mapping(row.get("response"))
    body = body_of(response.get("body"))
    usage = usage_of(body.get("usage"))
    if row.get("error"):
        return None, usage, error_failure(*_error_of(row["error"]), CODES)
    status = response.get("status_code")
    if type(status) is int and status not in range(200, 300):
        return None, usage, status_failure(status, *_error_of(body or response.get("body")), CODES)
    if body.get("error"):
        return None, usage, error_failure(*_error_of(body["error"]), CODES)
    if "choices" in body:
        return read_chat(body, usage, form)
    if "output" in body:
        return _read_response(body, usage, form)
    return None, usage, transient("no_answer", "the provider gave neither an answer nor a reason")


def _read_response(body: Mapping[str, Any], usage: Usage | None, form: RequestForm) -> Outcome:
    """`output[*].content[*]`; anything that is not complete has no answer."""
    items = [mapping(item) for item in body["output"]] if isinstance(body["output"], list) else []
    parts = [part for item in items for part in array(item.get("content"))]
    for part in map(mapping, parts):
        if part.get("type") == "refusal":
            return None, usage, Failure(FailureKind.REFUSED, "refusal", string(part.get("refusal")), billed=True)
    state = string(body.get("status")) or "completed"
    if state != "completed":
        reason = mapping(body.get("incomplete_details")).get("reason")
        failure = stopped(reason, form) or transient(state, string(reason))
        return None, usage, failure._replace(billed=True)
    return joined(parts), usage, None


def read_error(body: Any) -> Complaint:
    """`{"error": {"message", "type", "param", "code"}}`, or another shape; a type stands for a code."""
    code, message = _error_of(body)
    return Complaint(code or None, message)
