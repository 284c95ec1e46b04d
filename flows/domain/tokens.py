"""Input tokens of requests before they are sent: counted with a vocabulary, or estimated from the shape of the text.

Costs are computed from the usage that the provider reports, never from this.
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
    r"|(?P<word>[A-Za-z\u00aa-\u024f\u1e00-\u1eff]+)"
    r"|(?P<digits>[0-9]+)"
    r"|(?P<space>[ \t]{2,}|[\r\n]+)"
    r"|(?P<one> |\t)"
    r"|(?P<script>[\u0370-\u1cff]+)"
    r"|(?P<cjk>[\u2e80-\ua4cf\uac00-\ud7af\uf900-\ufaff]+)"
    r"|(?P<symbol>[^\x00-\x7f])"
    r"|(?P<mark>(?P<same>.)(?P=same)*)",  # the same one, any number of times
    re.DOTALL,
)

# Fitted to seven vocabularies on texts in ten languages (docs/wire-protocols.md §9).
_COST: dict[str, Callable[[str], float]] = {
    "blob": lambda text: 0.72 * len(text),
    "word": lambda text: 0.75 + 0.45 * max(0, len(text) - 5) + 2.8 * (len(text.encode()) - len(text)),
    "digits": lambda text: ceil(len(text) / 3),
    "space": lambda _: 1,
    "one": lambda _: 0,
    "script": lambda text: 0.35 * len(text),
    "cjk": lambda text: 0.68 * len(text),
    "symbol": lambda _: 1.7,
    "mark": lambda text: 0.82 + len(text) / 64,
}

Spread = tuple[float, float]  # the real number as a multiple of what is stated: at least, at most

EXACT: Spread = (1.0, 1.0)
# Totals of a data set, as measured (§9): texts in Latin letters, and others.
STAND_IN: tuple[Spread, Spread] = ((0.95, 1.10), (0.65, 1.20))
BY_SHAPE: tuple[Spread, Spread] = ((0.80, 1.12), (0.72, 1.22))
LATIN_UP_TO = "\u036f"
FOREIGN = 0.2  # from this share of other letters on


def estimate_tokens(text: str) -> float:
    """The approximate number of tokens. Slow (2 MB/s): use a `TokenCounter` for many texts."""
    tokens = sum(_cost(piece) for piece in _PIECES.finditer(text))
    return min(tokens, len(text.encode()))  # a byte-level tokenizer never makes more tokens than bytes


def _cost(piece: re.Match[str]) -> float:
    return _COST[piece.lastgroup or "mark"](piece.group())


class Vocabulary(Protocol):
    """Counts tokens."""

    @property
    def name(self) -> str:
        """The vocabulary's."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether it is the model's own, or only stands in for it."""
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
        self._letters = self._foreign = 0  # of the sample

    def tokens_of(self, prompts: Sequence[str], sizes: Sequence[int]) -> list[int]:
        """`sizes`: bytes of the encoded request with each prompt."""
        sample = self._sample_of(prompts)
        if self._vocabulary is None:
            self._add(sample)
            return [ceil(size * self.per_byte) for size in sizes]
        tokens = self._vocabulary.tokens_of(prompts)
        self._tokens, self._bytes = self._tokens + sum(tokens), self._bytes + sum(sizes)
        return tokens

    def _sample_of(self, prompts: Sequence[str]) -> list[str]:
        count = SAMPLES_PER_CALL if self._samples < MANY_SAMPLES else 1
        sample = [prompt[:SAMPLED_CHARACTERS] for prompt in prompts[:: max(1, len(prompts) // count)][:count]]
        self._samples += len(sample)
        letters = [letter for prompt in sample for letter in prompt if letter.isalpha()]
        self._letters += len(letters)
        self._foreign += sum(letter > LATIN_UP_TO for letter in letters)
        return sample

    def _add(self, sample: Sequence[str]) -> None:
        for prompt in sample:
            encoded = self._codec.encode(LONGEST_ID, prompt)
            self._tokens += estimate_tokens(" ".join(_texts(orjson.loads(encoded)))) + OVERHEAD
            self._bytes += len(encoded)

    @property
    def per_byte(self) -> float:
        """Tokens per byte of an encoded request, of those seen so far."""
        return self._tokens / self._bytes if self._bytes else USUAL_TOKENS_PER_BYTE

    @property
    def spread(self) -> Spread:
        """How far the total may be off."""
        if self._vocabulary is not None and self._vocabulary.is_exact:
            return EXACT
        latin, others = BY_SHAPE if self._vocabulary is None else STAND_IN
        return others if self._foreign > FOREIGN * self._letters else latin


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
