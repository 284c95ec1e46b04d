"""Budgets: whatever happens, the provider's bill stays within."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from blocks.batch import LONGER, FailureKind
from flows.domain.actions import Finish, Wait
from flows.domain.batches import Batch, State
from flows.domain.budget import Budget, Ceiling, Spending
from flows.domain.events import Slice
from flows.domain.ledger import Ledger
from flows.domain.money import from_usd
from flows.domain.outcomes import after_failure, merge_slices
from flows.domain.prices import Rates
from tests.flows.domain import histories
from tests.flows.domain.simulation import Even, Simulation, requests_in, rules

RATES = Rates(input=3, output=7, cache_read=1, cache_write_5m=4, cache_write_1h=6)
CEILING = Ceiling((RATES,), max_output_tokens=5, largest=10)
DEAREST = 10 * 6 + 5 * LONGER * 7  # the same, with a longer answer
EACH = 10 * 6 + 5 * 7  # pico-dollars that a request of ten bytes costs at most: all of it written to the dearest cache


def budget(requests: float, **changes: Any) -> Budget:
    """As much as so many requests can cost."""
    return replace(Budget(int(requests * EACH), 0.0, CEILING), **changes)


def batch(number: int, requests: int, state: State, **fields: Any) -> Batch:
    made = Batch(number, [Slice(0, requests)], state, waiting_from=100.0)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class Billed(Simulation):
    """The same simulation with a provider that bills whatever it accepted, up to the most that it may."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.bills: dict[int, int] = {}  # by batch
        self.told: dict[int, tuple[int, int]] = {}  # by batch: what its usage says, and the answers that have none

    def accept(self, number: int, slices: list[Slice]) -> None:
        super().accept(number, slices)
        if number in self.bills:
            return
        costs = [
            self.chance.choice([0, EACH + 5 * 7 * (LONGER - 1) * piece.longer, self.chance.randint(0, EACH)])
            for piece in slices
            for _ in range(piece.requests)
        ]
        unmetered = [cost for cost in costs if self.wrong(0.2)]
        self.bills[number] = sum(costs)
        self.told[number] = (sum(costs) - sum(unmetered), len(unmetered))

    def collect(self, number: int) -> None:
        held = self.ledger.batches[number]
        if held.failed is not None:  # nothing ran
            self.bills[number], self.told[number] = 0, (0, 0)
        again: list[tuple[int, Slice]] = []
        final: list[tuple[int, Slice]] = []
        for part in sorted(held.slices):
            for request in range(part.start, part.stop):
                if self.wrong():
                    goes_again, after = after_failure(part, self.chance.choice(list(FailureKind)), self.max_attempts)
                    (again if goes_again else final).append((request, after))
        cost, unmetered = self.told[number]
        ok = len(requests_in(held.slices)) - len(again) - len(final)
        self.record(
            histories.collected(
                number,
                ok=ok,
                retry=merge_slices(again, number),
                final=merge_slices(final, number),
                cost=cost,
                unmetered=unmetered,
            )
        )

    def spent_within(self, limit: int) -> bool:
        """Work to the end; whether it was the budget that ended it. Every step is checked against the bills."""
        for _ in range(20_000):
            if self.wrong(0.1):
                self.crash()
            for action in self.decide():
                if isinstance(action, Finish):
                    assert action.is_over_budget or action.reason == ""
                    return action.is_over_budget
                if isinstance(action, Wait):
                    self.now += max(action.seconds, 0.01)
                elif not self.act(action):
                    break
            assert sum(bill for number, bill in self.bills.items() if number in self.accepted) <= limit
        raise AssertionError("it never ends")


def check_history(seed: int) -> bool:
    """One history of a run with a budget, from its seed; whether it was ended by the budget."""
    chance = Random(seed)  # noqa: S311  # a test's dice
    requests, trouble = chance.randint(1, 60), chance.choice([0.0, 0.1, 0.3, 0.5])
    kept = budget(chance.uniform(0, 3) * requests)
    made = rules(chance.randint(1, 12), chance.randint(1, 5), budgets=(kept,))
    return Billed(requests, made, seed, trouble).spent_within(kept.limit)


