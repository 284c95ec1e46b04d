"""Token estimates: bounded, growing with the text, and quick."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.domain.tokens import (
    EXACT,
    MANY_SAMPLES,
    SAMPLES_PER_CALL,
    TokenCounter,
    estimate_tokens,
    expected_output_tokens,
)


def test_nothing_has_no_tokens() -> None:
    """An empty text costs nothing beside its frame."""
    assert estimate_tokens("") == 0


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("The delivery was quick and the box was fine.", 8, 16),
        ("Die Lieferung war schnell, aber die Verpackung war beschädigt.", 10, 26),
        ("製品は素晴らしいですが、配達が遅かったです。", 10, 50),
        ('{"sentiment": "positive", "topics": ["delivery", "price"]}', 12, 30),
        ("3f786850e387550fdab836ed7e6dc881de23001b", 16, 40),
        ("https://example.com/a/b?c=d", 6, 22),
        ("🙂" * 10, 10, 40),
        (" " * 1000, 0, 300),
        ("\n" * 1000, 0, 1000),
    ],
)
def test_an_estimate_is_in_the_right_region(text: str, least: float, most: float) -> None:
    """Between the counts of common tokenizers and twice that."""
    assert least <= estimate_tokens(text) <= most


@given(st.text(max_size=200))
def test_no_text_has_more_tokens_than_bytes(text: str) -> None:
    """Tokenizers merge bytes, they never split them: an estimate stays near that bound."""
    assert 0 <= estimate_tokens(text) <= 1.01 * len(text.encode()) + 1


@given(st.text("abc 1.ä製🙂\n", max_size=80), st.text("abc 1.ä製🙂\n", max_size=80))
def test_more_text_is_not_much_less(first: str, second: str) -> None:
    """Two texts in one have about the tokens of both."""
    together = estimate_tokens(first + second)
    apart = estimate_tokens(first) + estimate_tokens(second)
    assert abs(together - apart) <= 26


@pytest.mark.parametrize("text", ["=" * 20_000, "ab-" * 7_000, "a_" * 10_000, "A1" * 10_000, "/" * 20_000])
def test_long_lines_take_no_longer_than_others(text: str) -> None:
    """A row of dashes or an aligned sequence must not stop a plan."""
    started = time.process_time()
    estimate_tokens(text)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("schema", "ceiling", "least", "most"),
    [
        (None, None, 100, 100),
        (None, 300, 150, 150),
        ({"type": "boolean"}, None, 2, 2),
        ({"enum": ["a", "b"]}, None, 3, 3),
        ({"type": "string"}, None, 8, 8),
        ({"type": "array", "items": {"type": "integer"}}, None, 11, 11),
        ({"type": "object", "properties": {"a": {"type": "boolean"}}}, None, 9, 9),
        ({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}}}, None, 20, 60),
        ({"type": "object", "properties": {name: {"type": "string"} for name in "abcdefghij"}}, 30, 30, 30),
        ({"type": "object", "properties": {}}, 1, 1, 1),
        ({}, None, 1, 200),
    ],
)
def test_answers_are_estimated_from_their_shape(schema: Any, ceiling: int | None, least: int, most: int) -> None:
    """More fields are more tokens, never more than the ceiling and never none."""
    assert least <= expected_output_tokens(schema, ceiling) <= most


def test_a_schema_that_holds_itself_has_an_end() -> None:
    """An estimate of a recursive shape stops at some depth."""
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    schema["properties"]["child"] = schema
    level = 2 + 4 + estimate_tokens("child")
    assert expected_output_tokens(schema, None) == ceil(9 * level + expected_output_tokens({"type": "string"}, None))


@dataclass
class Recording:
    """A codec that remembers the prompts which it encodes."""

    seen: list[str]
    head = separator = tail = b""

    def encode(self, custom_id: str, prompt: str, *, longer: bool = False) -> bytes:  # as the port has it
        self.seen.append(prompt)
        return orjson.dumps({"text": prompt})


@dataclass
class Counting:
    """A vocabulary in which each request has a token."""

    is_exact: bool
    name: str = "counting"

    def tokens_of(self, prompts: Sequence[str]) -> list[int]:
        return [1] * len(prompts)


def counted(prompts: Sequence[str], vocabulary: Counting | None = None) -> tuple[TokenCounter, list[str]]:
    codec = Recording([])
    counter = TokenCounter(codec, vocabulary)
    counter.tokens_of(prompts, [len(prompt) for prompt in prompts])
    return counter, codec.seen


def test_a_sample_is_taken_from_all_over_the_prompts() -> None:
    """At even distances from the first one: neighbours are often alike."""
    prompts = [str(number) for number in range(10 * SAMPLES_PER_CALL)]
    counter, seen = counted(prompts)
    assert seen == prompts[::10]
    for _ in range(MANY_SAMPLES // SAMPLES_PER_CALL):
        counter.tokens_of(prompts, [1] * len(prompts))
    seen.clear()
    counter.tokens_of(prompts, [1] * len(prompts))
    assert seen == prompts[:1]  # enough is known by then


LATIN, OTHERS = ["The delivery was quick."], ["配達が早かったです。"]


@pytest.mark.parametrize("vocabulary", [None, Counting(is_exact=False)], ids=["by shape", "stand-in"])
def test_an_estimate_may_be_off_in_both_directions_and_further_in_other_scripts(vocabulary: Counting | None) -> None:
    """By a part of itself: where a model's own vocabulary is not known the range says so."""
    latin, others = counted(LATIN, vocabulary)[0].spread, counted(OTHERS, vocabulary)[0].spread
    for least, most in (latin, others):
        assert 0.5 < least < 1 < most < 1.5
    assert others[0] < latin[0]
    assert latin[1] < others[1]


def test_a_stand_in_is_closer_than_an_estimate_by_shape_and_an_own_vocabulary_is_exact() -> None:
    """Of texts in Latin letters."""
    by_shape, stand_in = (counted(LATIN, each)[0].spread for each in (None, Counting(is_exact=False)))
    assert by_shape[0] < stand_in[0]
    assert stand_in[1] < by_shape[1]
    assert counted(LATIN, Counting(is_exact=True))[0].spread == EXACT == (1, 1)
