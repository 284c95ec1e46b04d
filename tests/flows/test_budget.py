"""A budget through whole runs: the emulator's own books never show more, whatever is killed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from blocks.errors import UsageError
from flows import cli
from flows.report.figures import Figures
from flows.report.verdict import Exit
from tests.flows.undecorated import JOB, emulator_ledger, enrich, reviews, write_job, write_texts
from tests.forking import ForkServer

LIMITED = JOB + "max_output_tokens: 60\n"
ROWS = 40


def parameters_for(folder: Path, budget: float | None, **more: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "input": str(write_texts(folder, reviews(ROWS))),
        "output": str(folder / "out.parquet"),
        "job": str(write_job(folder, LIMITED)),
        "batch_size": 10,
        "poll_interval": 0.05,
        "options": {"failure_rate": "0.2", "invalid_rate": "0.2", "seed": "3"},
        "budget": budget,
    }
    return {**usual, **more}


def billed(folder: Path) -> float:
    """Dollars by the emulator's books: HolySheep bills GPT-4.1 at 4 dollars a million tokens in batches, each way."""
    ((tokens,),) = emulator_ledger(
        folder / "out.parquet", "SELECT coalesce(sum(input_tokens + output_tokens), 0) FROM billed"
    )
    return float(tokens) * 4 / 1e6


@pytest.fixture(scope="module")
def full_cost(tmp_path_factory: pytest.TempPathFactory) -> float:
    """What all rows cost if nothing is in the way."""
    folder = tmp_path_factory.mktemp("full")
    enrich(**parameters_for(folder, None))
    return billed(folder)


def test_a_run_stops_before_its_budget_and_the_next_one_continues(tmp_path: Path, full_cost: float) -> None:
    """Exit status 5, with all that was paid for in the output; each run has the budget once more."""
    parameters = parameters_for(tmp_path, full_cost / 2)
    runs: list[Figures] = []
    while not runs or runs[-1].exit is Exit.BUDGET:
        runs.append(enrich(**parameters))
        assert billed(tmp_path) <= len(runs) * full_cost / 2
        assert len(runs) < 20
    assert runs[0].rows["pending"] > 0
    assert runs[0].rows["ok"] > 0
    assert runs[0].message.startswith("the budget of $")
    assert runs[-1].rows == {"ok": ROWS}
    assert runs[-1].exit is Exit.DONE


def test_a_budget_that_is_large_enough_changes_nothing(tmp_path: Path, full_cost: float) -> None:
    """The same batches, the same bill."""
    figures = enrich(**parameters_for(tmp_path, 100.0))
    assert (figures.exit, figures.rows, billed(tmp_path)) == (Exit.DONE, {"ok": ROWS}, full_cost)


def test_a_budget_below_one_request_sends_nothing(tmp_path: Path) -> None:
    """It ends at once, with all rows pending."""
    figures = enrich(**parameters_for(tmp_path, 0.000001))
    assert (figures.exit, figures.attempts, figures.rows) == (Exit.BUDGET, 0, {"pending": ROWS})


@pytest.mark.parametrize(
    ("job", "more", "said"),
    [
        (JOB, {}, "a budget needs a limit of how long an answer can be"),
        (LIMITED, {"model": "nobody-knows"}, "the model 'nobody-knows' has no price"),
    ],
    ids=["no limit of answers", "no price"],
)
def test_a_budget_that_can_not_be_kept_is_refused(tmp_path: Path, job: str, more: dict[str, Any], said: str) -> None:
    """Before anything is sent."""
    parameters = parameters_for(tmp_path, 1.0, **more)
    write_job(tmp_path, job)
    with pytest.raises(UsageError, match=said):
        enrich(**parameters)


Killed = Callable[[dict[str, Any], str], int | None]


@pytest.fixture
def killed(runs: ForkServer) -> Killed:
    """A run in a process of its own, which dies at a place if it gets there; its exit status."""

    def run(parameters: dict[str, Any], place: str) -> int | None:
        process = runs.fork("tests.flows.killed:main", place, orjson.dumps(parameters).decode(), capture=True)
        process.communicate()
        return process.returncode

    return run


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_again_and_again_has_one_budget(
    tmp_path: Path, full_cost: float, killed: Killed, kills: int
) -> None:
    """What the processes spent that died counts: together they stay within what the user said."""
    chance = Random(kills)  # noqa: S311  # a test's dice
    budget = full_cost * 0.6
    parameters = parameters_for(tmp_path, budget)
    died = 0
    for _ in range(kills):
        place = f"{chance.choice(['before', 'after'])}:{chance.randint(1, 6)}"
        status = killed(parameters, place)
        assert billed(tmp_path) <= budget
        died += status == -signal.SIGKILL
        if status != -signal.SIGKILL:
            break
    assert died > 1
    figures = enrich(**parameters)
    assert billed(tmp_path) <= budget or figures.exit is not Exit.BUDGET


def test_the_command_says_that_the_budget_is_reached(
    tmp_path: Path, full_cost: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 5 and the sentence, with the next step."""
    parameters = parameters_for(tmp_path, None)
    places = [parameters["input"], parameters["output"], "--job", parameters["job"], "--provider", "local"]
    limits = ["--batch-size", "10", "--poll-interval", "0.1", "--budget", f"{full_cost / 2:.6f}"]
    monkeypatch.setattr(
        cli, "_run_flow", lambda config: enrich(**{**parameters, "budget": config.settings.budget, "options": {}})
    )
    assert cli.call(["run", *places, *limits]) == 5
    said = "".join(capsys.readouterr())
    assert "the budget of $" in said
    assert "run the same command again to spend as much once more, or with a larger budget" in said
