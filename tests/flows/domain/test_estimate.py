"""What a run will cost."""

from flows.domain.estimate import Unsent, estimate
from flows.domain.ledger import Ledger
from flows.domain.prices import UNPRICED, Rates
from tests.flows.domain.pricing import day_price
from tests.flows.domain.simulation import ledger_of

PRICE = day_price(
    (0, Rates(10, 40, 10, 10, 10), Rates(20, 80, 20, 20, 20)),
    (100, Rates(20, 40, 20, 20, 20), Rates(40, 80, 40, 40, 40)),
)


def test_an_estimate_without_a_price_has_no_cost() -> None:
    """Tokens are known, money is not."""
    found = estimate(Unsent(10, 250, 20), UNPRICED, Ledger())
    assert (found.input_tokens, found.output_tokens, found.cost, found.single_cost) == (250, 200, None, None)


def test_an_estimate_of_nothing_is_nothing() -> None:
    """No requests cost zero, and divide nothing by it."""
    found = estimate(Unsent(0, 0, 20), PRICE, Ledger())
    assert (found.input_tokens, found.output_tokens, found.cost, found.single_cost) == (0, 0, 0, 0)


def test_an_estimate_uses_the_tier_of_one_request() -> None:
    """A thousand small requests are not one large one."""
    small = estimate(Unsent(1000, 50 * 1000, 1), PRICE, Ledger())
    assert small.input_tokens == 50_000
    assert small.cost == 50_000 * 10 + 1000 * 40
    large = estimate(Unsent(10, 150 * 10, 1), PRICE, Ledger())
    assert large.cost == 1_500 * 20 + 10 * 40


def test_an_estimate_learns_from_what_was_counted() -> None:
    """Usage of batches whose every request was answered replaces the guess."""
    seen = ledger_of((10, 1.0, 10), tokens=(50, 7))
    found = estimate(Unsent(10, 250, 20), PRICE, seen)
    assert (found.input_tokens, found.output_tokens) == (500, 70)


def test_an_estimate_does_not_learn_from_half_a_batch() -> None:
    """Failed requests have bytes and no usage."""
    seen = ledger_of((10, 1.0, 9), tokens=(50, 7))
    assert estimate(Unsent(10, 250, 20), PRICE, seen).input_tokens == 250


def test_the_ceiling_is_what_the_longest_answers_cost() -> None:
    """With a limit of output tokens no answer costs more; without one there is no such bound."""
    assert estimate(Unsent(10, 500, 20, max_output_tokens=100), PRICE, Ledger()).ceiling == 500 * 10 + 10 * 100 * 40
    assert estimate(Unsent(10, 500, 20), PRICE, Ledger()).ceiling is None
    assert estimate(Unsent(10, 500, 20, max_output_tokens=100), UNPRICED, Ledger()).ceiling is None
