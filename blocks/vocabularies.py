"""Numbers of tokens, offline: exact for models whose vocabulary is public. Needs the extra `tokens`.

What a service adds around messages is counted as documented (docs/wire-protocols.md §9). What it makes of a schema is
documented nowhere: the schema counts as the JSON that is sent.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from itertools import pairwise
from math import ceil
from typing import Any

import orjson

from blocks.batch import RequestForm

Count = Callable[[Sequence[str]], list[int]]

# What may be a special token to a tokenizer, though it is plain text in a message.
_SPECIAL = re.compile(r"<[|\uff5c/a-z_]|\[/?[A-Z_]+\]")


@dataclass(frozen=True, slots=True)
class Framing:
    """A vocabulary by its name in `splintr`, and the tokens that a service puts around messages.

    `factor`: of a vocabulary that only stands in for one that is not public: tokens of the other for one of its own.
    """

    vocabulary: str
    per_message: int
    per_request: int
    factor: float | None = None


STAND_IN = Framing("o200k_base", 4, 3, factor=1.05)  # §9: the middle of six vocabularies


Framings = Mapping[str, Framing]  # by the beginning of a model's name


def framing_of(framings: Framings, model: str) -> Framing | None:
    """That of the longest beginning that fits; None for a model that nothing is known of."""
    name = model.removeprefix("models/")
    fitting = [begins for begins in framings if name.startswith(begins)]
    return framings[max(fitting, key=len)] if fitting else None


class Vocabulary:
    """Counts the tokens of requests of one form: exactly, or about if the vocabulary stands in for another."""

    def __init__(self, framing: Framing, count: Count, form: RequestForm) -> None:
        self._framing = framing
        self._count = count
        self._form = form

    @property
    def name(self) -> str:
        """The vocabulary's."""
        return self._framing.vocabulary

    @property
    def is_exact(self) -> bool:
        """Whether it is the model's own."""
        return self._framing.factor is None

    def tokens_of(self, prompts: Sequence[str]) -> list[int]:
        """Input tokens of a request with each prompt."""
        return self.framed(self.count(prompts))

    def count(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of the prompts alone, which are the same for all forms that share the vocabulary."""
        return self._count(prompts)

    def framed(self, counts: Sequence[int]) -> list[int]:
        """Input tokens of requests whose prompts have these counts."""
        factor = self._framing.factor or 1
        return [ceil((tokens + self.shared) * factor) for tokens in counts]

    @cached_property
    def shared(self) -> int:
        """Tokens that all requests have in common."""
        form, framing = self._form, self._framing
        texts = [form.system] if form.system else []
        if form.schema is not None:
            texts.append(orjson.dumps(form.schema).decode())
        messages = 2 if form.system else 1
        return framing.per_request + framing.per_message * messages + sum(self._count(texts))


def vocabulary_of(framings: Framings, form: RequestForm) -> Vocabulary | None:
    """None where the extra `tokens` is not installed."""
    if find_spec("splintr") is None:
        return None
    framing = framing_of(framings, form.model) or STAND_IN
    return Vocabulary(framing, _counting(framing.vocabulary), form)


def forget_vocabularies() -> None:
    """Let their memory go, 30 MB for each; the next count reads its vocabulary again."""
    _tokenizer.cache_clear()


@cache
def _tokenizer(name: str) -> Any:
    import splintr  # noqa: PLC0415  # an extra

    return splintr.Tokenizer.from_pretrained(name)


def _counting(vocabulary: str) -> Count:
    def count(texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        tokenizer = _tokenizer(vocabulary)
        texts = [_whole(text) for text in texts]
        _, offsets = tokenizer.encode_batch_flat(texts)
        bounds = struct.unpack(f"<{len(texts) + 1}Q", offsets)
        counts = [stop - start for start, stop in pairwise(bounds)]
        for index, text in enumerate(texts):
            if ("<" in text or "[" in text) and _SPECIAL.search(text):
                counts[index] = len(tokenizer.encode_ordinary(text))
        return counts

    return count


def _whole(text: str) -> str:
    """Half a surrogate pair is no text."""
    return text if text.isascii() else text.encode(errors="replace").decode()
