"""Failures by reason: what rows that failed alike have in common, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST_REASON = 160  # characters
_QUOTED = re.compile(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_OF_THE_SCHEMA = "is a required property"  # what is quoted before it is a name of the schema, not a value of the row
_DECLINING = (
    "refusal",
    "refused for its content",
    "content_filter",
    "content_policy",
    "SAFETY",
    "PROHIBITED_CONTENT",
    "BLOCKLIST",
)
_SCHEMA = (
    " is not one of ",
    " is not of type",
    " is a required property",
    "does not match",
    "is not JSON",
    "not valid",
)


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to do about rows that failed for a reason."""

    text: str
    retries: bool = True  # whether sending them again may help


def reason_of(error: str) -> str:
    """The error without what differs from row to row: quoted values and numbers."""
    error = error[: 4 * LONGEST_REASON]
    named = error if error.endswith(_OF_THE_SCHEMA) else _QUOTED.sub("…", error)
    plain = _NUMBER.sub("N", named)
    return plain if len(plain) <= LONGEST_REASON else f"{plain[: LONGEST_REASON - 1]}…"


_CUT_OFF = Remedy("raise max_output_tokens in the job, or ask for shorter answers; then run the command")
_DECLINED = Remedy(
    "the model or its provider declined: change the prompt or the model, or leave these rows out", retries=False
)
_SHAPE = Remedy("say in the prompt what the schema wants, or loosen the schema; then run the command")
_GONE = Remedy("the provider has no answer for them: the command sends them again, and may pay for them again")
_UNSENDABLE = Remedy("nothing could be sent for these rows: correct the data or the prompt", retries=False)
_FAILED = Remedy("the provider reported an error: the command sends them again")


def remedy_of(error: str) -> Remedy:
    """By the words that we, or most providers, use for it."""
    code = error.partition(":")[0]
    if code == "length":
        return _CUT_OFF
    if any(words in error for words in _DECLINING):
        return _DECLINED
    if any(words in error for words in _SCHEMA) or error.startswith("the answer"):
        return _SHAPE
    if code in {"gone", "batch_failed", "missing", "not_run"} or "was lost" in error:
        return _GONE
    if error.startswith(("the prompt", "the request")):
        return _UNSENDABLE
    return _FAILED
