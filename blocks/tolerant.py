"""JSON as services write it: strictly where it is, tolerantly where it is not.

What is paid for is read wherever it can be. A model may write half a surrogate pair, a server in Python a bare `NaN`
or `Infinity`, an old encoder bytes that are not UTF-8: none of them is JSON, and all of them were seen in results.
"""

from __future__ import annotations

import json
import math
from typing import Any

import orjson

_MARK = "\ufeff"  # of the byte order, before a text


def parse(text: bytes | bytearray) -> Any:
    """The value. What can't be in a text is replaced by U+FFFD, what is no number by null.

    Raises ValueError or RecursionError for what is no JSON in any reading.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _mended(json.loads(text.decode("utf-8", "replace").removeprefix(_MARK)))


def is_json(text: bytes) -> bool:
    """Whether `parse` can read it."""
    try:
        parse(text)
    except (ValueError, RecursionError):
        return False
    return True


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_mended(name): _mended(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_mended(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
