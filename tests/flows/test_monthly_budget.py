"""A monthly budget holds over all runs of an output, and over all outputs that share its name."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from blocks.errors import UsageError
from flows.domain.budget import Month
from flows.report.status import read_status
from flows.report.verdict import Exit
from tests.flows.killing import RunUntil
from tests.flows.test_budget import LIMITED, billed, full_cost, parameters_for
from tests.flows.undecorated import JOB, enrich, write_job
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
    assert f"the monthly budget ({Month.of(time.time())}) of $" in second.message
    assert "next month" in second.message
    assert 0 < billed(tmp_path / "a") <= full_cost / 2
    clock = time.time
    monkeypatch.setattr("time.time", lambda: clock() + 31 * 24 * 3600)
    assert enrich(**parameters).attempts > 0


def test_outputs_that_share_a_name_share_the_budget(tmp_path: Path, full_cost: float) -> None:
    """What one spends the other has not; one that does not share it is not counted."""
    shared = {"budget_name": "reviews"}
    enrich(**call(tmp_path, "a", full_cost / 2, **shared))
    second = enrich(**call(tmp_path, "b", full_cost * 0.7, **shared))
    assert second.exit is Exit.BUDGET
    assert f"the monthly budget reviews ({Month.of(time.time())}) of $" in second.message
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
    reserved = int(orjson.loads(noted.read_bytes())["committed_pico_usd"])
    other = enrich(**call(tmp_path, "b", reserved / 1e12, budget_name="reviews"))
    assert (other.exit, other.attempts) == (Exit.BUDGET, 0)
    enrich(**dead)
    assert 0 < int(orjson.loads(noted.read_bytes())["committed_pico_usd"]) < reserved


def test_a_name_needs_a_budget_and_a_budget_a_price(tmp_path: Path) -> None:
    """Each is refused before anything is sent, with what to do."""
    parameters = call(tmp_path, "a", 1.0, budget_name="reviews")
    with pytest.raises(UsageError, match="a name for a budget needs the budget"):
        enrich(**{**parameters, "monthly_budget": None})
    with pytest.raises(UsageError, match="has no price"):
        enrich(**{**parameters, "model": "unheard-of"})


def test_a_budget_of_a_month_holds_over_all_runs_of_an_output(
    tmp_path: Path, full_cost: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run has what the first one left; the next month goes on, and status says what is taken."""
    budget = full_cost * 0.6
    parameters = call(tmp_path, "a", budget)
    for _ in range(3):
        figures = enrich(**parameters)
        assert figures.exit is Exit.BUDGET
        assert billed(tmp_path / "a") <= budget
    assert figures.message.startswith(f"the monthly budget ({Month.of(time.time())}) of $")
    assert figures.message.endswith("or now with a larger --monthly-budget")
    (use,) = read_status(tmp_path / "a" / "out.parquet").budgets
    assert (use, use.here) == (figures.budgets[0], figures.money.total)
    assert f"budget     {use.title}: {use.words()}" in read_status(tmp_path / "a" / "out.parquet").text()
    clock = time.time
    monkeypatch.setattr("time.time", lambda: clock() + 31 * 24 * 3600)
    assert enrich(**parameters).exit is Exit.DONE


def test_two_outputs_that_share_a_name_share_its_budget(tmp_path: Path, folder: Path, full_cost: float) -> None:
    """One after the other: what the first one did not take is the second one's, and both are told of each other."""
    limit = full_cost * 1.5
    first, second = tmp_path / "first", tmp_path / "second"
    done = enrich(**call(tmp_path, "first", limit, budget_name="team"))
    ended = enrich(**call(tmp_path, "second", limit, budget_name="team"))
    assert (done.exit, ended.exit) == (Exit.DONE, Exit.BUDGET)
    assert limit * 0.8 < billed(first) + billed(second) <= limit
    assert (done.budgets[0].elsewhere, ended.budgets[0].elsewhere) == (0, done.money.total)
    assert "of it by other outputs" in ended.message
    (line,) = orjson.loads((second / "_out.parquet.batchwerk" / "report.json").read_bytes())["budgets"]
    assert line["taken_usd"] == pytest.approx(billed(first) + billed(second))
    kept = {orjson.loads(path.read_bytes())["output"] for path in folder.rglob("*.json")}
    assert kept == {str(first / "out.parquet"), str(second / "out.parquet")}
    alone = enrich(**call(tmp_path, "third", limit, budget_name="others"))
    assert alone.exit is Exit.DONE


def test_two_runs_at_once_that_are_killed_never_pass_the_budget_that_they_share(
    tmp_path: Path, folder: Path, full_cost: float, runs: ForkServer
) -> None:
    """By the emulators' books, while both run, die, and run again; what a dead one reserved stays its own."""
    limit = full_cost * 0.8
    both = [call(tmp_path, name, limit, budget_name="team") for name in ("first", "second")]
    chance = Random(1)  # noqa: S311  # a test's dice
    for _ in range(3):
        places = [f"{chance.choice(['before', 'after'])}:{chance.randint(2, 9)}" for _ in both]
        started = [
            runs.fork("tests.flows.killed:main", place, orjson.dumps(each).decode(), capture=True)
            for place, each in zip(places, both, strict=True)
        ]
        for process in started:
            process.communicate()
        assert spent_in(tmp_path) <= limit
    ends = {enrich(**each).exit for each in both}
    assert spent_in(tmp_path) <= limit
    assert Exit.BUDGET in ends
    assert folder.exists()


def spent_in(place: Path) -> float:
    return sum(billed(place / name) for name in ("first", "second"))


def test_what_an_earlier_job_may_cost_without_a_bound_keeps_a_budget_from_being_kept(tmp_path: Path) -> None:
    """A batch that is still out, and whose answers can be as long as the model likes."""
    parameters = parameters_for(tmp_path, None, wait=0, options={"latency": "60"})
    write_job(tmp_path, JOB)
    assert enrich(**parameters).exit is Exit.WAITING
    write_job(tmp_path, LIMITED)
    with pytest.raises(UsageError, match=r"what batch \d may cost is unknown"):
        enrich(**{**parameters, "monthly_budget": 1.0})
