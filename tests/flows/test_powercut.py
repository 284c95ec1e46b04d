"""Paid once, even if the power is cut: what was not synced is gone, and the next run ends as if nothing had been."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.flows import powercut
from tests.flows.undecorated import emulator_ledger, enrich, reviews, write_job, write_texts
from tests.forking import ForkServer

ROWS = 6
MODES = ["strict", "names"]


def call(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    return {
        "input": str(write_texts(folder, reviews(ROWS))),
        "output": str(folder / "out" / "out.parquet"),
        "job": str(write_job(folder)),
        "batch_size": 4,
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    parameters = call(tmp_path_factory.mktemp("undisturbed") / "x")
    enrich(**parameters)
    return pq.read_table(parameters["output"])


def run_until(runs: ForkServer, parameters: dict[str, Any], kind: str, number: int, mode: str) -> bool:
    """Whether the power was cut before the run ended."""
    root = Path(parameters["input"]).parent
    noted = root.with_name(f"{root.name}.noted")
    (root / "out").mkdir()
    process = runs.fork(
        "tests.flows.powercut:main", kind, str(number), str(noted), orjson.dumps(parameters).decode(), capture=True
    )
    said = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), said
    if process.returncode == 0:
        return False
    if mode != "killed":
        powercut.restore(root, noted, strict=mode == "strict")
    return True


def check_goes_on(parameters: dict[str, Any], undisturbed: pa.Table) -> None:
    assert enrich(**parameters).rows == {"ok": ROWS}
    assert pq.read_table(parameters["output"]).equals(undisturbed)
    books = "SELECT count(*), count(DISTINCT prompt_hash) FROM billed"
    assert emulator_ledger(Path(parameters["output"]), books) == [(ROWS, ROWS)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [3, 5, 8, 10])
def test_a_power_cut_before_an_event_is_safe(
    tmp_path: Path, runs: ForkServer, undisturbed: pa.Table, number: int, mode: str
) -> None:
    """Before an intent, before the provider's answers to it are known, and before the results are."""
    parameters = call(tmp_path / "x")
    assert run_until(runs, parameters, "journal", number, mode), "the journal was never synced so often"
    check_goes_on(parameters, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [*MODES, "killed"])
def test_the_power_may_be_cut_at_any_time(tmp_path: Path, runs: ForkServer, undisturbed: pa.Table, mode: str) -> None:
    """Before each sync of a whole run, until one gets through; or it is killed there, and nothing is lost."""
    number = 1
    while run_until(runs, parameters := call(tmp_path / str(number)), "any", number, mode):
        check_goes_on(parameters, undisturbed)
        number += 1
    assert number > 30, "there are more than that in a run"
