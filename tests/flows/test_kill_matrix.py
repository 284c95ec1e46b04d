"""Runs killed in every dialect, several times, and while they merge results parts."""

from __future__ import annotations

import random
import signal
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.storage.state import StateDirectory
from tests.flows.killing import (
    DIALECTS,
    PLACES,
    ROWS,
    RunUntil,
    check_goes_on,
    check_paid_once,
    faults_of,
    parameters_for,
)
from tests.flows.undecorated import enrich

CALLS = [*(f"{kind}:{number}" for kind in ("create", "results", "look") for number in (1, 2, 3)), "upload:1"]
WITHOUT_CALLS = {  # calls that a dialect does not have: batches go inline, results come with the look
    "anthropic": ("upload",),
    "mistral": ("upload",),
    "gemini": ("upload", "results"),
}
FIRST_CALLS = ["after:2", "create:1", "upload:1", "look:1", "results:1"]  # around the intent of the first batch


def places_of(places: list[str]) -> list[tuple[str, str]]:
    """Each place in each dialect that has it."""
    return [
        (dialect, place)
        for place in places
        for dialect in DIALECTS
        if place.partition(":")[0] not in WITHOUT_CALLS.get(dialect, ())
    ]


@pytest.mark.parametrize(("dialect", "place"), places_of(FIRST_CALLS))
def test_every_dialect_goes_on_where_it_was(tmp_path: Path, run_until: RunUntil, dialect: str, place: str) -> None:
    """Also where the provider has to be asked what became of a batch."""
    check_goes_on(run_until, dialect, tmp_path, place)


@pytest.mark.slow
@pytest.mark.parametrize(("dialect", "place"), places_of(sorted({*PLACES, *CALLS})))
def test_every_dialect_goes_on_from_every_place(tmp_path: Path, run_until: RunUntil, dialect: str, place: str) -> None:
    """The whole matrix."""
    check_goes_on(run_until, dialect, tmp_path, place)


def random_kills(run_until: RunUntil, folder: Path, seed: int, dialect: str = "holysheep") -> int:
    """Kill one run at random places until it gets through; how often it was killed."""
    dice = random.Random(seed)  # noqa: S311  # chooses places, keeps no secret
    faults = {**faults_of(dialect), "failure_rate": "0.1", "drop_rate": "0.3", "seed": str(seed)}
    parameters = parameters_for(folder, options=faults)
    kills = 0
    while kills < 12:
        kind = dice.choice(["before", "after", "torn", "create", "look", "results"])
        if run_until(parameters, f"{kind}:{dice.randint(1, 3)}") != -signal.SIGKILL:
            break
        kills += 1
    figures = enrich(**parameters)
    assert figures.rows == {"ok": ROWS + 2}
    check_paid_once(folder / "out.parquet", ROWS + 1)
    return kills


@pytest.mark.parametrize("dialect", ["holysheep", *DIALECTS])
def test_a_run_killed_several_times_pays_once(tmp_path: Path, run_until: RunUntil, dialect: str) -> None:
    """Lost answers, failures and kills together."""
    assert random_kills(run_until, tmp_path, 11, dialect) > 0


@pytest.mark.slow
def test_a_hundred_random_kills_pay_once(tmp_path: Path, run_until: RunUntil) -> None:
    """At least 100 kills, several in each run, at places that the seed chooses."""
    kills = runs = 0
    while kills < 100:
        folder = tmp_path / str(runs)
        folder.mkdir()
        kills += random_kills(run_until, folder, seed=1000 + runs)
        runs += 1
    assert kills > runs
    sys.stderr.write(f"\n{kills} kills in {runs} runs\n")


@pytest.mark.parametrize("step", range(1, 6))
def test_a_run_killed_while_it_merges_parts_has_lost_nothing(
    tmp_path: Path, undisturbed: pa.Table, run_until: RunUntil, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Before and after the journal knows, and between two deletions: the next run sends nothing and tidies up."""
    monkeypatch.setattr("flows.domain.compaction.MAX_PARTS", 1)
    monkeypatch.setattr("flows.domain.compaction.GROWTH", 2)
    parameters = parameters_for(tmp_path)
    assert run_until(parameters, f"compact:{step}") == -signal.SIGKILL
    output = Path(parameters["output"])
    assert pq.read_table(output).equals(undisturbed), "it was published before"
    output.unlink()
    figures = enrich(**parameters)
    assert pq.read_table(output).equals(undisturbed)
    assert (figures.attempts, figures.rows) == (0, {"ok": ROWS + 2})
    check_paid_once(output, ROWS + 1)
    (folder,) = StateDirectory(output).path.glob("results/*")
    assert [path.name for path in folder.iterdir()] == ["compacted-000001.pq"]
    output.unlink()
    assert enrich(**parameters).attempts == 0
    assert pq.read_table(output).equals(undisturbed)
