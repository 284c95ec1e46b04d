"""Bad habits of a provider, kills and dialects together: a seed chooses them, and the books must be right."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from random import Random

import pytest

from blocks.emulator import EmulatorOptions
from tests.attacks.attack import carry_out, plan_of
from tests.attacks.habits import HABITS
from tests.attacks.oracle import check_money, check_paid_once, check_rows, what_did_not_happen
from tests.forking import ForkServer

EACH = 14
ATTACKS = [(habit, number) for habit in HABITS for number in range(EACH)]
TRIES = 4  # a habit that hits by chance may hit nothing: the attack is made again with other dice
RARE = 143  # of so many attacks one is in the quick tests
NO_HABITS = {  # switches that lead no attack, and why
    **dict.fromkeys(("seed", "dialect", "state", "host", "port", "key"), "what the emulator is"),
    **dict.fromkeys(
        ("max_requests", "max_bytes", "max_queued_tokens"), "limits that sizing heeds: flows/test_dialects.py"
    ),
    "latency_per_request": "another way to take time",
    "fault_attempts": "how often faults come",
    "cached_share": "a part of the price",
    "alternating": "nothing is sent that it refuses: the contract suite",
    "retry_header": "how a pause is spelled: the contract suite",
    "should_retry": "how a pause is spelled: the contract suite",
    "drop_rate": "another way to lose creates",
    "hold_file": "creates are slow by the clock here",
    "state_prefix": "how states are spelled: the contract suite",
}


def test_every_switch_leads_attacks_or_is_no_habit() -> None:
    """A new one gets a line in the habits, or a reason here."""
    switches = {name for habit in HABITS.values() for name in habit.choose(Random(0))}  # noqa: S311  # any dice
    assert switches.isdisjoint(NO_HABITS)
    assert {each.name for each in fields(EmulatorOptions)} == switches | set(NO_HABITS)


def test_every_habit_attacks_in_every_dialect_that_has_it() -> None:
    """By the numbers of its attacks."""
    led: dict[str, set[str]] = {name: set() for name in HABITS}
    for lead, number in ATTACKS:
        led[lead].add(plan_of(lead, number).dialect)
    assert led == {name: set(habit.dialects) for name, habit in HABITS.items()}


@pytest.mark.parametrize(
    ("lead", "number"),
    [pytest.param(lead, n, marks=[pytest.mark.slow] * (i % RARE > 0)) for i, (lead, n) in enumerate(ATTACKS)],
)
def test_an_attack_costs_no_row_and_no_cent(tmp_path: Path, runs: ForkServer, lead: str, number: int) -> None:
    """Every row has its own answer or says why not, and what was paid is what had to be."""
    lacking = []
    for again in range(TRIES):
        folder = tmp_path / str(again)
        folder.mkdir()
        done = carry_out(plan_of(lead, number, again), folder, runs)
        check_rows(done)
        check_paid_once(done)
        check_money(done)
        lacking.append(what_did_not_happen(done))
        if not lacking[-1]:
            return
    pytest.fail(f"it never came about: {lacking}")
