"""How long to wait, how large the next batch, and what a run will cost."""

from itertools import count

import pytest

from flows.domain.estimate import estimate
from flows.domain.events import Slice
from flows.domain.ledger import Batch, Ledger, State
from flows.domain.money import ModelPrice, Rates, Tier
from flows.domain.pacing import AUTO_LEAST, AUTO_START, AUTO_TARGET, auto_batch_size, deadline
from tests.flows.domain.histories import collected

PRICE = ModelPrice(
    (
        Tier(0, Rates(10, 40, 10, 10, 10), Rates(20, 80, 20, 20, 20), ""),
        Tier(100, Rates(20, 40, 20, 20, 20), Rates(40, 80, 40, 40, 40), ""),
    )
)


def ledger_of(*batches: tuple[int, float, int], tokens: tuple[int, int] = (0, 0)) -> Ledger:
    """Collected batches as (requests, seconds at the provider, answers that were good)."""
    ledger, start = Ledger(), count(0, 10_000)
    for number, (requests, seconds, ok) in enumerate(batches, 1):
        first = next(start)
        batch = Batch(number, [Slice(first, first + requests)], State.COLLECTED, bytes=requests * 100)
        batch.submitted_at, batch.ended_at = 1000.0, 1000.0 + seconds
        batch.result = collected(number, ok=ok, input_tokens=requests * tokens[0], output_tokens=ok * tokens[1]).result
        ledger.batches[number] = batch
    return ledger


@pytest.mark.parametrize(("requests", "seconds"), [(1, 600), (600, 600), (601, 601), (10_000, 10_000)])
def test_a_batch_is_waited_for_as_the_tutorial_says(requests: int, seconds: float) -> None:
    """At least ten minutes, else a second a request."""
    assert deadline(requests, None) == seconds
    assert deadline(requests, 90_000.0) == 90_000, "a provider that says how long batches take is believed"


def test_quick_batches_grow_and_slow_ones_shrink() -> None:
    """Half as large again below 70 % of the target, 70 % above 150 %, the same between."""
    assert auto_batch_size(Ledger(), 10_000) == AUTO_START
    assert auto_batch_size(ledger_of((1000, AUTO_TARGET * 0.5, 1000)), 10_000) == 1500
    assert auto_batch_size(ledger_of((1000, AUTO_TARGET, 1000)), 10_000) == 1000
    assert auto_batch_size(ledger_of((1000, AUTO_TARGET * 2, 1000)), 10_000) == 700


def test_an_automatic_size_stays_within_its_bounds() -> None:
    """Never above the provider's limit, never a batch of next to nothing."""
    quick, slow = [(10, 1.0, 10)] * 40, [(10, 9999.0, 10)] * 40
    assert auto_batch_size(ledger_of(*quick), 5_000) == 5_000
    assert auto_batch_size(ledger_of(*slow), 5_000) == AUTO_LEAST
    assert auto_batch_size(Ledger(), 500) == 500


def test_an_estimate_without_a_price_has_no_cost() -> None:
    """Tokens are known, money is not."""
    found = estimate(10, 1000, 0.25, 20, None, Ledger())
    assert (found.input_tokens, found.output_tokens, found.cost, found.single_cost) == (250, 200, None, None)


def test_an_estimate_of_nothing_is_nothing() -> None:
    """No requests cost zero, and divide nothing by it."""
    found = estimate(0, 0, 0.25, 20, PRICE, Ledger())
    assert (found.input_tokens, found.output_tokens, found.cost, found.single_cost) == (0, 0, 0, 0)


def test_an_estimate_uses_the_tier_of_one_request() -> None:
    """A thousand small requests are not one large one."""
    small = estimate(1000, 4 * 50 * 1000, 0.25, 1, PRICE, Ledger())
    assert small.input_tokens == 50_000
    assert small.cost == 50_000 * 10 + 1000 * 40
    large = estimate(10, 4 * 150 * 10, 0.25, 1, PRICE, Ledger())
    assert large.cost == 1_500 * 20 + 10 * 40


def test_an_estimate_learns_from_what_was_counted() -> None:
    """Usage of batches whose every request was answered replaces the guess."""
    seen = ledger_of((10, 1.0, 10), tokens=(50, 7))
    found = estimate(10, 1000, 0.25, 20, PRICE, seen)
    assert (found.input_tokens, found.output_tokens) == (500, 70)


def test_an_estimate_does_not_learn_from_half_a_batch() -> None:
    """Failed requests have bytes and no usage."""
    seen = ledger_of((10, 1.0, 9), tokens=(50, 7))
    assert estimate(10, 1000, 0.25, 20, PRICE, seen).input_tokens == 250


def test_a_batch_that_failed_says_nothing_about_size() -> None:
    """A provider in trouble is not sent larger batches because it fails quickly."""
    ledger = ledger_of(*[(1000, 1.0, 0)] * 3)
    for batch in ledger.batches.values():
        batch.failed = "internal error"
    assert auto_batch_size(ledger, 10_000) == AUTO_START
