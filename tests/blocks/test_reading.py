"""Reading the results of a batch, whatever stands in them: what no provider's client has to know."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from blocks.batch import Answer, FailureKind
from blocks.providers.reading import Reading


def answer_of(row: Any) -> Answer | None:
    """As a client reads a row; one number is too much for it."""
    return Answer(row["custom_id"], str(1 / row["x"]), None, None)


def test_a_row_that_breaks_its_reader_keeps_no_other_from_being_read(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it raises: the row was paid, is its request's, and can't be read. Nothing of it is in the log."""
    caplog.set_level(logging.WARNING)
    reading = Reading("test", "the batch 7", promised=3)
    lines = [b'{"custom_id": "a-1", "x": 1}', b'{"custom_id": "a-2", "x": 0}', b'{"custom_id": "a-3", "x": "secret"}']
    first, second, third = reading.lines(lines, answer_of)
    assert (first.text, first.failure) == ("1.0", None)
    for number, bad in ((2, second), (3, third)):
        assert (bad.custom_id, bad.text) == (f"a-{number}", None)
        assert bad.failure is not None
        assert bad.failure.kind is FailureKind.UNREADABLE
    reading.check()
    assert caplog.text.count("can't be read") == 2
    assert "secret" not in caplog.text


@pytest.mark.parametrize(("promised", "fewer"), [(2, 0), (3, 1), (30, 28)])
def test_what_was_read_is_compared_with_what_was_promised(promised: int, fewer: int) -> None:
    """A row that comes twice counts once."""
    reading = Reading("test", "the batch 7", promised)
    rows = [{"custom_id": "a-1", "x": 1}, {"custom_id": "a-2", "x": 1}, {"custom_id": "a-1", "x": 1}]
    assert len(list(reading.rows(rows, answer_of))) == 3
    assert reading.lacking == fewer
