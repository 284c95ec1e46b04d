"""A budget of a month that outputs share: whatever happens to their runs, their bills stay within it together."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from blocks.errors import StateError
from flows.domain.actions import Action, Finish, Submit, Wait, next_actions
from flows.domain.batches import Batch, State
from flows.domain.budget import Budget, Ceiling, Month
from flows.domain.events import Slice, Submitting
from flows.engine.budgets import Budgets
from flows.storage import shared_budgets
from flows.storage.shared_budgets import SharedBudget
from tests.flows.domain import histories
from tests.flows.domain.simulation import Even, rules
from tests.flows.domain.test_budget import CEILING, EACH, RATES, Billed

MARCH, APRIL = Month(2026, 3), Month(2026, 4)


class InMemory(SharedBudget):
    """What the files hold, without files."""

    def __init__(self, run_id: str, files: dict[tuple[Month, str], int]) -> None:
        super().__init__("team", run_id, Path("out"), emulated=False)
        self._held_by = files
        self._me = run_id

    @contextmanager
    def held(self) -> Iterator[None]:
        yield

    def others(self, month: Month) -> int:
        return sum(amount for (when, who), amount in self._held_by.items() if when == month and who != self._me)

    def note(self, month: Month, amount: int) -> None:
        self._held_by[month, self._me] = amount


class Clock:
    now = APRIL.began - 40.0


class Sharing(Billed):
    """A run of an output, a step at a time, so that another one can work between any two of them."""

    def __init__(self, budgets: Budgets, clock: Clock, *arguments: Any) -> None:
        self._clock = clock
        super().__init__(*arguments)
        self.budgets = budgets
        self.decided_at = self.now
        self.months: dict[int, Month] = {}
        self.was_over = 0

    @property
    def now(self) -> float:  # one clock for both runs
        return self._clock.now

    @now.setter
    def now(self, value: float) -> None:
        self._clock.now = max(value, self._clock.now) if hasattr(self, "budgets") else self._clock.now

    def decide(self) -> list[Action]:
        self.decided_at = self.now
        with self.budgets.held(self.now) as held:
            kept = replace(self.rules(self.ledger), budgets=held.budgets)
            actions = next_actions(self.ledger, self.wanted, Even(), kept, self.agenda, self.now)
            new = [action.slices for action in actions if isinstance(action, Submit)]
            held.reserve(self.ledger.batches.values(), new, Even())
        return actions

    def intent(self, number: int, slices: list[Slice]) -> Submitting:
        self.months[number] = Month.of(self.decided_at)
        at = datetime.fromtimestamp(self.decided_at + self.chance.uniform(0, 30), UTC)  # it waited for a permit
        return histories.submitting(number, *slices).model_copy(update={"waiting_from": self.decided_at, "at": at})

    def billed_in(self, month: Month) -> int:
        return sum(bill for n, bill in self.bills.items() if n in self.accepted and self.months[n] == month)

    def steps(self) -> Iterator[None]:
        for _ in range(20_000):
            if self.wrong(0.1):
                self.crash()
            actions = self.decide()
            yield
            for action in actions:
                if isinstance(action, Finish):
                    if not action.is_over_budget:
                        return
                    self.was_over += 1
                    self.now += 15.0  # until somebody runs it again
                    self.crash()
                elif isinstance(action, Wait):
                    self.now += max(action.seconds, 0.01)
                elif not self.act(action):
                    break
                yield
            if self.was_over > 12:
                return
        raise AssertionError("it never ends")


def check_history(seed: int) -> tuple[int, bool]:
    """One history of two runs, from its seed: how often the budget ended one, and whether both months had bills."""
    chance = Random(seed)  # noqa: S311  # a test's dice
    files: dict[tuple[Month, str], int] = {}
    clock, limit = Clock(), int(chance.uniform(0, 40) * EACH)
    runs = []
    for name in ("first", "second"):
        monthly = Budget(limit, 0.0, CEILING)
        budgets = Budgets(monthly=monthly, shared=InMemory(name, files))
        made = rules(chance.randint(1, 12), chance.randint(1, 5))
        trouble = chance.choice([0.0, 0.1, 0.3, 0.5])
        runs.append(Sharing(budgets, clock, chance.randint(1, 40), made, chance.random(), trouble))
    going = [run.steps() for run in runs]
    while going:
        mine = chance.choice(going)
        try:
            next(mine)
        except StopIteration:
            going.remove(mine)
        for month in (MARCH, APRIL):
            assert sum(run.billed_in(month) for run in runs) <= limit
    return sum(run.was_over for run in runs), all(any(r.billed_in(m) for r in runs) for m in (MARCH, APRIL))


def test_no_history_of_two_runs_costs_more_than_their_budget_of_a_month() -> None:
    """Any interleaving, lost answers, kills before and after an intent, settlements in the next month: 300 of them."""
    found = [check_history(seed) for seed in range(300)]
    assert 30 < sum(over > 0 for over, _ in found) < 290
    assert sum(both for _, both in found) > 30


@pytest.mark.slow
def test_no_history_of_ten_thousand_pairs_of_runs_costs_more_than_their_budget() -> None:
    """The same, for longer."""
    assert sum(check_history(seed)[0] > 0 for seed in range(300, 10_300)) > 1_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where budgets are kept."""
    monkeypatch.setenv(shared_budgets.FOLDER, str(tmp_path / "budgets"))
    return tmp_path / "budgets"


