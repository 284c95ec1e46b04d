"""Keys are hidden in reasons and in logs; answers and everything else are left as they are."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import pytest

from blocks.batch import (
    Answer,
    BatchPhase,
    BatchProvider,
    BatchStatus,
    Failure,
    FailureKind,
    PollPlan,
    RequestForm,
)
from blocks.errors import Complaint
from blocks.masking import Masked, MaskingFilter, hiding
from blocks.transport import CHATTY, Transport

KEY = "sk-planted-1234"
FORM = RequestForm("m")
STATUS = BatchStatus("b", BatchPhase.ENDED, "completed")


class Telling:
    """A provider that repeats the key."""

    name = "someone"
    polling = PollPlan()
    replays = False

    def poll(self, batch_id: str) -> BatchStatus:
        return replace(STATUS, wording=f"bad {KEY}", error=f"for {KEY}")

    cancel = poll

    def results(self, batch_id: str, form: RequestForm) -> Iterator[Answer]:
        yield Answer("1", f"an answer about {KEY}", None, None)
        yield Answer("2", None, None, Failure(FailureKind.TERMINAL, KEY, f"the key {KEY} is wrong"))


def masked() -> Masked:
    return Masked(cast("BatchProvider", Telling()), hiding(KEY))


def test_reasons_of_rows_lose_the_key_and_answers_keep_what_they_say() -> None:
    """A model's answer is the user's own; it is passed on to the letter."""
    answer, failed = masked().results("b", FORM)
    assert answer == Answer("1", f"an answer about {KEY}", None, None)
    assert failed.failure == Failure(FailureKind.TERMINAL, "…", "the key … is wrong")


@pytest.mark.parametrize("ask", [Masked.poll, Masked.cancel])
def test_reasons_of_batches_lose_the_key(ask: object) -> None:
    """All else that is told of a batch stays."""
    assert callable(ask)
    assert ask(masked(), "b") == replace(STATUS, wording="bad …", error="for …")


def test_what_is_too_short_for_a_key_is_not_hidden() -> None:
    """A `k` for trials would leave no sentence whole."""
    assert hiding("k")("the key k is wrong") == "the key k is wrong"
    assert hiding("")("nothing") == "nothing"


def test_a_record_is_logged_without_the_key(caplog: pytest.LogCaptureFixture) -> None:
    """Also where it stands in the arguments, in bytes as well."""
    log = logging.getLogger("tests.masking")
    log.addFilter(MaskingFilter(hiding(KEY)))
    log.warning("%s and %r of 100%%", KEY, [(b"x-key", KEY.encode())])
    assert caplog.messages == ["… and [(b'x-key', b'…')] of 100%"]


def test_a_closed_client_leaves_the_logs_alone() -> None:
    """Its filters go with it."""
    before = [list(logging.getLogger(name).filters) for name in CHATTY]
    client = Transport("someone", "http://127.0.0.1", {"x-api-key": KEY}, lambda _: Complaint(None, ""))
    assert all(logging.getLogger(name).filters for name in CHATTY)
    client.close()
    assert [logging.getLogger(name).filters for name in CHATTY] == before
