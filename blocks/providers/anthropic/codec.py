"""Anthropic's Message Batches: one JSON body of requests, then a stream of result lines.

The section numbers are those of docs/wire-protocols.md, §2 (Anthropic) and §1.1 (a create whose answer was lost).
What is sent keeps to the reference; what is read may be anything: absent and null fields, unknown words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from blocks.batch import (
    LONGER,
    Answer,
    BatchPhase,
    BatchStatus,
    Failure,
    FailureKind,
    RequestForm,
    Usage,
)
from blocks.errors import UsageError
from blocks.providers.anthropic.choices import mending
from blocks.providers.complaints import said_of
from blocks.providers.lenient import id_of, is_count, mapping, string, time_of, unexpected
from blocks.providers.schemas import NotStrict, Subset, narrowed
from blocks.tolerant import parse

OUTCOMES = ("succeeded", "errored", "canceled", "expired")  # counters of requests that are done (§2.3)

VERSION, AUTH, CACHE, EFFORT = "2026-10-21", "x-api-key", "5m", "default"  # the defaults of the options
WITHOUT_SAMPLING = "2026-10-21"  # the version since which `temperature` is refused (§2.1)


# `max_tokens` is required. Where the job names no limit there is room for an answer and for what models from 5 on think
# before it, and `LONGER` times as much is still less than what any model since 4.5 can write.
MAX_TOKENS = 8192

# How long a prefix must be to be cached, in tokens (§2.9); a model that is not named needs the most. Below that a mark
# does nothing, so a guess that is a little off costs nothing.
SHORTEST_PREFIXES = (
    (re.compile(r"claude-(?:opus|fable|mythos)-5|claude-[a-z]+-5-5"), 512),
    (re.compile(r"claude-opus-4-8|claude-sonnet-[45]"), 1024),
    (re.compile(r"claude-opus-4-7"), 2048),
)
LONGEST_PREFIX = 4096
BYTES_PER_TOKEN = 4  # of a system text; newer models make more tokens of the same bytes

# Error types and codes of rows (§2.4, §2.7); one that is not listed may pass.
TERMINAL_TYPES = {"invalid_request_error", "not_found_error", "permission_error", "request_too_large"}
SPEND_CODES = {
    "billing_error",
    "contract_spend_limit_reached",
    "enforced_spend_limit_reached",
    "linked_organization_billing_unavailable",
    "linked_organization_spend_limit_reached",
}
ACCOUNT_CODES = {"cmek_key_disabled", "cmek_key_network_blocked", "organization_on_hold"}  # nothing about the row

# The subset of §2.10; formats as the SDK 2.12 lists them. Patterns are taken only in part, so none is sent.
STRICT = Subset(
    formats={"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"},
    most_items=1,
    all_required=False,
    most_optional=24,
    most_unions=16,
)


# --- requests -------------------------------------------------------------------------------------------------------


class AnthropicCodec:
    """`{"requests": [{"custom_id", "params"}]}`, params of the Messages API (§2.2).

    Without a limit of the job an answer may have `MAX_TOKENS` tokens. Where the schema can't be said in the words that
    structured output takes, it becomes part of the system text. `cache` marks the system text for the provider's
    prompt cache if it is long enough to be cached. A mark for five minutes pays from a hit rate of 22 %, one for an
    hour from 53 %; batches see 30 to 98 % (§2.9), and each hit renews the mark: hence the default.

    Raises UsageError for a temperature that the version or the model does not take.
    """

    head = b'{"requests":['
    separator = b","
    tail = b"]}"

    def __init__(self, form: RequestForm, *, version: str = VERSION, cache: str = CACHE, effort: str = EFFORT) -> None:
        _check_temperature(form, version)
        schema, system = _schema_and_system(form)
        before: dict[str, Any] = {"model": form.model}
        if form.temperature is not None:
            before["temperature"] = form.temperature
        if system:
            before["system"] = [_system_block(system, form.model, cache)]
        self._between = b'","params":%b,"messages":[{"role":"user","content":' % orjson.dumps(before)[:-1]
        limit = form.max_output_tokens or MAX_TOKENS
        output = b"" if effort == EFFORT and schema is None else _output_config(schema, effort)
        self._end = b'}],"max_tokens":%d%b}}' % (limit, output)
        self._longer_end = b'}],"max_tokens":%d%b}}' % (limit * LONGER, output)

    def encode(self, custom_id: str, prompt: str, *, longer: bool = False) -> bytes:
        """One request; only the prompt itself is escaped anew, all else was when the format was made."""
        end = self._longer_end if longer else self._end
        return b'{"custom_id":"' + custom_id.encode() + self._between + orjson.dumps(prompt) + end


_MODEL_VERSION = re.compile(r"claude-[a-z]+-(\d+)(?:-(\d{1,2})(?!\d))?")


def _check_temperature(form: RequestForm, version: str) -> None:
    """Sent all the same, it would fail every row of the batch, hours later (§2.1)."""
    if form.temperature is None:
        return
    if version >= WITHOUT_SAMPLING:
        raise UsageError(
            f"anthropic takes no temperature since its API version {WITHOUT_SAMPLING}",
            next_step="leave `temperature` out of the job, or add --option version=2023-06-01 for an older model",
        )
    if not 0 <= form.temperature <= 1:
        raise UsageError(
            f"anthropic takes temperatures from 0 to 1, not {form.temperature:g}", next_step="change it in the job"
        )
    if form.temperature != 1 and not _takes_temperature(form.model):
        raise UsageError(
            f"{form.model} takes no temperature other than 1",
            next_step="leave `temperature` out of the job, or use a model before 4.7",
        )


def _takes_temperature(model: str) -> bool:
    found = _MODEL_VERSION.search(model)
    return found is None or (int(found[1]), int(found[2] or 0)) < (4, 7)


def _schema_and_system(form: RequestForm) -> tuple[dict[str, Any] | None, str]:
    """The schema for structured output, and the system text, with the whole schema in it where that has no words."""
    system = (form.system or "").rstrip()
    if form.schema is None:
        return None, system
    try:
        return narrowed(form.schema, STRICT), system
    except NotStrict:
        text = orjson.dumps(form.schema).decode()
        order = f"Answer with one JSON object and nothing else. It must match this JSON Schema:\n{text}"
        return None, f"{system}\n\n{order}" if system else order


def _system_block(text: str, model: str, cache: str) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "text", "text": text}
    if cache != "off" and len(text.encode()) >= BYTES_PER_TOKEN * shortest_prefix(model):
        block["cache_control"] = {"type": "ephemeral", "ttl": cache}
    return block


def shortest_prefix(model: str) -> int:
    """How many tokens a prefix must have so that the model's cache takes it."""
    return next((tokens for pattern, tokens in SHORTEST_PREFIXES if pattern.search(model)), LONGEST_PREFIX)


