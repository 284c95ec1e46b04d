"""What others wrote is shown without doing anything to the terminal, the log or the report that shows it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import BatchwerkError, UsageError
from blocks.printable import counted, printable, printable_lines, some_names

CLIPBOARD = "\x1b]52;c;ZXZpbA==\x07"
DANGEROUS = ["\x1b[2J", CLIPBOARD, "\x9b31m", "\u202edwssap", "\u2028", "\r", "\x00", "\x7f", "\U000e0041", "\ud800"]


@pytest.mark.parametrize("text", DANGEROUS)
def test_what_a_terminal_would_obey_is_written_out(text: str) -> None:
    """Nothing that is left is hidden, and a JSON text with it is still the same JSON."""
    shown = printable(f"before {text} after")
    assert shown.isprintable()
    assert shown.startswith("before \\")
    assert json.loads(f'"{printable_lines(text)}"') == text


@pytest.mark.parametrize(("count", "said"), [(0, "0 batches"), (1, "1 batch"), (2_000, "2,000 batches")])
def test_a_number_has_its_noun_in_the_singular_or_plural(count: int, said: str) -> None:
    """Nobody is told of 1 requests."""
    assert counted(count, "batch", "batches") == said


@pytest.mark.parametrize("text", ["naïve 価格\u3000安い", "नम\u200cस्ते", "👩\u200d👧 1\u00a0€", "C:\\temp"])
def test_what_people_write_stays_as_it_is(text: str) -> None:
    """Scripts, emoji and their joiners are no attack."""
    assert printable(text) == printable_lines(text) == text


@given(st.text(), st.integers(1, 50))
def test_printable_text_is_one_short_line(text: str, most: int) -> None:
    """Whatever it was; and doing it twice changes nothing."""
    shown = printable(text, most)
    assert len(shown) <= most
    assert len(shown.splitlines()) <= 1
    assert printable(shown, most) == shown
    assert printable_lines(shown) == shown


def test_lines_stay_lines() -> None:
    """A prompt is shown as it is sent, but for what is hidden in it."""
    assert printable_lines("a\n\tb\r\n\x1b[31mc") == "a\n\tb\\r\n\\u001b[31mc"


def test_few_names_are_shown_and_each_is_short() -> None:
    """What a file holds is not told by an error about it."""
    assert some_names(["a", "b"]) == "a, b"
    assert some_names(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert len(some_names(["x" * 1000])) == 40


@pytest.mark.parametrize("kind", [BatchwerkError, UsageError])
def test_an_error_can_be_printed_whatever_it_quotes(kind: type[BatchwerkError]) -> None:
    """Two lines: what happened, and what to do; neither breaks, and neither is endless."""
    error = kind(f"the file {CLIPBOARD}\nbatchwerk: all is well", next_step=f"{CLIPBOARD}" * 10_000)
    first, second = str(error).split("\n")
    assert first.isprintable()
    assert second.strip().isprintable()
    assert len(str(error)) < 5_000
    assert str(error).startswith("the file \\u001b]52")
