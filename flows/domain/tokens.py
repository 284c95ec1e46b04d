"""Tokens without a tokenizer: an estimate from the shape of the text (PROTOCOLS reference, §9).

Measured there against five tokenizers: for Latin-script text and code between -10 % and +45 % of the real count,
for other scripts between -30 % and +165 %. Bills are made from the provider's usage, never from this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from math import ceil
from typing import Any

OVERHEAD = 7  # tokens of a request's own framing: about 4 a message and 3

_PIECES = re.compile(
    r"(?P<blob>(?<![A-Za-z0-9+/_=-])(?=[A-Za-z0-9+/_=-]*\d)(?=[A-Za-z0-9+/_=-]*[A-Za-z])[A-Za-z0-9+/_=-]{24,})"
    r"|(?P<word>[A-Za-z]+)"
    r"|(?P<digits>[0-9]+)"
    r"|(?P<space>[ \t]{2,}|[\r\n]+)"
    r"|(?P<one> |\t)"
    r"|(?P<accented>[\u00aa-\u024f\u1e00-\u1eff]+)"
    r"|(?P<script>[\u0370-\u1cff]+)"
    r"|(?P<cjk>[\u2e80-\ua4cf\uac00-\ud7af\uf900-\ufaff]+)"
    r"|(?P<symbol>[^\x00-\x7f])"
    r"|(?P<mark>.)",
    re.DOTALL,
)

_COST: dict[str, Callable[[int], float]] = {
    "blob": lambda n: 0.72 * n,
    "word": lambda n: 1 + 0.25 * max(0, n - 6),
    "digits": lambda n: ceil(n / 3),
    "space": lambda _: 1,
    "one": lambda _: 0,
    "accented": lambda n: 0.6 * n + 0.2,
    "script": lambda n: 0.5 * n,
    "cjk": lambda n: 0.85 * n,
    "symbol": lambda _: 2.3,
    "mark": lambda _: 0.75,
}


def estimate_tokens(text: str) -> float:
    """About how many tokens a text has. Slow (2 MB/s): estimate a sample and scale it with `tokens_per_byte`."""
    tokens = sum(_COST[piece.lastgroup or "mark"](len(piece.group())) for piece in _PIECES.finditer(text))
    return min(tokens, len(text.encode()))  # no byte-level tokenizer makes more tokens than bytes


def tokens_per_byte(sample: Iterable[str]) -> float:
    """Tokens a UTF-8 byte over a sample of texts; 0.25 for an empty one."""
    tokens, size = 0.0, 0
    for text in sample:
        tokens += estimate_tokens(text)
        size += len(text.encode())
    return tokens / size if size else 0.25


def expected_output_tokens(schema: Mapping[str, Any] | None, ceiling: int | None) -> int:
    """About how long an answer will be: from the shape of its schema, at most `ceiling`."""
    tokens = _answer_tokens(schema) if schema else (ceiling or 200) / 2
    return max(1, min(ceil(tokens), ceiling or ceil(tokens)))


def _answer_tokens(schema: Any, depth: int = 0) -> float:
    if not isinstance(schema, Mapping) or depth > 8:
        return 8
    if "enum" in schema or "const" in schema:
        return 3
    match schema.get("type"):
        case "object":
            properties = schema.get("properties") or {}
            return 2 + sum(
                4 + estimate_tokens(str(name)) + _answer_tokens(inner, depth + 1) for name, inner in properties.items()
            )
        case "array":
            return 2 + 3 * (1 + _answer_tokens(schema.get("items"), depth + 1))
        case "integer" | "number" | "boolean" | "null":
            return 2
        case _:
            return 8
