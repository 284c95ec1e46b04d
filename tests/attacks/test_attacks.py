"""Bad habits of a provider, kills and dialects together: a seed chooses them, and the books must be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.attack import carry_out, plan_of
from tests.attacks.habits import HABITS
from tests.attacks.oracle import check_money, check_paid_once, check_rows, what_did_not_happen
from tests.forking import ForkServer

EACH = 14
ATTACKS = [(habit, number) for habit in HABITS for number in range(EACH)]
TRIES = 4  # a habit that hits by chance may hit nothing: the attack is made again with other dice
RARE = 143  # of so many attacks one is in the quick tests


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
