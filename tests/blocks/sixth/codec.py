"""How the made-up provider writes requests, batches and answers; pure."""

from collections.abc import Mapping
from typing import Any

import orjson

from blocks.batch import Answer, BatchPhase, BatchStatus, Obstacle, RequestForm
from blocks.errors import Complaint
from blocks.providers.chat import (
    Codes,
    Outcome,
    body_of,
    error_failure,
    following,
    read_chat,
    status_failure,
    transient,
    up_to_prompt,
    usage_of,
    with_more_tokens,
)
from blocks.providers.lenient import array, id_of, mapping, string, time_of, unexpected

CHAT = "/v1/chat/completions"
VERBOSE, BRIEF = "verbose", "brief"
CODES = Codes(
    not_run={"batch_expired", "batch_cancelled"},
    terminal={"invalid_request_error", "context_length_exceeded"},
    filtered={"content_filter"},
)
OBSTACLES = {"token_limit_exceeded": Obstacle.QUEUE_FULL, "too_many_tasks": Obstacle.TOO_LARGE}
PHASES = {
    "completed": BatchPhase.ENDED,
    "expired": BatchPhase.ENDED,
    "cancelled": BatchPhase.ENDED,
    "failed": BatchPhase.FAILED,
}


class SixthCodec:
    """JSONL of `{"custom_id", "method", "url", "body"}`."""

    head = b""
    separator = b"\n"
    tail = b"\n"

    def __init__(self, form: RequestForm, tone: str = VERBOSE) -> None:
        system = " ".join(text for text in (form.system, "Be brief." if tone == BRIEF else None) if text)
        first = {"role": "system", "content": system} if system else None
        after: dict[str, Any] = {}
        if form.temperature is not None:
            after["temperature"] = form.temperature
        if form.max_output_tokens is not None:
            after["max_completion_tokens"] = form.max_output_tokens
        if form.schema is not None:
            answer = {"name": "answer", "strict": False, "schema": form.schema}
            after["response_format"] = {"type": "json_schema", "json_schema": answer}
        body = up_to_prompt({"model": form.model}, "messages", first)
        self._between = b'","method":"POST","url":%b,"body":%b' % (orjson.dumps(CHAT), body)
        self._end = b"}]" + following(after) + b"}}"
        self._longer_end = b"}]" + following(with_more_tokens(after)) + b"}}"

    def encode(self, custom_id: str, prompt: str, *, longer: bool = False) -> bytes:
        """One line."""
        line = b'{"custom_id":"' + custom_id.encode() + self._between + orjson.dumps(prompt)
        return line + (self._longer_end if longer else self._end)


def read_status(body: Any) -> BatchStatus:
    """A batch object."""
    batch = mapping(body)
    if not id_of(batch):
        raise unexpected("sixth", "a batch without its id")
    wording = string(batch.get("status")) or "unknown"
    errors = [mapping(error) for error in array(mapping(batch.get("errors")).get("data"))]
    code = string(errors[0].get("code")) if errors else ""
    return BatchStatus(
        id=id_of(batch),
        phase=PHASES.get(wording.lower(), BatchPhase.RUNNING),
        wording=wording,
        error=string(errors[0].get("message")) if errors else None,
        created_at=time_of(batch.get("created_at")),
        obstacle=OBSTACLES.get(code),
    )


def read_page(page: Any) -> tuple[list[Mapping[str, Any]], bool]:
    """A page of the list and whether there are more."""
    items = mapping(page).get("data")
    if not isinstance(items, list):
        raise unexpected("sixth", "a list that is none")
    return [mapping(item) for item in items], bool(page.get("has_more"))


def read_row(line: Any, form: RequestForm) -> Answer | None:
    """A line of a file of answers or errors."""
    row = mapping(line)
    custom_id = string(row.get("custom_id"))
    return Answer(custom_id, *_outcome(row, form)) if custom_id else None


def _outcome(row: Mapping[str, Any], form: RequestForm) -> Outcome:
    response = mapping(row.get("response"))
    body = body_of(response.get("body"))
    usage = usage_of(body.get("usage"))
    status = response.get("status_code")
    error = row.get("error") or body.get("error")
    if error and type(status) is int and status not in range(200, 300):
        return None, usage, status_failure(status, *_code_and_message(error), CODES)
    if error:
        return None, usage, error_failure(*_code_and_message(error), CODES)
    if "choices" in body:
        return read_chat(body, usage, form)
    return None, usage, transient("no_answer", "the provider gave neither an answer nor a reason")


def _code_and_message(error: Any) -> tuple[str, str]:
    told = mapping(error)
    return string(told.get("code")) or string(told.get("type")), string(told.get("message"))


def read_error(body: Any) -> Complaint:
    """`{"error": {"message", "type", "code"}}`."""
    code, message = _code_and_message(mapping(body).get("error"))
    return Complaint(code or None, message)
