"""What a run will cost."""

from random import Random

import pytest

from flows.domain.batches import Batch, State
from flows.domain.estimate import Unsent, estimate, outlook
from flows.domain.events import Slice
from flows.domain.ledger import Ledger
from flows.domain.prices import UNPRICED, Rates
from tests.flows.domain import histories
from tests.flows.domain.pricing import day_price
from tests.flows.domain.simulation import ledger_of

PRICE = day_price(
    (0, Rates(10, 40, 10, 10, 10), Rates(20, 80, 20, 20, 20)),
    (100, Rates(20, 40, 20, 20, 20), Rates(40, 80, 40, 40, 40)),
)

USUAL = 201 / 200  # answers of a request, before anything is known


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


def test_an_estimate_learns_from_the_answers_of_a_batch_of_which_some_failed() -> None:
    """Failed requests have bytes and no usage: they count for nothing."""
    seen = ledger_of((10, 1.0, 9), tokens=(50, 7))
    found = estimate(Unsent(10, 250, 20), PRICE, seen)
    assert (found.input_tokens, found.output_tokens) == (500, 70)
    nothing = ledger_of((10, 1.0, 0), tokens=(50, 7))
    assert estimate(Unsent(10, 250, 20), PRICE, nothing).input_tokens == 250


def test_what_a_prompt_cache_took_off_is_expected_to_go_on() -> None:
    """As a share of the price: a fifth was saved of these answers. The most that it may cost counts on nothing."""
    seen = ledger_of((10, 1.0, 10), tokens=(50, 7))
    listed = 500 * 10 + 70 * 40
    seen.batches[1].result = histories.collected(
        1, ok=10, metered=10, input_tokens=500, output_tokens=70, cost=listed * 4 // 5, cache_saved=listed // 5
    ).result
    found = estimate(Unsent(10, 250, 20, max_output_tokens=7), PRICE, seen)
    assert (found.cost, found.ceiling) == (listed * 4 // 5, listed)
    assert outlook(Unsent(10, 250, 20), PRICE, seen).total == pytest.approx(2 * listed * 4 // 5, rel=0.01)


def test_the_ceiling_is_what_the_longest_answers_cost() -> None:
    """With a limit of output tokens no answer costs more; without one there is no such bound."""
    assert estimate(Unsent(10, 500, 20, max_output_tokens=100), PRICE, Ledger()).ceiling == 500 * 10 + 10 * 100 * 40
    assert estimate(Unsent(10, 500, 20), PRICE, Ledger()).ceiling is None
    assert estimate(Unsent(10, 500, 20, max_output_tokens=100), UNPRICED, Ledger()).ceiling is None


def under_way(ledger: Ledger, requests: int, tokens: int, state: State = State.SUBMITTED) -> Ledger:
    """One more batch, which has no result yet."""
    number = len(ledger.batches) + 1
    ledger.batches[number] = Batch(number, [Slice(10**6, 10**6 + requests)], state, bytes=1, tokens=tokens)
    return ledger


def test_batches_under_way_are_part_of_what_is_expected() -> None:
    """What they will be billed is told beside what was billed, from what came back of others."""
    ledger = under_way(ledger_of((10, 1.0, 10), tokens=(50, 7)), requests=20, tokens=500)
    found = outlook(Unsent(10, 250, 20), PRICE, ledger)
    assert found.under_way == 1000 * 10 + 20 * 7 * 40
    assert found.total == pytest.approx((found.under_way + 500 * 10 + 10 * 7 * 40) * USUAL, rel=0.01)
    assert (found.spent, found.lowest, found.highest) == (0, None, None), "ten answers tell no range"


def test_before_anything_came_back_the_guess_is_told() -> None:
    """Nothing was billed yet, which is not to say that it will cost nothing."""
    found = outlook(Unsent(0, 0, 20), PRICE, under_way(Ledger(), requests=10, tokens=250))
    assert (found.spent, found.under_way) == (0, 250 * 10 + 200 * 40)
    assert found.total == pytest.approx((250 * 10 + 200 * 40) * USUAL, rel=0.01)


@pytest.mark.parametrize(("requests", "billed", "times"), [(100_000, True, 2), (2, True, 1), (100_000, False, 1)])
def test_answers_that_are_billed_and_asked_for_again_cost_again(requests: int, billed: bool, times: int) -> None:
    """Half of many requests have to be sent again: twice the price if the first answer was billed, else once.

    One of two says little.
    """
    unsent, half = Unsent(10, 250, 20), requests // 2
    ledger = ledger_of((requests, 1.0, 0), tokens=(50, 7))
    metered = requests if billed else half
    ledger.batches[1].result = histories.collected(
        1, ok=half, metered=metered, input_tokens=50 * metered, output_tokens=7 * metered, retry=[Slice(0, half)]
    ).result
    once = estimate(unsent, PRICE, ledger).cost
    assert once is not None
    assert outlook(unsent, PRICE, ledger).total == pytest.approx(times * once, rel=0.02)


def test_when_all_is_answered_nothing_is_left_to_chance() -> None:
    """The range is what was billed."""
    found = outlook(Unsent(0, 0, 20), PRICE, ledger_of((40, 1.0, 40), tokens=(50, 7)))
    assert (found.spent, found.total, found.lowest, found.highest) == (0, 0, 0, 0)


def test_an_outlook_without_a_price_has_no_cost() -> None:
    """Unknown is not zero, wherever it stands."""
    found = outlook(Unsent(10, 250, 20), UNPRICED, under_way(Ledger(), requests=10, tokens=250))
    assert (found.under_way, found.total) == (None, None)


@pytest.mark.parametrize("seed", range(40))
def test_the_range_holds_what_it_costs_in_the_end(seed: int) -> None:
    """From one answer in a hundred on, whatever sizes requests and answers have; four in a hundred may be outside."""
    dice = Random(seed)  # noqa: S311  # a test's dice
    misses = sum(not _is_in_range(dice) for _ in range(25))
    assert misses <= 4


def _is_in_range(dice: Random) -> bool:
    planned = [dice.randint(20, 400) for _ in range(5_000)]
    counted = [max(1, round(each * dice.gauss(1.1, 0.1))) for each in planned]
    answers = [max(1, round(dice.lognormvariate(3, 0.5))) for _ in planned]
    first = 50
    ledger = Ledger()
    batch = Batch(1, [Slice(0, first)], State.COLLECTED, bytes=sum(planned[:first]), tokens=sum(planned[:first]))
    spent = sum(counted[:first]) * 10 + sum(answers[:first]) * 40
    batch.result = histories.collected(
        1, ok=first, metered=first, cost=spent, input_tokens=sum(counted[:first]), output_tokens=sum(answers[:first]),
        output_squares=sum(each**2 for each in answers[:first]),
    ).result  # fmt: skip
    ledger.batches[1] = batch
    price = day_price((0, Rates(10, 40, 10, 10, 10), Rates(20, 80, 20, 20, 20)))
    found = outlook(Unsent(5_000 - first, sum(planned[first:]), 20), price, ledger)
    assert found.lowest is not None
    assert found.highest is not None
    return found.lowest <= sum(counted) * 10 + sum(answers) * 40 <= found.highest
