"""A sample of requests is sent first: its answers count as done, and say what all rows will cost."""

from __future__ import annotations

import json
import signal
from contextlib import redirect_stdout
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows import cli
from flows.preflight import RunConfig
from flows.report.figures import Figures
from flows.report.status import read_status
from flows.report.verdict import SAMPLED, Exit
from tests.flows.killing import RunUntil, check_paid_once, parameters_for
from tests.flows.undecorated import emulator_ledger, enrich, reviews, write_job

ROWS = 200


def billed(output: Path) -> int:
    ((count,),) = emulator_ledger(output, "SELECT count(*) FROM billed")
    return int(count)


def statuses(output: Path) -> list[str]:
    return [str(status) for status in pq.read_table(output).column("_status").to_pylist()]


def test_the_answers_of_a_sample_count_as_done(tmp_path: Path) -> None:
    """Rows from everywhere get them; the same call sends nothing more, and a run sends the rest."""
    call = {**parameters_for(tmp_path, ROWS), "batch_size": 1_000, "options": {}}
    output = Path(call["output"])
    sampled = enrich(**call, sample=50)
    assert (sampled.exit, sampled.message, sampled.attempts, sampled.batches) == (Exit.DONE, SAMPLED, 50, 1)
    done = [row for row, status in enumerate(statuses(output)) if status == "ok"]
    assert min(done) < ROWS // 4
    assert max(done) > ROWS * 3 // 4
    assert enrich(**call, sample=50).attempts == 0
    finished = enrich(**call)
    assert finished.rows == {"ok": ROWS + 2}
    check_paid_once(output, ROWS + 1)
    assert billed(output) == ROWS + 1
    assert sampled.outlook.total == pytest.approx(finished.money.total, rel=0.01)


def test_a_sample_that_is_killed_goes_on_with_the_same_requests(tmp_path: Path, run_until: RunUntil) -> None:
    """Not with as many others: what was sent is collected, and nothing is paid twice."""
    call = {**parameters_for(tmp_path, ROWS), "batch_size": 20, "options": {}, "sample": 50}
    assert run_until(call, "create:2") == -signal.SIGKILL
    enrich(**call)
    assert statuses(Path(call["output"])).count("ok") in {50, 51}, "two rows share a text"
    assert billed(Path(call["output"])) == 50


def planned(monkeypatch: pytest.MonkeyPatch, call: dict[str, Any], *options: str) -> str:
    """`plan` in this process, and without Prefect; what it printed."""

    def run_flow(config: RunConfig) -> Figures:
        return enrich(**{**call, "sample": config.settings.sample, "gold": config.settings.gold})

    monkeypatch.setattr(cli, "_run_flow", run_flow)
    places = [call["input"], call["output"], "--job", call["job"], "--provider", "local"]
    with redirect_stdout(StringIO()) as said:
        assert cli.call(["plan", *places, *options]) == 0
    return said.getvalue()


def test_plan_says_what_a_sample_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many answered, what they cost, what all will, how often people agree, and how to go on."""
    path = tmp_path / "labelled.parquet"
    labels = ["positive" if row % 2 else "negative" for row in range(ROWS)]
    pq.write_table(pa.table({"id": list(range(ROWS)), "text": reviews(ROWS), "label": labels}), path)
    call = {"input": str(path), "output": str(tmp_path / "out.parquet"), "job": str(write_job(tmp_path))}
    options = ["--sample", "40", "--gold", "label=sentiment"]
    lines = planned(monkeypatch, call, *options).splitlines()
    said = {line[:11].strip(): line[11:] for line in lines}
    assert list(said) == ["sampled", "tokens", "cost", "all rows", "gold", "next"]
    assert said["sampled"] == "40 of 200 requests, drawn at random: 40 answered"
    assert said["gold"].startswith("sentiment: ")
    assert said["next"].startswith("batchwerk run ")
    assert "--sample" not in said["next"]
    assert planned(monkeypatch, call, *options).splitlines() == lines, "it is told again, and nothing is sent"
    found = json.loads(planned(monkeypatch, call, *options, "--json").splitlines()[-1], parse_float=Decimal)
    low, high = found["expected_range_usd"]
    assert found["total_cost_usd"] < low < found["expected_usd"] < high
    assert found["gold"][0]["compared"] == 40
    sample = found["sample"]
    ((tokens_in, tokens_out),) = emulator_ledger(
        tmp_path / "out.parquet", "SELECT sum(input_tokens), sum(output_tokens) FROM billed"
    )
    assert (sample["answered"], sample["measured"], sample["of"]) == (40, 40, 200)
    assert (sample["input_tokens"], sample["output_tokens"]) == (tokens_in, tokens_out)
    assert sample["cost_usd"] == found["total_cost_usd"]
    assert sample["all_output_tokens"]["expected"] == pytest.approx(5 * tokens_out, rel=0.05)


def test_a_sample_asks_one_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Beside others it is refused, before anything is sent."""
    call = parameters_for(tmp_path, 5)
    places = [call["input"], call["output"], "--job", call["job"], "--provider", "local"]
    assert cli.call(["plan", *map(str, places), "--sample", "2", "--compare", "gpt-4.1-mini"]) == 2
    assert "give --compare without --sample" in capsys.readouterr().err


def test_status_tells_what_the_rest_will_cost_after_a_sample(tmp_path: Path) -> None:
    """Though nothing is under way."""
    call = {**parameters_for(tmp_path, ROWS), "options": {}}
    enrich(**call, sample=50)
    found = json.loads(orjson.dumps(read_status(Path(call["output"])).summary()), parse_float=Decimal)
    assert found["under_way"] == 0
    low, high = found["expected_range_usd"]
    assert found["emulated_usd"] < low < found["expected_usd"] < high
    assert "expected in all" in read_status(Path(call["output"])).text()


def test_a_sample_whose_rows_fail_says_so(tmp_path: Path) -> None:
    """What may fail is a share of the rows that were tried, not of all."""
    call = {**parameters_for(tmp_path, ROWS), "options": {"refusal_rate": "1"}, "max_failed": 0.5}
    sampled = enrich(**call, sample=20)
    assert sampled.exit is Exit.ROWS_FAILED
    assert sampled.sample is not None
    assert (sampled.sample.answered, sampled.sample.failed) == (0, 20)