def shared(run_id: str, **more: Any) -> SharedBudget:
    return SharedBudget("team", run_id, Path(f"{run_id}.parquet"), **{"emulated": False, **more})


def test_outputs_see_what_others_have_taken(folder: Path) -> None:
    """Of the same month, name and kind; what an output writes again takes the place of what it wrote."""
    first, second, trial = shared("first"), shared("second"), shared("trial", emulated=True)
    with first.held():
        first.note(APRIL, 10)
        first.note(APRIL, 7)
        trial.note(APRIL, 1_000)
        first.note(MARCH, 500)
    assert (second.others(APRIL), first.others(APRIL), trial.others(APRIL)) == (7, 0, 0)
    assert SharedBudget("other", "x", Path("x"), emulated=False).others(APRIL) == 0
    assert [path.parent.name for path in sorted(folder.rglob("first.json"))] == ["2026-03", "2026-04"]


def test_a_file_that_does_not_say_how_much_is_no_zero(folder: Path) -> None:
    """Nothing is sent before somebody has looked at it."""
    shared("first").note(APRIL, 10)
    place = folder / "team" / "2026-04" / "first.json"
    for content in ('{"output": "first.parquet"}', "", '{"pico_usd": null}'):
        place.write_text(content)
        with pytest.raises(StateError, match=r"first\.json"):
            shared("second").others(APRIL)


def test_a_file_system_without_locks_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs would take the same dollar there."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)  # as such a file system does
    with pytest.raises(StateError, match="does not keep locks"), shared("first").held():
        pass
    assert (folder / "team" / "lock").exists()


def test_a_team_shares_what_its_folder_allows(folder: Path) -> None:
    """Files are as open as the folder of all budgets; one that is made here is private."""
    for mode, files in ((0o770, 0o660), (0o700, 0o600)):
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)
        name = f"team{mode}"
        budget = SharedBudget(name, "first", Path("out"), emulated=False)
        with budget.held():
            budget.note(APRIL, 1)
        found = {path.name: path.stat().st_mode & 0o777 for path in (folder / name).rglob("*")}
        assert found == {"lock": files, "2026-04": mode, "first.json": files}


def _take(folder: str, name: str, times: int) -> None:
    """Take a dollar at a time, as long as there is one."""
    os.environ[shared_budgets.FOLDER] = folder
    budget, mine = shared(name), 0
    for _ in range(times):
        with budget.held():
            if budget.others(APRIL) + mine < 30:
                mine += 1
                budget.note(APRIL, mine)


def test_two_processes_never_take_the_same_dollar(folder: Path) -> None:
    """Thirty there are, and each of them would like thirty."""
    spawned = multiprocessing.get_context("spawn")
    both = [spawned.Process(target=_take, args=(str(folder), name, 30)) for name in ("first", "second")]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert shared("nobody").others(APRIL) == 30


def test_the_month_is_that_of_the_calendar_in_utc() -> None:
    """From its first moment to that of the next one."""
    assert (str(APRIL), str(Month(2026, 12))) == ("2026-04", "2026-12")
    assert [Month.of(APRIL.began - 0.001), Month.of(APRIL.began), Month.of(1_798_761_599.0)] == [
        MARCH,
        APRIL,
        Month(2026, 12),
    ]


def test_a_batch_of_another_model_keeps_its_own_highest_price() -> None:
    """What was sent with a dearer model before stays reserved at that, and one without a bound is named."""
    dearer = Ceiling((replace(RATES, input=RATES.input * 100, output=RATES.output * 100, cache_write_1h=600),), 5, 10)
    ledger = [Batch(1, [Slice(0, 3)], State.SUBMITTED, spec="dear", waiting_from=1.0)]
    kept = Budget(10**6, 0.0, CEILING, earlier={"dear": dearer})
    assert kept.committed(ledger, Even()) == 100 * 3 * EACH
    assert kept.boundless(ledger, "mine") is None
    assert replace(kept, earlier={}).boundless(ledger, "mine") is ledger[0]
    assert replace(kept, earlier={}, since=10**12).boundless(ledger, "mine") is None


def test_a_batch_counts_in_the_month_in_which_it_was_decided_on() -> None:
    """Other outputs saw it reserved there, however long it waited for a permit."""
    late = Batch(1, [Slice(0, 3)], State.SUBMITTED, waiting_from=APRIL.began - 1, intended_at=APRIL.began + 9)
    kept = [Budget(10**6, month.began, CEILING).committed([late], Even()) for month in (MARCH, APRIL)]
    assert kept == [3 * EACH, 0]
