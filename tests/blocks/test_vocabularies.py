"""Exact token counts, against a second tokenizer that was written independently."""

import subprocess
import sys

import pytest
import toktok

from blocks.batch import RequestForm
from blocks.catalog import PROVIDERS
from blocks.vocabularies import Vocabulary

TEXTS = [
    "",
    "The delivery was quick and the box was fine.",
    "Die Lieferung war schnell, aber die Verpackung war beschädigt. #Enttäuscht @haendler 😡😡",
    "製品は素晴らしいですが、配達が遅かったです。",
    "Очень хороший товар, рекомендую всем!!! 10/10",
    "منتج رائع لكن التوصيل تأخر كثيرا",
    '{"sentiment": "positive", "topics": ["delivery", "price"]}',
    "https://example.com/a/b?c=d&e=3f786850e387550fdab836ed7e6dc881de23001b",
    "line one\r\n\n\n   line two\t\tend   ",
    "<p>I&#39;ve had it <b>twice</b></p><br />",
    "👩‍👩‍👧‍👦🇩🇪 e\u0301 ﷽",
    "=" * 3_000,
]


def vocabulary(provider: str, form: RequestForm) -> Vocabulary:
    """The vocabulary of a model that has one."""
    found = PROVIDERS[provider].vocabulary_for(form)
    assert found is not None
    return found


@pytest.mark.parametrize(("model", "encoding"), [("gpt-4.1-mini", "o200k_base"), ("gpt-4-turbo", "cl100k_base")])
def test_two_tokenizers_count_the_same(model: str, encoding: str) -> None:
    """In every script, one text at a time."""
    counted = vocabulary("openai", RequestForm(model))
    assert [tokens - counted.shared for tokens in counted.tokens_of(TEXTS)] == toktok.batch_count(TEXTS, encoding)


def test_the_example_of_the_reference_is_counted_as_it_was_billed() -> None:
    """OpenAI's reference of chat completions shows a usage of 19 prompt tokens for these two messages."""
    form = RequestForm("gpt-4.1", system="You are a helpful assistant.")
    assert vocabulary("openai", form).tokens_of(["Hello!"]) == [19]


@pytest.mark.parametrize("text", ["<|endoftext|>", "a <|im_start|> b", "[INST] x [/INST]", "<s>", "<start_of_turn>"])
@pytest.mark.parametrize(
    ("provider", "model"),
    [("openai", "gpt-4o"), ("mistral", "mistral-small-latest"), ("gemini", "gemini-2.5-flash")],
)
def test_what_looks_like_a_special_token_is_plain_text(provider: str, model: str, text: str) -> None:
    """A row that holds a control word of a chat template costs what its letters cost: more than one token."""
    counted = vocabulary(provider, RequestForm(model))
    assert counted.tokens_of([text])[0] - counted.shared > 1


def test_half_a_surrogate_pair_is_counted() -> None:
    """Such a row fails later, with a reason; a plan must not stop at it."""
    assert vocabulary("openai", RequestForm("gpt-4o")).tokens_of(["\ud83d"])[0] > 0


def test_a_schema_and_a_system_text_are_part_of_every_request() -> None:
    """Both are sent with each request, and are billed with it."""
    plain = vocabulary("openai", RequestForm("gpt-4.1"))
    told = vocabulary("openai", RequestForm("gpt-4.1", system="Be brief.", schema={"type": "object"}))
    assert told.tokens_of(["x"])[0] > plain.tokens_of(["x"])[0] + 4


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [
        ("openai", "gpt-4.1-2025-04-14", "o200k_base"),
        ("openai", "gpt-4-0613", "cl100k_base"),
        ("openai", "gpt-6-luna", None),
        ("anthropic", "claude-sonnet-5", None),
        ("holysheep", "deepseek-v3.2", "deepseek_v3"),
        ("holysheep", "claude-sonnet-4.5", None),
        ("mistral", "mistral-large-2512", "mistral_v3"),
        ("mistral", "mistral-large-2407", None),
        ("gemini", "models/gemini-2.5-flash", "gemma4"),
        ("gemini", "gemini-9", None),
    ],
)
def test_a_vocabulary_is_only_claimed_where_it_is_public(provider: str, model: str, expected: str | None) -> None:
    """A guess must never be shown as a count."""
    counted = vocabulary(provider, RequestForm(model))
    assert (counted.name if counted.is_exact else None) == expected


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-sonnet-5", "claude-opus-4-7"])
def test_a_vocabulary_that_stands_in_is_scaled(model: str) -> None:
    """Claude's own is not public; newer models make more tokens of the same text."""
    counted = vocabulary("anthropic", RequestForm(model))
    plain = vocabulary("openai", RequestForm("gpt-4.1"))
    text = ["The delivery was quick and the box was fine. " * 100]
    factor = counted.tokens_of(text)[0] / plain.tokens_of(text)[0]
    assert not counted.is_exact
    assert 1.1 < factor < 1.15 if model == "claude-sonnet-4-5" else 1.4 < factor < 1.5


def test_without_the_extra_tokens_are_estimated() -> None:
    """In a process where the tokenizer can't be imported, nothing fails and nothing is claimed to be exact."""
    program = (
        "import sys; sys.modules['splintr'] = None\n"
        "from blocks.batch import RequestForm\n"
        "from blocks.catalog import PROVIDERS\n"
        "print(PROVIDERS['openai'].vocabulary_for(RequestForm('gpt-4.1')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
