"""OpenAI's batch dialect: a file of requests is uploaded, a batch made from it, and two files of answers are read.

The section numbers are those of the PROTOCOLS reference, §3 (OpenAI), §1.1 (a create whose answer was lost) and §7
(other services that speak the same dialect). What is sent keeps to the reference; what is read may be anything:
absent and null fields, upper-case states, `{}` for null, unknown words.

The codec is pure and stands on top; the calls follow.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeGuard

import orjson

from blocks.batch import (
    Answer,
    BatchPhase,
    BatchStatus,
    EncodedBatch,
    Failure,
    FailureKind,
    Limits,
    PollPlan,
    RequestForm,
    Usage,
)
from blocks.errors import BatchRefused, NotFound, Transient, UnknownOutcome
from blocks.transport import Transport

log = logging.getLogger("batchwerk.openai")

BASE_URL = "https://api.openai.com/v1"
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"  # what a batch's requests call
PATHS = {
    "files": "/files",
    "content": "/files/{id}/content",
    "batches": "/batches",
    "batch": "/batches/{id}",
    "cancel": "/batches/{id}/cancel",
}
METADATA_KEY = "batchwerk"  # under which a batch carries our tag
WINDOW = "24h"
FILES_PAGE, BATCHES_PAGE = 1000, 100  # of at most 10,000 and 100 (§3.2, §3.4)
SETTLE = 600.0  # seconds that a new batch may stay invisible in lists (§1.1)
CLOCK_SLACK = 3600.0  # seconds by which the provider's clock and ours may differ when lists are read back to a time

LIMITS = Limits(  # §3.6
    max_requests=50_000,
    max_bytes=200_000_000,
    submissions_per_minute=33,  # 2,000 an hour
)

# Codes of rows and batches (§3.4, §3.5); one that is not listed may pass.
EXCUSED_CODES = {"batch_expired", "batch_cancelled", "batch_canceled"}
FINAL_CODES = {
    "content_filter",
    "content_policy_violation",
    "context_length_exceeded",
    "invalid_prompt",
    "invalid_request_error",
    "model_not_found",
    "string_above_max_length",
}
SPEND_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
PASSING_STATUSES = {408, 409, 425, 429}  # beside those from 500 (§3.6)
QUEUE_FULL = "token_limit_exceeded"  # of a batch: passes when other batches of the same model have finished (§3.4)

# --- requests -------------------------------------------------------------------------------------------------------


class OpenAIFormat:
    """JSONL of `{"custom_id", "method", "url", "body"}`, bodies of chat completions or of responses (§3.3)."""

    head = b""
    separator = b"\n"
    tail = b"\n"

    def __init__(self, form: RequestForm, endpoint: str = CHAT) -> None:
        before, after = _chat_body(form) if endpoint == CHAT else _responses_body(form)
        self._between = b'","method":"POST","url":%b,"body":%b' % (orjson.dumps(endpoint), before)
        self._end = b"}]" + after + b"}}"
        self._correction = "Answer again." if form.schema is None else _AGAIN

    def encode(self, custom_id: str, prompt: str, correction: str | None = None) -> bytes:
        """One request; only the prompt itself is escaped anew, all else was when the format was made."""
        line = b'{"custom_id":"' + custom_id.encode() + self._between + orjson.dumps(prompt)
        if correction:
            note = f"Your previous answer was rejected: {correction}\n{self._correction}"
            line += b'},{"role":"user","content":' + orjson.dumps(note)
        return line + self._end


_AGAIN = "Answer again, so that it matches the JSON Schema."


def _chat_body(form: RequestForm) -> tuple[bytes, bytes]:
    """A body up to the prompt, and from the end of the messages to before its last brace."""
    after: dict[str, Any] = {}
    if form.max_output_tokens is not None:
        after["max_completion_tokens"] = form.max_output_tokens
    if form.schema is not None:
        after["response_format"] = {"type": "json_schema", "json_schema": _answer_format(form.schema)}
    system = {"role": "system", "content": form.system} if form.system else None
    return _up_to_prompt({"model": form.model}, "messages", system), _members(after)


def _responses_body(form: RequestForm) -> tuple[bytes, bytes]:
    """The same for responses, which the service is asked not to keep."""
    before: dict[str, Any] = {"model": form.model, "store": False}
    if form.system:
        before["instructions"] = form.system
    after: dict[str, Any] = {}
    if form.max_output_tokens is not None:
        after["max_output_tokens"] = form.max_output_tokens
    if form.schema is not None:
        after["text"] = {"format": {"type": "json_schema", **_answer_format(form.schema)}}
    return _up_to_prompt(before, "input", None), _members(after)


def _up_to_prompt(members: Mapping[str, Any], list_name: str, first: Mapping[str, str] | None) -> bytes:
    lead = b"" if first is None else orjson.dumps(first) + b","
    return b'%b,"%b":[%b{"role":"user","content":' % (orjson.dumps(members)[:-1], list_name.encode(), lead)


def _members(members: Mapping[str, Any]) -> bytes:
    """The members of an object as they follow others: each after a comma."""
    return b"," + orjson.dumps(members)[1:-1] if members else b""


def _answer_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Strict where the schema can be said strictly, else as it is, for the model to follow as well as it can."""
    try:
        return {"name": "answer", "strict": True, "schema": strict_schema(schema)}
    except NotStrict:
        return {"name": "answer", "strict": False, "schema": schema}


