"""Paid once, whatever dies: runs killed at every place, then started again with the same command."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.storage.journal import read_events
from flows.storage.state import StateDirectory
from tests.flows.undecorated import emulator_ledger, enrich, reviews, wait_until, write_job, write_texts
from tests.forking import ForkServer

ROWS, BATCHES = 30, 2
FAULTS = {"failure_rate": "0.2", "invalid_rate": "0.1", "seed": "3"}
EVENTS = 14  # frozen, four for each of two batches and of one with repeats, published: at least
PLACES = [
    *(f"{kind}:{number}" for kind in ("before", "after") for number in range(1, EVENTS + 1)),
    *(f"torn:{number}" for number in (1, 2, 3, 9, 14)),
    *(f"{kind}:{number}" for kind in ("create", "results") for number in (1, 2, 3)),
    *(f"look:{number}" for number in (1, 2)),
]
# In the quick tests: around each kind of event and call once.
QUICK = [
    *("before:1", "after:1", "before:2", "torn:2", "after:2", "after:3", "after:4", "torn:9", "after:14"),
    *("create:1", "results:1", "look:1"),
]
DIALECTS = ["openai", "anthropic", "mistral", "gemini"]  # beside the default one
CALLS = [*(f"{kind}:{number}" for kind in ("create", "results", "look") for number in (1, 2, 3)), "upload:1"]
WITHOUT_CALLS = {  # calls that a dialect does not have: batches go inline, results come with the look
    "anthropic": ("upload",),
    "mistral": ("upload",),
    "gemini": ("upload", "results"),
}
FIRST_CALLS = ["after:2", "create:1", "upload:1", "look:1", "results:1"]  # around the intent of the first batch


def parameters_for(folder: Path, rows: int = ROWS, **more: Any) -> dict[str, Any]:
    """The same call for the killed run and the one that goes on."""
    texts = [*reviews(rows), "Great battery", "Great battery"]
    found: dict[str, Any] = {
        "input": str(write_texts(folder, texts)),
        "output": str(folder / "out.parquet"),
        "job": str(write_job(folder)),
        "batch_size": (rows + 1) // BATCHES + 1,
        "options": FAULTS,
    }
    return {**found, **more}


RunUntil = Callable[[dict[str, Any], str], int]


@pytest.fixture(scope="session")
def run_until(runs: ForkServer) -> RunUntil:
    """Runs in a process of its own that dies at the place; its exit status."""

    def run(parameters: dict[str, Any], place: str) -> int:
        process = runs.fork("tests.flows.killed:main", place, orjson.dumps(parameters).decode(), capture=True)
        process.communicate()
        assert process.returncode is not None
        return process.returncode

    return run


def check_paid_once(output: Path, requests: int) -> None:
    """The emulator's own books: every distinct request answered well once, billed again only where it had not been."""
    sql = "SELECT count(*), count(DISTINCT prompt_hash) FROM billed WHERE valid"
    assert emulator_ledger(output, sql) == [(requests, requests)]
    twice = "SELECT custom_id, count(*) FROM billed GROUP BY custom_id HAVING count(*) > 1"
    assert emulator_ledger(output, twice) == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    parameters = parameters_for(tmp_path_factory.mktemp("undisturbed"))
    enrich(**parameters)
    return pq.read_table(parameters["output"])


@pytest.mark.parametrize(
    "place", [pytest.param(place, marks=[] if place in QUICK else [pytest.mark.slow]) for place in PLACES]
)
def test_a_killed_run_goes_on_where_it_was(
    tmp_path: Path, undisturbed: pa.Table, run_until: RunUntil, place: str
) -> None:
    """The output is that of an undisturbed run, and no request that was answered well is paid for again."""
    parameters = parameters_for(tmp_path)
    assert run_until(parameters, place) == -signal.SIGKILL
    figures = enrich(**parameters)
    output = Path(parameters["output"])
    assert pq.read_table(output).equals(undisturbed)
    assert figures.rows == {"ok": ROWS + 2}
    check_paid_once(output, ROWS + 1)


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


def faults_of(dialect: str) -> dict[str, str]:
    """Anthropic's client mends labels in the wrong case: what the emulator calls broken may be a good answer."""
    return {**FAULTS, "dialect": dialect, "invalid_rate": "0" if dialect == "anthropic" else FAULTS["invalid_rate"]}


def places_of(places: list[str]) -> list[tuple[str, str]]:
    """Each place in each dialect that has it."""
    return [
        (dialect, place)
        for place in places
        for dialect in DIALECTS
        if place.partition(":")[0] not in WITHOUT_CALLS.get(dialect, ())
    ]


def check_goes_on(run_until: RunUntil, dialect: str, folder: Path, place: str) -> None:
    """Kill a run at a place in a dialect; the next one ends it and pays nothing twice."""
    parameters = parameters_for(folder, options=faults_of(dialect))
    assert run_until(parameters, place) == -signal.SIGKILL, "the place was never reached"
    figures = enrich(**parameters)
    assert figures.rows == {"ok": ROWS + 2}
    check_paid_once(Path(parameters["output"]), ROWS + 1)


@pytest.mark.parametrize(("dialect", "place"), places_of(FIRST_CALLS))
def test_every_dialect_goes_on_where_it_was(tmp_path: Path, run_until: RunUntil, dialect: str, place: str) -> None:
    """Also where the provider has to be asked what became of a batch."""
    check_goes_on(run_until, dialect, tmp_path, place)


@pytest.mark.slow
@pytest.mark.parametrize(("dialect", "place"), places_of(sorted({*PLACES, *CALLS})))
def test_every_dialect_goes_on_from_every_place(tmp_path: Path, run_until: RunUntil, dialect: str, place: str) -> None:
    """The whole matrix."""
    check_goes_on(run_until, dialect, tmp_path, place)


def test_another_batch_size_may_go_on(tmp_path: Path, undisturbed: pa.Table, run_until: RunUntil) -> None:
    """The size of batches and how many are in flight may change from run to run."""
    parameters = parameters_for(tmp_path)
    assert run_until(parameters, "after:4") == -signal.SIGKILL
    enrich(**{**parameters, "batch_size": 3, "max_in_flight": 2})
    assert pq.read_table(parameters["output"]).equals(undisturbed)
    check_paid_once(Path(parameters["output"]), ROWS + 1)


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


def test_two_processes_on_one_output_one_works_and_one_is_refused(tmp_path: Path, runs: ForkServer) -> None:
    """Ten times out of ten; the refused one says who works and since when."""
    parameters = parameters_for(tmp_path, rows=6)
    hold = tmp_path / "hold"
    for attempt in range(10):
        hold.touch()  # the one that works can't end before the other one has come
        output = str(tmp_path / f"out{attempt}.parquet")
        call = {**parameters, "output": output, "options": {"hold_file": str(hold)}}
        both = [runs.fork("tests.flows.undecorated:main", orjson.dumps(call).decode(), capture=True) for _ in range(2)]
        wait_until(lambda both=both: any(process.poll() is not None for process in both))  # type: ignore[misc]
        hold.unlink()
        said = [process.communicate()[1] for process in both]
        statuses = [process.returncode for process in both]
        assert sorted(map(int, statuses)) == [0, 1], said  # type: ignore[arg-type]
        refused = said[statuses.index(1)]
        assert "is being worked on by process" in refused
        assert f"process {both[statuses.index(0)].pid} on" in refused
        kinds = [event.event for event in read_events(StateDirectory(Path(output)).journal)]
        assert kinds.count("frozen") == kinds.count("published") == 1
