"""Errors that differ only in their values are one reason, and each reason has something to do about it."""

from __future__ import annotations

import pytest

from flows.domain.remedies import LONGEST_REASON, reason_of, remedy_of


def test_values_and_numbers_do_not_make_reasons() -> None:
    """Rows that failed alike are counted together."""
    first = reason_of("sentiment: \"gut\" is not one of ['a', 'b'] at 1,024")
    assert first == reason_of("sentiment: \"schlecht\" is not one of ['a', 'b'] at 7")
    assert first != reason_of('topics: "gut" is not of type "array"')
    assert reason_of('"topics" is a required property') != reason_of('"label" is a required property')
    assert len(reason_of("x" * 10_000)) == LONGEST_REASON


@pytest.mark.parametrize(
    ("error", "words", "retries"),
    [
        ("length: the answer was cut off at the limit of output tokens", "max_output_tokens", True),
        ("refusal: I can't help with that", "declined", False),
        ("content_policy: the request was refused for its content", "declined", False),
        ("content_filter: the provider's filter stopped the answer", "declined", False),
        ("score: 7 is not one of [1, 2]", "schema", True),
        ("the answer is not JSON: unexpected end", "schema", True),
        ("its answer was lost; --retry-failed requests it again", "no answer", True),
        ("the prompt could not be rendered: 'x' is undefined", "correct the data", False),
        ("server_error: try later", "provider reported", True),
    ],
)
def test_what_to_do_about_it(error: str, words: str, retries: bool) -> None:
    """Sending again is offered only where it may help."""
    found = remedy_of(error)
    assert words in found.text
    assert found.retries is retries