# --- schemas --------------------------------------------------------------------------------------------------------

# The subset that OpenAI's guide "Structured Outputs", section "Supported schemas", names (read February 2026).
DEEPEST, MOST_PROPERTIES, MOST_CHOICES = 10, 5000, 1000
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_TYPES = {"string", "number", "integer", "boolean", "null", "object", "array"}
_LOCAL_REF = re.compile(r"#(?:/(?:\$defs|definitions)/([^/~%]+))?")


class NotStrict(Exception):
    """A schema with a part that strict mode has no words for, such as an object of any keys."""


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema in the strict subset: every object closed, every property required.

    Constraints that the subset lacks are left out: answers are checked against the whole schema afterwards. Raises
    `NotStrict` where leaving out would change what is asked for.
    """
    if _types_of(schema) != ["object"]:
        raise NotStrict("the root is not an object")
    return _Strict(schema).root()


class _Strict:
    """One schema on its way into the subset, with what is counted over all of its parts."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._properties = 0
        self._choices = 0
        named = {**_mapping(schema.get("definitions")), **_mapping(schema.get("$defs"))}
        self._defs = {str(name): part for name, part in named.items()}

    def root(self) -> dict[str, Any]:
        strict = self._part(self._schema, 1)
        defs = {name: self._part(part, 1) for name, part in self._defs.items()}
        return {**strict, "$defs": defs} if defs else strict

    def _part(self, part: Any, depth: int) -> dict[str, Any]:
        if not isinstance(part, Mapping) or depth > DEEPEST:
            raise NotStrict("a part that may be anything, or is nested too deep")
        if "$ref" in part:
            return {"$ref": self._reference(part["$ref"])}
        inner = self._union(part, depth) if "anyOf" in part or "oneOf" in part else self._typed(part, depth)
        notes = {name: part[name] for name in ("title", "description") if isinstance(part.get(name), str)}
        return {**notes, **inner}

    def _reference(self, reference: Any) -> str:
        found = _LOCAL_REF.fullmatch(reference) if isinstance(reference, str) else None
        if found is None or (found[1] is not None and found[1] not in self._defs):
            raise NotStrict(f"the reference {reference!r}")
        return f"#/$defs/{found[1]}" if found[1] is not None else "#"

    def _union(self, part: Mapping[str, Any], depth: int) -> dict[str, Any]:
        """`oneOf` becomes `anyOf`: that only one matches is for the check afterwards."""
        if "type" in part or "properties" in part or "allOf" in part or ("anyOf" in part and "oneOf" in part):
            raise NotStrict("a union beside other words")
        branches = part.get("anyOf", part.get("oneOf"))
        if not isinstance(branches, list) or not branches:
            raise NotStrict("a union of nothing")
        return {"anyOf": [self._part(branch, depth) for branch in branches]}

    def _typed(self, part: Mapping[str, Any], depth: int) -> dict[str, Any]:
        if "allOf" in part:
            raise NotStrict("allOf")
        types = _types_of(part)
        strict: dict[str, Any] = {"type": types[0] if len(types) == 1 else types}
        if "enum" in part or "const" in part:
            strict["enum"] = self._enum(part, types)
        if "string" in types:
            strict.update(_text_limits(part))
        if "number" in types or "integer" in types:
            strict.update({name: part[name] for name in _BOUNDS if _is_number(part.get(name))})
        if "array" in types:
            strict.update(self._array(part, depth))
        if "object" in types:
            strict.update(self._object(part, depth))
        return strict

    def _enum(self, part: Mapping[str, Any], types: list[str]) -> list[Any]:
        """The choices that are of the types; with one of another type the schema would be refused."""
        fitting = {*types, "integer"} if "number" in types else {*types}
        values = [value for value in _choices_of(part) if _type_of(value) in fitting]
        self._choices += len(values)
        if not values or self._choices > MOST_CHOICES:
            raise NotStrict("an enum of no plain values, or of too many")
        return values

    def _array(self, part: Mapping[str, Any], depth: int) -> dict[str, Any]:
        if "prefixItems" in part:
            raise NotStrict("prefixItems")
        counts = {name: part[name] for name in ("minItems", "maxItems") if _is_count(part.get(name))}
        return {"items": self._part(part.get("items"), depth + 1), **counts}

    def _object(self, part: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = _mapping(part.get("properties"))
        self._properties += len(properties)
        required = part.get("required")
        unnamed = set(required) - properties.keys() if isinstance(required, list) else set()
        if not properties or unnamed or self._properties > MOST_PROPERTIES:
            raise NotStrict("an object whose properties are not all named, or too many")
        return {
            "properties": {name: self._part(inner, depth + 1) for name, inner in properties.items()},
            "required": list(properties),
            "additionalProperties": False,
        }


def _types_of(part: Mapping[str, Any]) -> list[str]:
    """The types that a schema names, or that its other words imply."""
    named = part.get("type")
    if named is None and ("enum" in part or "const" in part):
        named = list(dict.fromkeys(map(_type_of, _choices_of(part))))
    elif named is None:
        named = "object" if "properties" in part else "array" if "items" in part else None
    types = [kind for kind in (named if isinstance(named, list) else [named]) if isinstance(kind, str)]
    if not types or not _TYPES.issuperset(types):
        raise NotStrict("a part without a type")
    return types


def _choices_of(part: Mapping[str, Any]) -> list[Any]:
    return [part["const"]] if "const" in part else _list(part["enum"])


def _type_of(value: Any) -> str | None:
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
    return kinds.get(type(value))


def _text_limits(part: Mapping[str, Any]) -> dict[str, str]:
    """A pattern that looks around is refused by the service, and one row after another with it."""
    limits = {}
    pattern, form = part.get("pattern"), part.get("format")
    if isinstance(pattern, str) and "(?" not in pattern:
        limits["pattern"] = pattern
    if isinstance(form, str) and form in _FORMATS:
        limits["format"] = form
    return limits


_NOTHING: Mapping[str, Any] = {}


def _mapping(value: Any) -> Mapping[str, Any]:
    """An object, or an empty one in the place of anything else; `dict` first, as asking for the other is slow."""
    return value if isinstance(value, dict) or isinstance(value, Mapping) else _NOTHING  # noqa: SIM101


def _is_number(value: Any) -> bool:
    return type(value) in {int, float}


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
    batch = _batch_of(body)
    named = id_of(batch)
    if not named:
        raise _unexpected("a batch without its id")
    wording = _text(batch.get("status")) or "unknown"
    phase = _PHASES.get(wording.lower(), BatchPhase.RUNNING)
    if phase is BatchPhase.FAILED and _text(batch.get("output_file_id")):
        phase = BatchPhase.ENDED  # not OpenAI's way; but what was answered was paid
    counts = _mapping(batch.get("request_counts"))
    total, parts = counts.get("total"), [counts.get("completed"), counts.get("failed")]
    known = [part for part in parts if _is_count(part)]
    code, error = _errors_of(batch)
    return BatchStatus(
        id=named,
        phase=phase,
        wording=wording,
        total=total if _is_count(total) and total else None,  # 0 while it is validated
        done=sum(known) if known else None,
        error=error,
        created_at=_time_of(batch.get("created_at")),
        error_code=code,
    )


def _batch_of(body: Any) -> Mapping[str, Any]:
    """A batch, also where it comes wrapped: Together answers a create with `{"job", "warning"}` (§7)."""
    batch = _mapping(body)
    return _mapping(batch.get("job")) if "id" not in batch and "job" in batch else batch


def id_of(body: Mapping[str, Any]) -> str:
    """The id that an answer names; empty where it names none."""
    return _text(body.get("id"))


def _errors_of(batch: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The code and the sentence of a batch's errors, the one that may pass first; codes lead the sentence."""
    errors = batch.get("errors") or batch.get("error")
    data = errors.get("data") if isinstance(errors, Mapping) and "data" in errors else errors
    listed = [data] if isinstance(data, Mapping | str) else data
    found = [_error_of(error) for error in listed if error] if isinstance(listed, list) else []
    if not found:
        return None, None
    found.sort(key=lambda error: error[0] != QUEUE_FULL)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    code, message = found[0]
    said = ": ".join(part for part in (code, message) if part)
    return code or None, f"{said or 'no reason given'}{more}"


def _error_of(error: Any) -> tuple[str, str]:
    """Code and message of an error in any of its forms; the code of one that has none is its type."""
    if not isinstance(error, Mapping):
        return "", _text(error)
    line = f" (line {error['line']})" if _is_count(error.get("line")) else ""
    code = error.get("code")
    named = str(code) if type(code) is int else _text(code)
    return named or _text(error.get("type")), f"{_text(error.get('message'))}{line}"


def _time_of(value: Any) -> datetime | None:
    """Unix seconds, or a date as text (Together)."""
    try:
        if _is_number(value):
            return datetime.fromtimestamp(value, UTC)
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


def read_page(page: Any) -> tuple[list[Mapping[str, Any]], bool]:
    """A page of a list and whether there are more."""
    items = page.get("data") if isinstance(page, Mapping) else page
    if not isinstance(items, list):
        raise _unexpected("a list that is none")
    return [item for item in items if isinstance(item, Mapping)], isinstance(page, Mapping) and bool(
        page.get("has_more")
    )


def _unexpected(what: str) -> Transient:
    return Transient(
        f"openai answered with {what}",
        next_step="run the same command again: it goes on from here",
        provider="openai",
    )


# --- answers --------------------------------------------------------------------------------------------------------


def read_line(line: bytes) -> Answer | None:
    """A line of an output or error file; None for one that can't be read or names no request."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    custom_id = row.get("custom_id") if isinstance(row, dict) else None
    return Answer(custom_id, *_outcome(row)) if isinstance(custom_id, str) and custom_id else None


_Outcome = tuple[str | None, Usage | None, Failure | None]


def _outcome(row: Mapping[str, Any]) -> _Outcome:
    """The five kinds of line (§3.5): answered, refused with an HTTP status, expired or cancelled, timed out, unsaid."""
    response = _mapping(row.get("response"))
    body = _body_of(response.get("body"))
    usage = _usage_of(body.get("usage"))
    if row.get("error"):
        return None, usage, _failure(row["error"])
    status = response.get("status_code")
    if type(status) is int and status not in range(200, 300):
        return None, usage, _status_failure(status, body)
    if body.get("error"):
        return None, usage, _failure(body["error"])
    if "choices" in body:
        return _read_chat(body, usage)
    if "output" in body:
        return _read_response(body, usage)
    return None, usage, _passing("no_answer", "the provider gave neither an answer nor a reason")


def _body_of(body: Any) -> Mapping[str, Any]:
    """A body, also where it is JSON in a string."""
    if isinstance(body, str):
        try:
            body = orjson.loads(body)
        except orjson.JSONDecodeError:
            return {}
    return _mapping(body)


def _read_chat(body: Mapping[str, Any], usage: Usage | None) -> _Outcome:
    choices = body["choices"]
    choice = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
    message = _mapping(choice.get("message"))
    if refusal := _text(message.get("refusal")):
        return None, usage, Failure(FailureKind.FINAL, "refusal", refusal)
    if failure := _stopped(choice.get("finish_reason")):
        return None, usage, failure
    if not message:
        return None, usage, _passing("no_answer", "the answer has no message")
    return _joined(message.get("content")), usage, None


def _read_response(body: Mapping[str, Any], usage: Usage | None) -> _Outcome:
    """`output[*].content[*]`; anything that is not complete has no answer."""
    items = [_mapping(item) for item in body["output"]] if isinstance(body["output"], list) else []
    parts = [part for item in items for part in _list(item.get("content"))]
    for part in map(_mapping, parts):
        if part.get("type") == "refusal":
            return None, usage, Failure(FailureKind.FINAL, "refusal", _text(part.get("refusal")))
    state = _text(body.get("status")) or "completed"
    if state != "completed":
        reason = _mapping(body.get("incomplete_details")).get("reason")
        return None, usage, _stopped(reason) or _passing(state, _text(reason))
    return _joined(parts), usage, None


def _stopped(reason: Any) -> Failure | None:
    """Why an answer ended before its end."""
    if reason in ("length", "max_output_tokens", "max_tokens"):
        return _passing("length", "the answer was cut off at the limit of output tokens")
    if reason == "content_filter":
        return Failure(FailureKind.FINAL, "content_filter", "the provider's filter stopped the answer")
    return None


def _joined(content: Any) -> str:
    """Text that may come as a string or in parts; what is not text is no part of it."""
    if isinstance(content, str):
        return content
    return "".join(part if isinstance(part, str) else _text(_mapping(part).get("text")) for part in _list(content))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _failure(error: Any) -> Failure:
    """An error by its code."""
    code, message = _error_of(error)
    kind = FailureKind.PASSING
    if code in EXCUSED_CODES:
        kind = FailureKind.EXCUSED
    elif code in FINAL_CODES:
        kind = FailureKind.FINAL
    return Failure(kind, code or "unknown", message or "the provider gave no reason")


def _status_failure(status: int, body: Mapping[str, Any]) -> Failure:
    """An HTTP error by its status; 0 is what some rows say that never ran (§3.5)."""
    final = 400 <= status < 500 and status not in PASSING_STATUSES
    code, message = _error_of(body.get("error"))
    said = message or f"the provider answered {status} and gave no reason"
    return Failure(FailureKind.FINAL if final else FailureKind.PASSING, code or f"http_{status}", said)


def _passing(code: str, message: str) -> Failure:
    return Failure(FailureKind.PASSING, code, message)


def _usage_of(usage: Any) -> Usage | None:
    """Tokens (§3.7), or None where they are not both named: what is not known must not look free."""
    if not isinstance(usage, dict):
        return None
    chat = "prompt_tokens" in usage
    tokens_in = usage.get("prompt_tokens" if chat else "input_tokens")
    tokens_out = usage.get("completion_tokens" if chat else "output_tokens")
    if not (_is_count(tokens_in) and _is_count(tokens_out)):
        return None
    cached = _mapping(usage.get("prompt_tokens_details" if chat else "input_tokens_details")).get("cached_tokens")
    return Usage(tokens_in, tokens_out, min(cached, tokens_in) if _is_count(cached) else 0)


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 2**40


def read_error(body: Any) -> tuple[str | None, str]:
    """`{"error": {"message", "type", "param", "code"}}` as (code, message); without a code the type stands for it."""
    code, message = _error_of(_mapping(body).get("error"))
    return code or None, message


# --- calls ----------------------------------------------------------------------------------------------------------

_KEY = re.compile(r"\bsk-[\w*.…-]+")  # OpenAI repeats a wrong key, masked in the middle; others may not mask it


class OpenAI:
    """OpenAI's calls. A batch carries its tag as metadata and in the name of its file, so that it can be found again.

    `settle`: seconds for which a batch that no list shows may still appear (§1.1).
    """

    name = "openai"
    verified_lookup = True
    polling = PollPlan(first=60.0, factor=1.5, longest=300.0)  # §11

    def __init__(
        self,
        api_key: str,
        base_url: str = BASE_URL,
        *,
        limits: Limits = LIMITS,
        polling: PollPlan | None = None,
        endpoint: str = CHAT,
        settle: float = SETTLE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits
        self.polling = polling or self.polling
        self._endpoint = endpoint
        self._settle = settle
        self._clock = clock
        self._lost: dict[str, float] = {}  # when a create of a tag had no answer
        self._key = api_key
        headers = {"authorization": f"Bearer {api_key}"}
        self._http = Transport(self.name, base_url, headers, self._read_error, spend_codes=SPEND_CODES)

    def format(self, form: RequestForm) -> OpenAIFormat:
        """How to encode requests of this form."""
        return OpenAIFormat(form, self._endpoint)

    def submit(self, batch: EncodedBatch, form: RequestForm) -> str:  # noqa: ARG002  # the form is in the body
        """Upload the file, which may be done twice, then make a batch of it, which may not."""
        fields = {"purpose": "batch"}
        file = self._http.upload(PATHS["files"], fields, batch.path, batch.bytes, _filename(batch.tag))
        file_id = id_of(_mapping(file))
        if not file_id:
            raise _unexpected("a file without its id")
        return self._create(file_id, batch.tag)

    def _create(self, file_id: str, tag: str) -> str:
        order = {
            "input_file_id": file_id,
            "endpoint": self._endpoint,
            "completion_window": WINDOW,
            "metadata": {METADATA_KEY: tag},
        }
        try:
            answer = self._http.create_json(PATHS["batches"], order)
        except UnknownOutcome:
            self._lost[tag] = self._clock()
            raise
        if named := id_of(_batch_of(answer)):
            return named
        self._lost[tag] = self._clock()
        raise UnknownOutcome("openai accepted a batch and named no id for it", provider=self.name)

    def find(self, batch: EncodedBatch, form: RequestForm) -> str:
        """Look the tag up in the lists; send the batch anew if it can't appear there any more (§1.1).

        A batch that is sent anew gets a new file, although there may be one: its time of creation then tells the
        next process when this one tried.
        """
        since = batch.sent_at - CLOCK_SLACK
        files = [file for file in self._listed("files", since) if file.get("filename") == _filename(batch.tag)]
        file_ids = {id_of(file) for file in files} - {""}
        listed = (item for item in self._listed("batches", since) if _is_ours(item, batch.tag, file_ids))
        found = {id_of(item): read_status(item) for item in listed}  # a list that moves may show one twice
        if found:
            return self._keep_one(found.values(), batch.tag)
        self._check_settled(batch, [at.timestamp() for file in files if (at := _time_of(file.get("created_at")))])
        log.warning("openai has no batch tagged %s: it was not accepted and is sent now", batch.tag)
        return self.submit(batch, form)

    def _check_settled(self, batch: EncodedBatch, uploads: list[float]) -> None:
        """An empty list proves nothing until some time after the last try to send the batch."""
        last = max([batch.sent_at, self._lost.get(batch.tag, 0.0), *uploads])
        if not last:
            raise UnknownOutcome(
                f"openai lists no batch tagged {batch.tag}, and when it was sent is not known",
                next_step=f"look for it at the provider: its file is called {_filename(batch.tag)}",
                provider=self.name,
            )
        remaining = last + self._settle - self._clock()
        if remaining > 0:
            raise UnknownOutcome(
                f"openai lists no batch tagged {batch.tag} yet, and new ones can stay invisible for a while: "
                f"it counts as not accepted in {remaining:.0f} s",
                next_step="nothing needs to be done; the same command goes on from here",
                provider=self.name,
                retry_after=remaining,
            )

    def _keep_one(self, found: Iterable[BatchStatus], tag: str) -> str:
        """The oldest that can still give answers stays; others are cancelled, and what they did by then is paid."""
        kept, *others = sorted(found, key=_usefulness)
        for other in others:
            log.warning("openai has two batches tagged %s: %s is kept, %s is cancelled", tag, kept.id, other.id)
            if other.phase is BatchPhase.RUNNING:
                self._give_up(other.id)
        return kept.id

    def _give_up(self, batch_id: str) -> None:
        try:
            self.cancel(batch_id)
        except (BatchRefused, NotFound) as error:
            log.warning("%s can't be cancelled and will be billed: %s", batch_id, error.message)

    def _listed(self, kind: str, since: float) -> Iterator[Mapping[str, Any]]:
        """Files or batches, newest first, back to a time."""
        params: dict[str, str | int] = {"limit": BATCHES_PAGE}
        if kind == "files":
            params = {"purpose": "batch", "order": "desc", "limit": FILES_PAGE}
        last, more = "", True
        while more:
            items, more = read_page(self._http.get(PATHS[kind], **params))
            yield from items
            times = [at.timestamp() for item in items if (at := _time_of(item.get("created_at")))]
            before, last = last, id_of(items[-1]) if items else ""
            more = more and last not in {"", before} and not (times and max(times) < since)
            params["after"] = last

    def poll(self, batch_id: str) -> BatchStatus:
        """Where the batch stands."""
        return read_status(self._http.get(PATHS["batch"].format(id=batch_id)))

    def results(self, batch_id: str) -> Iterator[Answer]:
        """The lines of the output file, then those of the error file that are about other requests.

        Counters are not looked at (§3.5): which requests have no line is for whoever sent them to count. Of a batch
        the ids alone are kept in memory, and only where there are two files.
        """
        batch = _batch_of(self._http.get(PATHS["batch"].format(id=batch_id)))
        if not id_of(batch):
            raise _unexpected("a batch without its id")
        output, errors = _text(batch.get("output_file_id")), _text(batch.get("error_file_id"))
        if not output and not errors:
            log.warning("openai: the batch %s has neither an output nor an error file", batch_id)
        answered: set[str] = set()
        for answer in self._answers(output):
            if errors:
                answered.add(answer.custom_id)
            yield answer
        for answer in self._answers(errors):
            if answer.custom_id not in answered:
                yield answer

    def _answers(self, file_id: str) -> Iterator[Answer]:
        """The answers of a file; none where there is no file."""
        unreadable = 0
        for line in self._http.lines(PATHS["content"].format(id=file_id)) if file_id else ():
            answer = read_line(line)
            if answer is not None:
                yield answer
            elif line.strip():
                unreadable += 1
        if unreadable:
            log.warning("openai: %d lines of %s can't be read and were skipped", unreadable, file_id)

    def cancel(self, batch_id: str) -> BatchStatus:
        """Ask to stop; finished rows are kept and paid. A batch that has ended by then is told as it is."""
        try:
            return read_status(self._http.post(PATHS["cancel"].format(id=batch_id)))
        except BatchRefused:
            status = self.poll(batch_id)
            if status.phase is BatchPhase.RUNNING:
                raise
            return status

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _read_error(self, body: Any) -> tuple[str | None, str]:
        """`read_error` without the key, which some services repeat."""
        code, message = read_error(body)
        return code, _KEY.sub("sk-…", message.replace(self._key, "…") if self._key else message)


def _filename(tag: str) -> str:
    return f"batchwerk-{tag}.jsonl"


def _is_ours(batch: Mapping[str, Any], tag: str, file_ids: set[str]) -> bool:
    """By metadata, or by the file it was made from where a service drops metadata."""
    return _mapping(batch.get("metadata")).get(METADATA_KEY) == tag or _text(batch.get("input_file_id")) in file_ids


def _usefulness(status: BatchStatus) -> tuple[bool, float, str]:
    """Sorts the batch to keep to the front: one that can give answers, the oldest of them."""
    gone = status.phase is BatchPhase.FAILED or status.wording.lower().startswith("cancel")
    return gone, status.created_at.timestamp() if status.created_at else float("inf"), status.id