def _output_config(schema: Mapping[str, Any] | None, effort: str) -> bytes:
    """The member that names the answer's form and how much to think."""
    config: dict[str, Any] = {} if effort == EFFORT else {"effort": effort}
    if schema is not None:
        config["format"] = {"type": "json_schema", "schema": schema}
    return b',"output_config":' + orjson.dumps(config)


# --- batches --------------------------------------------------------------------------------------------------------


def read_status(body: Any) -> BatchStatus:
    """A batch object (§2.3). A state that we don't know counts as running: nothing may be concluded from it."""
    batch = mapping(body)
    named = id_of(batch)
    if not named:
        raise unexpected("anthropic", "a batch without its id")
    wording = string(batch.get("processing_status")) or "unknown"
    return BatchStatus(
        id=named,
        phase=BatchPhase.ENDED if wording == "ended" else BatchPhase.RUNNING,
        wording=wording,
        created_at=time_of(batch.get("created_at")),
    )


def size_of(batch: Mapping[str, Any]) -> int | None:
    """How many requests a batch has: the sum of its counters at all times (§2.3).

    None where they can't be read, or where there is one that we don't know: it may be a part of the sum, or the sum.
    """
    counts = mapping(batch.get("request_counts"))
    known = counts.keys() <= {"processing", *OUTCOMES} and all(map(is_count, counts.values()))
    return sum(counts.values()) if counts and known else None


def read_page(page: Any) -> tuple[list[Mapping[str, Any]], bool]:
    """A page of the list and whether there are more."""
    items = mapping(page).get("data")
    if not isinstance(items, list):
        raise unexpected("anthropic", "a list that is none")
    return [item for item in items if isinstance(item, Mapping)], bool(page.get("has_more"))


# --- answers --------------------------------------------------------------------------------------------------------

_Outcome = tuple[str | None, Usage | None, Failure | None]


