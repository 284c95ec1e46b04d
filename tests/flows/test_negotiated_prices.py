"""Negotiated prices: used for what is sent under them, kept with it, and read with care."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.domain.money import PICO
from flows.report.markdown import cost_table
from flows.report.verdict import Exit
from flows.storage.state import StateDirectory
from tests.flows.command import batchwerk
from tests.flows.undecorated import enrich, harvest, reviews, write_job, write_texts
from tests.price_table import row_of

HEAD = "provider,model,service,input,output"
PATIENCE = 60.0
AGREED = {"input": 3, "output": 7}  # USD per million tokens in a batch


def write_prices(folder: Path, usd_in: int = AGREED["input"], usd_out: int = AGREED["output"]) -> Path:
    path = folder / "negotiated.csv"
    path.write_text(f"{HEAD}\nholysheep,gpt-4.1,batch,{usd_in},{usd_out}\nopenai,gpt-4.1,batch,99,99\n")
    return path


@pytest.fixture
def call(tmp_path: Path) -> dict[str, Any]:
    return {
        "input": write_texts(tmp_path, reviews(12)),
        "output": tmp_path / "out.parquet",
        "job": write_job(tmp_path),
        "poll_interval": 0.05,
        "prices": write_prices(tmp_path),
    }


def cost_of(output: Path, usd_in: Decimal | int, usd_out: Decimal | int) -> int:
    """Pico-dollars of all rows at these prices per million tokens."""
    rows = pq.read_table(output)
    tokens = [sum(rows.column(f"_{kind}_tokens").to_pylist()) for kind in ("input", "output")]
    return int((tokens[0] * usd_in + tokens[1] * usd_out) * PICO / 10**6)


def test_rows_and_report_have_the_negotiated_price(call: dict[str, Any]) -> None:
    """That of the provider and the model of the run; single requests have the table's."""
    figures = enrich(**call)
    assert figures.money.total == cost_of(call["output"], **as_usd(AGREED)) > 0
    assert sum(pq.read_table(call["output"]).column("_cost_usd").to_pylist()) * PICO == figures.money.total
    listed = row_of("holysheep", "gpt-4.1", "standard")
    assert figures.money.single == cost_of(call["output"], Decimal(listed["input"]), Decimal(listed["output"]))
    in_batches = row_of("holysheep", "gpt-4.1", "batch")
    by_list = cost_of(call["output"], Decimal(in_batches["input"]), Decimal(in_batches["output"]))
    assert figures.money.listed == by_list != figures.money.total
    assert any(row["what"] == "the same by the price list" for row in cost_table(figures))


def as_usd(prices: dict[str, int]) -> dict[str, int]:
    return {f"usd_{'in' if kind == 'input' else 'out'}": usd for kind, usd in prices.items()}


def test_a_batch_costs_what_was_agreed_when_it_was_sent(call: dict[str, Any]) -> None:
    """Whoever collects it, and whatever became of the file meanwhile: a harvest, or a run without it."""
    assert enrich(**call, wait=0, options={"latency": "0.5"}).rows == {"pending": 12}
    call["prices"].unlink()
    assert harvest(call["output"], PATIENCE).exit is Exit.DONE
    agreed = cost_of(call["output"], **as_usd(AGREED))
    figures = enrich(**{**call, "prices": None})
    assert (figures.attempts, figures.money.total) == (0, agreed)


def test_lost_answers_that_are_fetched_again_cost_what_they_did(call: dict[str, Any], tmp_path: Path) -> None:
    """Another agreement since then changes no part of the past, and no request of it is sent again."""
    before = enrich(**call)
    for part in (StateDirectory(call["output"]).path / "results").rglob("*.pq"):
        part.unlink()
    write_prices(tmp_path, 30, 70)
    after = enrich(**call)
    assert (after.attempts, after.money.total) == (0, before.money.total)
    assert cost_of(call["output"], **as_usd(AGREED)) == before.money.total


def test_other_prices_hold_for_what_is_sent_under_them(call: dict[str, Any], tmp_path: Path) -> None:
    """The first rows cost what was agreed before, those that come later the new price."""
    enrich(**call, limit=4)
    first = cost_of(call["output"], **as_usd(AGREED))
    write_prices(tmp_path, 30, 70)
    total = enrich(**call).money.total
    assert total == first + 10 * (cost_of(call["output"], **as_usd(AGREED)) - first)


def test_a_harvest_goes_on_with_the_last_prices(call: dict[str, Any]) -> None:
    """What it sends again costs what the last run was told, as there is no file to read any more."""
    faults = {"latency": "0.5", "failure_rate": "0.3", "seed": "3"}
    assert enrich(**call, wait=0, options=faults).rows == {"pending": 12}
    call["prices"].unlink()
    figures = harvest(call["output"], PATIENCE)
    assert figures.attempts > 0
    assert figures.money.total == cost_of(call["output"], **as_usd(AGREED))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (f"{HEAD},rebate\nholysheep,gpt-4.1,batch,1,2,3\n", "no column 'rebate'"),
        (f"{HEAD}\nholysheep,gpt-4.1,batch,-1,2\n", "row 1: input -1 is negative"),
        (f"{HEAD}\nholysheep,gpt-4.1,batch,1,2\nopenay,m,batch,1,2\n", "row 2: there is no provider 'openay'"),
        (f"{HEAD}\nholysheep,gpt-4.1,batch,0.0000001,2\n", "finer than a pico-dollar"),
        (f'{HEAD}\n"holysheep,gpt', "not valid CSV"),
        ("", "'provider' is missing"),
        (None, "does not exist"),
    ],
)
def test_a_wrong_price_file_is_a_sentence_before_anything_is_sent(
    call: dict[str, Any], tmp_path: Path, content: str | None, problem: str
) -> None:
    """Exit status 2, the file named, nothing written; `plan` and `run` alike."""
    path = tmp_path / "mine.csv"
    if content is not None:
        path.write_text(content)
    options = ("--job", call["job"], "--provider", "local", "--prices", path, "--json")
    done = batchwerk("plan", call["input"], call["output"], *options)
    assert done.status == 2
    assert problem in json.loads(done.out)["error"]
    assert str(path) in done.err
    assert not StateDirectory(call["output"]).path.exists()