def test_no_history_of_a_run_costs_more_than_its_budget() -> None:
    """Lost answers, refusals, crashes, repeats, answers without usage: 300 histories, of which the budget ends some."""
    ended = [check_history(seed) for seed in range(300)]
    assert 30 < sum(ended) < 270


@pytest.mark.slow
def test_no_history_of_ten_thousand_costs_more_than_its_budget() -> None:
    """The same, for longer."""
    assert sum(check_history(seed) for seed in range(300, 10_300)) > 1_000


@pytest.mark.parametrize(
    ("held", "left"),
    [
        ([], 10),
        ([batch(1, 3, State.RESERVED)], 7),
        ([batch(1, 3, State.SUBMITTING)], 7),
        ([batch(1, 3, State.UNKNOWN)], 7),
        ([batch(1, 3, State.SUBMITTED)], 7),
        ([batch(1, 3, State.SUBMITTED, copies=("copy",))], 4),
        ([batch(1, 3, State.ENDED)], 7),
        ([batch(1, 3, State.REFUSED)], 10),
        ([batch(1, 3, State.REFUSED, unsure=True)], 7),
        ([batch(1, 3, State.SUBMITTED, emulated=True)], 10),
        ([batch(1, 3, State.SUBMITTED, waiting_from=1.0)], 10),
    ],
    ids=[
        "nothing",
        "reserved",
        "sending",
        "unknown",
        "sent",
        "copy",
        "ended",
        "refused",
        "unsure",
        "emulated",
        "before",
    ],
)
def test_what_may_still_be_billed_is_reserved(held: list[Batch], left: int) -> None:
    """By its highest price, until it is known; what another run or another kind of service has is not."""
    assert budget(10, since=50.0).left(held, Even()) == left * EACH


def test_what_was_billed_takes_the_place_of_what_was_reserved() -> None:
    """Answers without usage stay reserved: nobody knows what they cost."""
    result = histories.collected(1, ok=4, cost=11).result
    assert budget(10).left([batch(1, 4, State.COLLECTED, result=result)], Even()) == 10 * EACH - 11
    result = histories.collected(1, ok=4, cost=11, unmetered=2).result
    assert budget(10).left([batch(1, 4, State.COLLECTED, result=result)], Even()) == 8 * EACH - 11


def test_a_batch_is_cut_to_what_is_left() -> None:
    """The first requests that fit, over the bounds of slices."""
    slices = [Slice(0, 4), Slice(10, 20, longer=True)]
    assert Spending([budget(100)], [], Even()).afford(slices) == slices
    left = Budget(4 * EACH + 2 * DEAREST + 1, 0.0, CEILING)
    assert Spending([left], [], Even()).afford(slices) == [Slice(0, 4), Slice(10, 12, longer=True)]
    assert Spending([budget(2.5)], [], Even()).afford(slices) == [Slice(0, 2)]
    assert Spending([budget(0.5)], [], Even()).afford(slices) == []


def test_small_change_waits_for_batches_that_are_out() -> None:
    """They will cost less than they could, and then a larger batch can go."""
    out = [batch(1, 8, State.SUBMITTED)]
    assert Spending([budget(10)], out, Even()).afford([Slice(10, 20)]) == []
    assert Spending([budget(14)], out, Even()).afford([Slice(10, 20)]) == [Slice(10, 16)]


def test_the_sentence_names_the_budget_and_what_is_taken() -> None:
    """Both in dollars, as they are shown elsewhere."""
    spent = Budget(from_usd(2.5), 0.0, CEILING)
    result = histories.collected(1, ok=4, cost=from_usd(2.25)).result
    sentence = spent.sentence([batch(1, 4, State.COLLECTED, result=result)], Even())
    assert sentence.startswith("the budget of $2.50 is reached: $2.25 was spent or may still be billed")


def test_dollars_are_read_as_they_were_typed() -> None:
    """A tenth of a cent is exact."""
    assert from_usd(0.001) == 10**9
    assert Ledger().spent() == 0