class AnswerReader:
    """Reads result lines (§2.4). `form` and `cache` are what the requests were encoded with.

    The provider does not promise the capitals of an enum's choices (§2.10): a text that differs from exactly one
    choice in its capitals only is replaced by that choice. An answer without such a text is passed on byte for byte.
    """

    def __init__(self, form: RequestForm, cache: str = CACHE) -> None:
        self._lasts_an_hour = cache == "1h"
        self._mend = mending(form.schema)

    def read(self, row: Any) -> Answer | None:
        """None for a line that names no request."""
        row = mapping(row)
        custom_id = string(row.get("custom_id"))
        return Answer(custom_id, *self._outcome(mapping(row.get("result")))) if custom_id else None

    def _outcome(self, result: Mapping[str, Any]) -> _Outcome:
        """The four kinds of result; one that we don't know may pass."""
        kind = string(result.get("type"))
        if kind == "succeeded":
            return self._message(mapping(result.get("message")))
        if kind == "errored":
            return None, None, _failure(result.get("error"))
        if kind in {"canceled", "cancelled", "expired"}:
            said = "the batch expired" if kind == "expired" else "the batch was cancelled"
            return None, None, Failure(FailureKind.NOT_RUN, kind, f"{said} before the request ran")
        said = "the provider gave neither an answer nor a reason"
        return None, None, Failure(FailureKind.TRANSIENT, kind or "no_answer", said)

    def _message(self, message: Mapping[str, Any]) -> _Outcome:
        usage = usage_of(message.get("usage"), lasts_an_hour=self._lasts_an_hour)
        if failure := _stopped(message):
            return None, usage, failure._replace(billed=True)
        content = message.get("content")
        if not isinstance(content, list):
            failure = Failure(FailureKind.TRANSIENT, "no_answer", "the answer has no content", billed=bool(message))
            return None, usage, failure
        return self._mended(_text_of(content, string(message.get("stop_reason")))), usage, None

    def _mended(self, text: str) -> str:
        if self._mend is None:
            return text
        try:
            answer = [orjson.loads(text)]
            return orjson.dumps(answer[0]).decode() if self._mend(answer, 0) else text
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # no JSON, or nested too deep
            return text


def custom_id_of(line: bytes) -> str | None:
    """Whose a line is; None where it does not say."""
    try:
        return string(mapping(parse(line)).get("custom_id")) or None
    except (ValueError, RecursionError):
        return None


def _stopped(message: Mapping[str, Any]) -> Failure | None:
    """Why a message is no answer, though it is billed. Other reasons leave that to whoever checks the answer."""
    match message.get("stop_reason"):
        case "max_tokens":
            return Failure(FailureKind.CUT_OFF, "length", "the answer was cut off at the limit of output tokens")
        case "model_context_window_exceeded":
            said = "prompt and answer do not fit into the model's context window"
            return Failure(FailureKind.TERMINAL, "model_context_window_exceeded", said)
        case "refusal":
            details = mapping(message.get("stop_details"))
            said = string(details.get("explanation")) or string(details.get("category"))
            return Failure(FailureKind.REFUSED, "refusal", said or "the model declined to answer")
    return None


def _text_of(content: list[Any], stop_reason: str) -> str:
    """The text blocks, or what a tool was called with, as JSON; a model's thinking is no part of the answer."""
    blocks = [mapping(block) for block in content]
    if stop_reason == "tool_use":
        inputs = [block["input"] for block in blocks if block.get("type") == "tool_use" and "input" in block]
        if inputs:
            return _json_of(inputs[0])
    return "".join([string(block.get("text")) for block in blocks if block.get("type") == "text"])


def _json_of(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # nested too deep: no answer
        return ""


def _failure(error: Any) -> Failure:
    """An error by its type and code (§2.7), never by its words."""
    kind, code, message = error_of(error)
    meaning = FailureKind.TRANSIENT
    if kind in SPEND_CODES or code in SPEND_CODES:
        meaning = FailureKind.NOT_RUN  # not billed, and the next batch will be refused as a whole
    elif kind in TERMINAL_TYPES and code not in ACCOUNT_CODES:
        meaning = FailureKind.TERMINAL
    return Failure(meaning, code or "unknown", message or "the provider gave no reason")


_KEY = re.compile(r"\bsk-[\w*.…-]+")  # in case that a gateway repeats one


def error_of(error: Any) -> tuple[str, str, str]:
    """Type, code and message of an error, once or twice nested; the code of one that has none is its type."""
    outer = mapping(error)
    inner = mapping(outer.get("error")) or outer
    code, message, kind = said_of(error)
    kind = string(inner.get("type")) or kind or code
    named = string(mapping(inner.get("details")).get("error_code"))
    return kind, named or code or kind, _KEY.sub("sk-…", message)


def usage_of(usage: Any, *, lasts_an_hour: bool = False) -> Usage | None:
    """Tokens (§2.9), or None where they are not both named: what is not known must not look free.

    What was written to a cache without saying to which counts as written to the one that was asked for.
    """
    told = mapping(usage)
    plain, tokens_out = told.get("input_tokens"), told.get("output_tokens")
    if not (is_count(plain) and is_count(tokens_out)):
        return None
    read, written = _count(told, "cache_read_input_tokens"), _count(told, "cache_creation_input_tokens")
    parts = mapping(told.get("cache_creation"))
    short, long = _count(parts, "ephemeral_5m_input_tokens"), _count(parts, "ephemeral_1h_input_tokens")
    rest = max(0, written - short - long)
    short, long = (short, long + rest) if lasts_an_hour else (short + rest, long)
    return Usage(plain + read + short + long, tokens_out, read, short, long)


def _count(counts: Mapping[str, Any], name: str) -> int:
    count = counts.get(name)
    return count if is_count(count) else 0
