"""Gemini's answers: whose they are, what they say and what they cost (docs/wire-protocols.md, §5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from blocks.batch import (
    PORTABLE_ID,
    Answer,
    Failure,
    FailureKind,
    RequestForm,
    Usage,
)
from blocks.providers.gemini.codec import echo_of, is_binding
from blocks.providers.gemini.errors import is_error, row_failure
from blocks.providers.lenient import array, count_of, mapping, string

FILTER_REASONS = {"SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "RECITATION", "IMAGE_SAFETY"}
BROKEN_REASONS = {"OTHER", "LANGUAGE", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE"}
UNPROVEN = Failure(FailureKind.TRANSIENT, "unproven", "the answer does not say which row it belongs to", billed=True)
CLAIMED = UNPROVEN._replace(code="claimed")  # by another row; whether that is true is known when all rows are

_Outcome = tuple[str | None, Usage | None, Failure | None]


class RowReader:
    """Reads the rows of one batch, and counts those that are not what they seem.

    `tag`: the batch's; it stands in for the key of a row that has none, as an echo may still say whose it is.

    Where the schema is given to the service, an answer can only echo the key of its own request. Where it is said in
    words, it may echo what stands in a row's text: another's key is believed only if the answer that came under that
    key moved away too, as answers that were exchanged do.
    """

    def __init__(self, form: RequestForm, tag: str = "") -> None:
        self.echo = echo_of(form.schema)
        self.moved = 0  # answers that came under another's key
        self._form = form
        self._tag = tag
        self._binding = self.echo is not None and is_binding(form.schema)
        self._claims: dict[str, tuple[str, str]] = {}  # by the key that it came under: the owner it names, its text
        self._echoed = re.compile(rf'\s*\{{\s*"{self.echo}"\s*:\s*"({PORTABLE_ID})"\s*(?:,|(?=\}}))')

    def read(self, row: Any) -> Answer | None:
        """A row, from a file or an operation; None for one that is nobody's."""
        row = mapping(row)
        key = string(row.get("key")) or string(mapping(row.get("metadata")).get("key"))
        text, usage, failure = _outcome(row, self._form)
        answer = Answer(key, text, usage, failure)
        if text is not None and self.echo is not None:
            answer = self._proven(key, text, usage)
        return answer if answer.custom_id else None

    def settled(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """The answers that `read` gave; those that only claim to be another's come last, when all are known."""
        claiming = []
        for answer in answers:
            if answer.failure is CLAIMED:
                claiming.append(answer)
            else:
                yield answer
        for answer in claiming:
            owner, text = self._claims[answer.custom_id]
            if owner in self._claims:
                self.moved += 1
                yield Answer(owner, text, answer.usage, None)
            else:
                yield answer._replace(failure=UNPROVEN)

    def _proven(self, key: str, text: str, usage: Usage | None) -> Answer:
        """The answer of the row that it names, which has to be one of the same batch."""
        owner, rest = self._without_echo(text)
        batch = _batch_tag(key) if key else self._tag
        if not batch or _batch_tag(owner) != batch:
            return Answer(key, None, usage, UNPROVEN)
        if key and owner != key and not self._binding:
            self._claims[key] = owner, rest
            return Answer(key, None, usage, CLAIMED)
        self.moved += bool(key) and owner != key
        return Answer(owner, rest, usage, None)

    def _without_echo(self, text: str) -> tuple[str, str]:
        """The key that an answer names, empty for none, and the answer without it; where it leads nothing is parsed."""
        if found := self._echoed.match(text):
            return found[1], "{" + text[found.end() :]
        try:
            answer = orjson.loads(text)
        except orjson.JSONDecodeError:
            return "", text
        owner = string(answer.pop(self.echo, None)) if isinstance(answer, dict) else ""
        return (owner, orjson.dumps(answer).decode()) if re.fullmatch(PORTABLE_ID, owner) else ("", text)


def _batch_tag(custom_id: str) -> str:
    """What all keys of a batch begin with, `<tag>-<request>-<attempt>`; empty for what is no such key."""
    tag, *rest = custom_id.rsplit("-", 2)
    return tag if len(rest) == 2 and all(rest) else ""


def _outcome(row: Mapping[str, Any], form: RequestForm) -> _Outcome:
    """Failed, blocked before it began, or answered (§5)."""
    response = mapping(row.get("response"))
    usage = usage_of(response.get("usageMetadata"))
    errors = [row.get("error"), mapping(row.get("status")), response.get("error")]
    for error in filter(is_error, errors):
        return None, usage, row_failure(error)
    feedback = mapping(response.get("promptFeedback"))
    blocked = string(feedback.get("blockReason"))
    if blocked not in {"", "BLOCK_REASON_UNSPECIFIED"}:
        said = string(feedback.get("blockReasonMessage")) or "the provider's filter stopped the prompt"
        return None, usage, Failure(FailureKind.FILTERED, blocked, said, billed=True)
    candidates = array(response.get("candidates"))
    candidate = mapping(candidates[0]) if candidates else {}
    if failure := _stopped(candidate, form):
        return None, usage, failure._replace(billed=True)
    texts = _texts(candidate)
    if not texts:
        said = "the answer has no text" if candidate else "the provider gave neither an answer nor a reason"
        return None, usage, Failure(FailureKind.TRANSIENT, "no_answer", said, billed=bool(candidate))
    return "".join(texts), usage, None


def _texts(candidate: Mapping[str, Any]) -> list[str]:
    """The texts of an answer, its thoughts left out."""
    parts = [mapping(part) for part in array(mapping(candidate.get("content")).get("parts"))]
    return [part["text"] for part in parts if isinstance(part.get("text"), str) and part.get("thought") is not True]


def _stopped(candidate: Mapping[str, Any], form: RequestForm) -> Failure | None:
    """Why an answer ended before its end. Without a limit of the job it reached the model's own: none is larger."""
    reason, said = string(candidate.get("finishReason")), string(candidate.get("finishMessage"))
    if reason == "MAX_TOKENS":
        kind = FailureKind.TERMINAL if form.max_output_tokens is None else FailureKind.CUT_OFF
        return Failure(kind, "length", "the answer, its thoughts included, was cut off at the limit of output tokens")
    if reason in FILTER_REASONS:
        return Failure(FailureKind.FILTERED, reason, said or "the provider's filter stopped the answer")
    if reason in BROKEN_REASONS:
        return Failure(FailureKind.TRANSIENT, reason, said or "the model failed while it answered")
    return None


def usage_of(told: Any) -> Usage | None:
    """Tokens (§5), thoughts as output, or None where they are not all named: what is not known must not look free.

    A count of 0 may be left out; the total then tells.
    """
    named = mapping(told)
    prompt, total = count_of(named.get("promptTokenCount")), count_of(named.get("totalTokenCount"))
    if prompt is None:
        return None
    tokens_in = prompt + (count_of(named.get("toolUsePromptTokenCount")) or 0)
    parts = [count_of(named.get(name)) for name in ("candidatesTokenCount", "thoughtsTokenCount")]
    tokens_out = sum(part or 0 for part in parts)
    if parts == [None, None]:
        if total is None or total < tokens_in:
            return None
        tokens_out = total - tokens_in
    return Usage(tokens_in, tokens_out, min(count_of(named.get("cachedContentTokenCount")) or 0, tokens_in))
