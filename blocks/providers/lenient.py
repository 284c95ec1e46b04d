"""Reading JSON that may be anything: a value of the kind that is looked for, or the empty one of that kind."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeGuard

from blocks.errors import Transient

_NOTHING: Mapping[str, Any] = {}
MOST_TOKENS = 10**10  # no request has more: a number beyond is not a count of tokens


def mapping(value: Any) -> Mapping[str, Any]:
    """An object, or an empty one in the place of anything else."""
    return value if isinstance(value, dict) else _NOTHING


def is_number(value: Any) -> TypeGuard[int | float]:
    """A number that is no truth value."""
    return type(value) in {int, float}


def time_of(value: Any) -> datetime | None:
    """Unix seconds, or a date as text (Together)."""
    try:
        if is_number(value):
            return datetime.fromtimestamp(value, UTC)
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


def array(value: Any) -> list[Any]:
    """A list, or an empty one."""
    return value if isinstance(value, list) else []


def string(value: Any) -> str:
    """A text, or an empty one."""
    return value if isinstance(value, str) else ""


def id_of(body: Any) -> str:
    """The `id` of an object; empty if it has none."""
    return string(mapping(body).get("id"))


def is_count(value: Any) -> TypeGuard[int]:
    """A whole number that may count something, such as tokens."""
    return type(value) is int and 0 <= value < MOST_TOKENS


def count_of(value: Any) -> int | None:
    """A count, also where it is a text of digits, as an int64 is in the JSON of protocol buffers."""
    if isinstance(value, str) and len(value) < 16 and value.isascii() and value.isdigit():
        value = int(value)
    return value if is_count(value) else None


def unexpected(provider: str, what: str) -> Transient:
    """The error for an answer that has not what it has to have."""
    return Transient(
        f"{provider} answered with {what}",
        next_step="run the same command again: it goes on from here",
        provider=provider,
    )
