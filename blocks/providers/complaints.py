"""What a service says of an error, whatever shape it has: one place reads code and reason for all of them.

Services and the proxies before them write `{"error": {"message", "type", "code"}}`, `{"detail": "…"}`,
`{"detail": [{"loc", "msg", "type"}]}`, one within another, as JSON within a text, and codes of any type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from blocks.providers.lenient import array, mapping
from blocks.tolerant import parse

DEEPEST = 6
_WITHIN = ("error", "errors", "detail", "details", "message", "data")  # members that may hold the error itself
_AROUND = ("error", "errors", "data")  # of them those that say less than what is in them
_REASONS = ("message", "msg", "detail", "error", "reason", "title", "description", "error_description", "error_message")
LONGEST_CODE = 100


class Said(NamedTuple):
    """What is said of an error; empty where nothing is."""

    code: str  # the most specific name that it has
    message: str
    kind: str = ""  # its type, beside the code


def said_of(error: Any, deepest: int = DEEPEST) -> Said:
    """Code and reason; the code of an error that has none is its type."""
    if isinstance(error, str):
        return _of_text(error, deepest)
    if isinstance(error, list):
        return _of_list(error, deepest)
    if not isinstance(error, Mapping) or not deepest:
        return Said("", "")
    kind, code, message = name_of(error.get("type")), name_of(error.get("code")), _reason_of(error)
    kind = "" if kind == "error" else kind  # of what is around an error, not of the error
    for member in _WITHIN:
        inner = error.get(member)
        if not inner or (isinstance(inner, str) and not inner.lstrip().startswith(("{", "["))):
            continue
        found = said_of(inner, deepest - 1)
        if found.message or (found.code and not message):
            first, second = (found, Said(code, "", kind)) if member in _AROUND else (Said(code, "", kind), found)
            named = _better(first.code or first.kind, second.code or second.kind)
            return Said(named, found.message or message, first.kind or second.kind)
    return Said(code or kind, message, kind)


def name_of(value: Any) -> str:
    """A code as text, of whatever type it is."""
    if isinstance(value, str):
        return value.strip()[:LONGEST_CODE]
    return str(value) if type(value) is int and abs(value) < 10**12 else ""


def _better(first: str, second: str) -> str:
    """A word says more than a number."""
    return next((name for name in (first, second) if name and not name.isdecimal()), first or second)


def _reason_of(error: Mapping[str, Any]) -> str:
    return next((found for name in _REASONS if isinstance(found := error.get(name), str) and found), "")


def _of_text(text: str, deepest: int) -> Said:
    """A text, or an error that is written within it."""
    if deepest and text.lstrip().startswith(("{", "[")):
        try:
            found = said_of(parse(text.encode(errors="replace")), deepest - 1)
        except (ValueError, RecursionError):
            return Said("", text)
        if found.message:
            return found
    return Said("", text)


def _of_list(errors: list[Any], deepest: int) -> Said:
    """The first of several, and how many more there are; a violation says where it is, never its `input`."""
    found = [error for error in errors if isinstance(error, str) or mapping(error)]
    if not found:
        return Said("", "")
    first = said_of(found[0], max(0, deepest - 1))
    place = ".".join(str(step) for step in array(mapping(found[0]).get("loc")) if isinstance(step, str | int))
    message = ": ".join(part for part in (place, first.message) if part)
    return first._replace(message=f"{message} (and {len(found) - 1} more)" if len(found) > 1 else message)
