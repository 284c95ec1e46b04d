"""Chat completions in batches, as OpenAI and Mistral speak them: what requests begin with, how answers are read.

The section numbers are those of docs/wire-protocols.md, §3 (OpenAI) and §4 (Mistral).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from blocks.batch import LONGER, Failure, FailureKind, RequestForm, Usage
from blocks.providers.lenient import array, is_count, is_number, mapping, string

Outcome = tuple[str | None, Usage | None, Failure | None]

TRANSIENT_STATUSES = {408, 409, 425, 429}  # beside those from 500 (§3.6)
MOST_STATED = 10_000  # dollars of one answer; more is no price
TOKEN_LIMITS = {"max_completion_tokens", "max_output_tokens", "max_tokens"}

# --- requests -------------------------------------------------------------------------------------------------------


def up_to_prompt(before: Mapping[str, Any], list_name: str, first: Mapping[str, str] | None) -> bytes:
    """A body with the members `before` and a list of messages, up to the text of the user's."""
    opened = orjson.dumps({**before, list_name: [] if first is None else [first]})[:-2]
    return opened + (b"" if first is None else b",") + b'{"role":"user","content":'


def following(members: Mapping[str, Any]) -> bytes:
    """The members of an object as they follow others: each after a comma."""
    return b"," + orjson.dumps(members)[1:-1] if members else b""


def with_more_tokens(members: Mapping[str, Any]) -> dict[str, Any]:
    """The members for an answer that was cut off."""
    return {name: value * LONGER if name in TOKEN_LIMITS else value for name, value in members.items()}


class ChatCodec:
    """JSONL of requests whose bodies end in a list of messages.

    `between`: the bytes from the custom_id to the prompt; `after`: the members of the body behind its messages.
    """

    head = b""
    separator = b"\n"
    tail = b"\n"

    def __init__(self, between: bytes, after: Mapping[str, Any]) -> None:
        self._between = between
        self._end = b"}]" + following(after) + b"}}"
        self._longer_end = b"}]" + following(with_more_tokens(after)) + b"}}"

    def encode(self, custom_id: str, prompt: str, *, longer: bool = False) -> bytes:
        """One request; only the prompt itself is escaped anew, all else was when the codec was made."""
        line = b'{"custom_id":"' + custom_id.encode() + self._between + orjson.dumps(prompt)
        return line + (self._longer_end if longer else self._end)


# --- answers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Codes:
    """What a provider's codes of errors mean for a row; one that is not listed may pass."""

    not_run: Collection[str]
    terminal: Collection[str]
    filtered: Collection[str]


def body_of(body: Any) -> Mapping[str, Any]:
    """A body, also where it is JSON in a string."""
    if isinstance(body, str):
        try:
            body = orjson.loads(body)
        except orjson.JSONDecodeError:
            return {}
    return mapping(body)


def stopped(reason: Any, form: RequestForm) -> Failure | None:
    """Why an answer ended before its end. Without a limit of the job it reached the model's own: none is larger."""
    if reason in ("length", "max_output_tokens", "max_tokens"):
        kind = FailureKind.TERMINAL if form.max_output_tokens is None else FailureKind.CUT_OFF
        return Failure(kind, "length", "the answer was cut off at the limit of output tokens")
    if reason == "content_filter":
        return Failure(FailureKind.FILTERED, "content_filter", "the provider's filter stopped the answer")
    return None


def read_chat(
    body: Mapping[str, Any],
    usage: Usage | None,
    form: RequestForm,
    stops: Callable[[Any, RequestForm], Failure | None] = stopped,
) -> Outcome:
    """The first of a body's `choices`. `stops` says of a `finish_reason` why there is no answer."""
    choices = body["choices"]
    choice = mapping(choices[0]) if isinstance(choices, list) and choices else {}
    message = mapping(choice.get("message"))
    if refusal := string(message.get("refusal")):
        return None, usage, Failure(FailureKind.REFUSED, "refusal", refusal, billed=True)
    if failure := stops(choice.get("finish_reason"), form):
        return None, usage, failure._replace(billed=True)
    if not message:
        return None, usage, transient("no_answer", "the answer has no message")._replace(billed=bool(choice))
    return joined(message.get("content")), usage, None


def joined(content: Any) -> str:
    """Text that may come as a string or in parts; what is not text is no part of it."""
    if isinstance(content, str):
        return content
    return "".join(part if isinstance(part, str) else string(mapping(part).get("text")) for part in array(content))


def error_failure(code: str, message: str, codes: Codes) -> Failure:
    """An error by its code."""
    kind = FailureKind.TRANSIENT
    if code in codes.not_run:
        kind = FailureKind.NOT_RUN
    elif code in codes.filtered:
        kind = FailureKind.FILTERED
    elif code in codes.terminal:
        kind = FailureKind.TERMINAL
    return Failure(kind, code or "unknown", message or "the provider gave no reason")


def status_failure(status: int, code: str, message: str, codes: Codes) -> Failure:
    """An HTTP error by its status; 0 is what some rows say that never ran (§3.5)."""
    final = 400 <= status < 500 and status not in TRANSIENT_STATUSES
    kind = FailureKind.FILTERED if code in codes.filtered else FailureKind.TERMINAL if final else FailureKind.TRANSIENT
    said = message or f"the provider answered {status} and gave no reason"
    return Failure(kind, code or f"http_{status}", said)


def transient(code: str, message: str) -> Failure:
    """A failure that may pass."""
    return Failure(FailureKind.TRANSIENT, code, message)


def usage_of(usage: Any) -> Usage | None:
    """Tokens (§3.7), or None where they are not both named: what is not known must not look free."""
    if not isinstance(usage, dict):
        return None
    chat = "prompt_tokens" in usage
    tokens_in = usage.get("prompt_tokens" if chat else "input_tokens")
    tokens_out = usage.get("completion_tokens" if chat else "output_tokens")
    if not (is_count(tokens_in) and is_count(tokens_out)):
        return None
    cached = mapping(usage.get("prompt_tokens_details" if chat else "input_tokens_details")).get("cached_tokens")
    read = min(cached, tokens_in) if is_count(cached) else 0
    return Usage(tokens_in, tokens_out, read, stated_cost=_stated(usage["cost"]) if "cost" in usage else 0)


def _stated(cost: Any) -> int:
    """Pico-dollars of a sum in dollars, as OpenRouter and other gateways give it; 0 for what is none."""
    return round(cost * 1e12) if is_number(cost) and 0 < cost < MOST_STATED else 0
