"""Input tokens of requests; without a vocabulary, an estimate from the shape of the text.

Measured against five tokenizers: -10 % to +45 % of the real count for Latin-script text and code, -30 % to +165 % for
other scripts. Costs are computed from the usage that the provider reports, never from this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil
from typing import Any, Protocol

import orjson

from blocks.batch import BatchCodec
from flows.domain.custom_ids import LONGEST_ID

OVERHEAD = 7  # tokens that frame a request: about 4 per message, plus 3
USUAL_TOKENS_PER_BYTE = 0.25
SAMPLES_PER_CALL = 24
MANY_SAMPLES = 240  # from here on, one per call
SAMPLED_CHARACTERS = 20_000  # of a prompt

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
    """The approximate number of tokens. Slow (2 MB/s): use a `TokenCounter` for many texts."""
    tokens = sum(_COST[piece.lastgroup or "mark"](len(piece.group())) for piece in _PIECES.finditer(text))
    return min(tokens, len(text.encode()))  # a byte-level tokenizer never makes more tokens than bytes


class Vocabulary(Protocol):
    """Counts tokens exactly."""

    @property
    def name(self) -> str:
        """The vocabulary's."""
        ...

    def tokens_of(self, prompts: Sequence[str]) -> list[int]:
        """Input tokens of a request with each prompt."""
        ...


class TokenCounter:
    """The input tokens of requests: counted where a vocabulary is at hand, else estimated from a growing sample."""

    def __init__(self, codec: BatchCodec, vocabulary: Vocabulary | None = None) -> None:
        self._codec = codec
        self._vocabulary = vocabulary
        self._samples = 0
        self._tokens = 0.0
        self._bytes = 0

    def tokens_of(self, prompts: Sequence[str], sizes: Sequence[int]) -> list[int]:
        """`sizes`: bytes of the encoded request with each prompt."""
        if self._vocabulary is not None:
            tokens = self._vocabulary.tokens_of(prompts)
            self._tokens, self._bytes = self._tokens + sum(tokens), self._bytes + sum(sizes)
            return tokens
        self._add_to_sample(prompts)
        return [ceil(size * self.per_byte) for size in sizes]

    def _add_to_sample(self, prompts: Sequence[str]) -> None:
        count = SAMPLES_PER_CALL if self._samples < MANY_SAMPLES else 1
        step = max(1, len(prompts) // count)
        for prompt in prompts[::step][:count]:
            encoded = self._codec.encode(LONGEST_ID, prompt[:SAMPLED_CHARACTERS])
            self._samples += 1
            self._tokens += estimate_tokens(" ".join(_texts(orjson.loads(encoded)))) + OVERHEAD
            self._bytes += len(encoded)

    @property
    def per_byte(self) -> float:
        """Tokens per byte of an encoded request, of those seen so far."""
        return self._tokens / self._bytes if self._bytes else USUAL_TOKENS_PER_BYTE


def _texts(value: Any) -> Iterator[str]:
    """All texts inside a JSON value, without its keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def expected_output_tokens(schema: Mapping[str, Any] | None, ceiling: int | None) -> int:
    """The approximate length of an answer in tokens, from its schema; at most `ceiling`."""
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
