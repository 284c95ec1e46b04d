"""A run says what it does and what it waits for, and says of no batch that it is where it is not."""

from __future__ import annotations

import time

import pytest

from flows.domain.batches import State
from flows.domain.estimate import Outlook
from flows.domain.money import PICO
from flows.report.progress import PLANNING, Progress
from flows.report.waits import SHORT, Waits

NOON = 1_795_000_000.0


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ({State.RESERVED: 10}, "10 batches to be sent"),
        ({State.SUBMITTING: 1}, "1 batch being sent"),
        ({State.SUBMITTED: 2}, "2 batches with the provider (5 requests)"),
        ({State.UNKNOWN: 1}, "1 batch being looked for at the provider"),
        ({State.RESERVED: 3, State.ENDED: 1}, "3 batches to be sent, 1 batch ready to be collected"),
        ({}, "deciding what to do"),
    ],
)
def test_batches_are_where_they_are(batches: dict[State, int], words: str) -> None:
    """What waits for its turn is not with the provider."""
    assert Progress(10, 5, batches=batches, requests=5).sentence() == f"5 of 10 rows; {words}; $0.00 so far"


def test_a_plan_that_is_being_made_shows_no_figures() -> None:
    """Nothing is known yet of rows that are done, or of money."""
    assert Progress(1_000, phase=PLANNING).sentence() == "planning 1,000 rows"
    assert Progress(1, phase=PLANNING).sentence() == "planning 1 row"


def test_what_is_waited_for_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Since when, and who holds it; a moment's wait is not worth a word, and two who wait for it are one wait."""
    clock = NOON
    monkeypatch.setattr("flows.report.waits.time.time", lambda: clock)
    waits = Waits()
    with waits.waiting("a slot of X") as tell, waits.waiting("a slot of X"):
        assert waits.long() == ()
        tell("4 of 4 taken")
        clock += SHORT
        (waiting,) = waits.long()
        at = time.strftime("%H:%M:%S", time.localtime(NOON))
        assert waiting.sentence() == f"waiting for a slot of X since {at} (4 of 4 taken)"
        assert waiting.sentence() in Progress(1, waits=(waiting,)).sentence()
    assert waits.long() == ()


@pytest.mark.parametrize(
    ("outlook", "words"),
    [
        (Outlook(0, 0, 0), "$0.00 so far"),
        (Outlook(0, 2 * PICO, 5 * PICO), "$0.00 so far, about $2.00 under way, $5.00 expected in all"),
        (
            Outlook(PICO, 2 * PICO, 5 * PICO, 4 * PICO, 6 * PICO),
            "$1.00 so far, about $2.00 under way, $5.00 expected in all ($4.00 to $6.00)",
        ),
        (Outlook(None, None, None), "unpriced"),
        (Outlook(PICO, None, None), "$1.00 so far, more under way at an unknown price"),
        (Outlook(3 * PICO, 0, 3 * PICO, 3 * PICO, 3 * PICO), "$3.00 so far"),
    ],
)
def test_what_will_still_be_billed_is_told_beside_what_was(outlook: Outlook, words: str) -> None:
    """Zero is never the whole truth while batches are out."""
    assert Progress(10, outlook=outlook).cost == words
