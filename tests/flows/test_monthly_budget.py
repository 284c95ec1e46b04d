"""A monthly budget holds over all runs of an output, and over all outputs that share its name."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from blocks.errors import StateError, UsageError
from flows.engine import limits
from flows.report.verdict import Exit
from flows.storage.budgets import SharedBudget
from tests.flows.killing import RunUntil
from tests.flows.test_budget import billed, full_cost, parameters_for
from tests.flows.undecorated import enrich
from tests.forking import ForkServer

__all__ = ["full_cost"]  # a fixture


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where budgets are kept; of each test its own."""
    monkeypatch.setenv("BATCHWERK_BUDGETS", str(tmp_path / "budgets"))
    return tmp_path / "budgets"


def call(tmp_path: Path, name: str, usd: float, **more: Any) -> dict[str, Any]:
    (tmp_path / name).mkdir(exist_ok=True)
    return parameters_for(tmp_path / name, None, monthly_budget=usd, **more)


def test_the_runs_of_a_month_share_its_budget(
    tmp_path: Path, full_cost: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run has nothing left, unlike with a budget of its own; the next month has the sum once more."""
    parameters = call(tmp_path, "a", full_cost / 2)
    first, second = enrich(**parameters), enrich(**parameters)
    assert (first.exit, second.exit, second.attempts) == (Exit.BUDGET, Exit.BUDGET, 0)
    assert "the monthly budget of $" in second.message
    assert "next month" in second.message
    assert 0 < billed(tmp_path / "a") <= full_cost / 2
    now = datetime.now(UTC)
    later = now.replace(year=now.year + 1)
    monkeypatch.setattr(limits, "now", lambda: later)
    assert enrich(**parameters).attempts > 0


def test_outputs_that_share_a_name_share_the_budget(tmp_path: Path, full_cost: float) -> None:
    """What one spends the other has not; one that does not share it is not counted."""
    shared = {"budget_name": "reviews"}
    enrich(**call(tmp_path, "a", full_cost / 2, **shared))
    second = enrich(**call(tmp_path, "b", full_cost * 0.7, **shared))
    assert second.exit is Exit.BUDGET
    assert "the monthly budget reviews of $" in second.message
    assert billed(tmp_path / "a") + billed(tmp_path / "b") <= full_cost * 0.7
    assert enrich(**call(tmp_path, "c", full_cost * 2)).exit is Exit.DONE


def test_two_runs_at_once_never_pass_it_together(tmp_path: Path, runs: ForkServer, full_cost: float) -> None:
    """Each decides while the other waits, and sees what that one has decided."""
    calls = [call(tmp_path, name, full_cost * 0.6, budget_name="reviews") for name in "abc"]
    processes = [runs.fork("tests.flows.undecorated:main", orjson.dumps(each).decode(), capture=True) for each in calls]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0, 0]
    spent = [billed(tmp_path / name) for name in "abc"]
    assert 0 < sum(spent) <= full_cost * 0.6


def test_what_a_dead_run_may_still_be_billed_stays_reserved(
    tmp_path: Path, run_until: RunUntil, folder: Path, full_cost: float
) -> None:
    """It sent a batch and heard nothing: until it goes on, another output can't spend that."""
    dead = call(tmp_path, "a", full_cost, budget_name="reviews", batch_size=20)
    assert run_until(dead, "create:1") == -signal.SIGKILL
    (noted,) = folder.rglob("*.json")
    reserved = orjson.loads(noted.read_bytes())["committed"]
    other = enrich(**call(tmp_path, "b", reserved / 1e12, budget_name="reviews"))
    assert (other.exit, other.attempts) == (Exit.BUDGET, 0)
    enrich(**dead)
    assert 0 < orjson.loads(noted.read_bytes())["committed"] < reserved


def test_a_name_needs_a_budget_and_a_budget_a_price(tmp_path: Path) -> None:
    """Each is refused before anything is sent, with what to do."""
    parameters = call(tmp_path, "a", 1.0, budget_name="reviews")
    with pytest.raises(UsageError, match="a name for a budget needs the budget"):
        enrich(**{**parameters, "monthly_budget": None})
    with pytest.raises(UsageError, match="has no price"):
        enrich(**{**parameters, "model": "unheard-of"})


def test_a_sum_that_can_not_be_read_is_not_taken_for_nothing(tmp_path: Path) -> None:
    """The file is named: who deletes it knows what it stood for."""
    shared = SharedBudget.of("reviews", tmp_path / "a.parquet", emulated=False)
    with shared.locked("2026-11"):
        shared.note(5)
    (file,) = (tmp_path / "budgets").rglob("*.json")
    file.write_text("{")
    other = SharedBudget.of("reviews", tmp_path / "b.parquet", emulated=False)
    with pytest.raises(StateError, match="can't be read"), other.locked("2026-11"):
        pass


def test_the_emulators_sums_are_kept_apart(tmp_path: Path) -> None:
    """What its answers would have cost takes nothing from a budget of money."""
    with (real := SharedBudget.of("reviews", tmp_path / "a.parquet", emulated=False)).locked("2026-11"):
        real.note(7)
    with SharedBudget.of("reviews", tmp_path / "b.parquet", emulated=True).locked("2026-11") as elsewhere:
        assert elsewhere == 0
    with SharedBudget.of("reviews", tmp_path / "b.parquet", emulated=False).locked("2026-11") as elsewhere:
        assert elsewhere == 7
