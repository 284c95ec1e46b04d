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
from flows.domain.money import PICO, show_usd
from flows.preflight import RunConfig
from flows.report.figures import Figures
from flows.report.sample import sample_text
from flows.report.status import read_status
from flows.report.verdict import SAMPLED, Exit
from flows.storage.state import StateDirectory
from tests.flows.killing import RunUntil, check_paid_once, parameters_for
from tests.flows.test_budget import LIMITED
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


def test_a_larger_sample_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    """It holds the smaller one, whose answers are paid for; more than there are is everything."""
    call = {**parameters_for(tmp_path, ROWS), "options": {}}
    first, second, everything = (enrich(**call, sample=count) for count in (20, 50, 1_000))
    assert (first.attempts, second.attempts, everything.attempts) == (20, 30, ROWS + 1 - 50)
    assert second.sample is not None
    assert (second.sample.answered, second.sample.measured) == (50, 50)
    assert (everything.message, everything.outlook.total) == ("", everything.money.total)
    check_paid_once(Path(call["output"]), ROWS + 1)


def test_a_sample_keeps_to_a_budget(tmp_path: Path) -> None:
    """It ends before it could cost more, and says what was answered by then; with more it goes on."""
    call = {**parameters_for(tmp_path, ROWS), "options": {}, "job": str(write_job(tmp_path, LIMITED)), "batch_size": 5}
    stopped = enrich(**call, sample=50, budget=0.02)
    assert stopped.exit is Exit.BUDGET
    assert stopped.sample is not None
    assert 0 < stopped.sample.answered < 50
    assert stopped.money.total is not None
    assert 0 < stopped.money.total <= 0.02 * PICO
    again = enrich(**call, sample=50, budget=2.0)
    assert again.exit is Exit.DONE
    assert (again.attempts, billed(Path(call["output"]))) == (50 - stopped.sample.answered, 50)


def test_the_report_tells_what_a_sample_found(tmp_path: Path) -> None:
    """In words, as Prefect shows it too."""
    call = {**parameters_for(tmp_path, ROWS), "options": {}}
    found = enrich(**call, sample=20)
    text = StateDirectory(Path(call["output"])).report("md").read_text()
    assert f"* sampled: `20 of {ROWS + 1} requests, drawn at random: 20 answered`" in text
    assert f"* all rows: `about {show_usd(found.outlook.total)}, " in text


def test_a_sample_that_is_not_waited_for_tells_what_it_has(tmp_path: Path) -> None:
    """Nothing yet, which is not that it costs nothing; the same command waits for it."""
    call = {**parameters_for(tmp_path, ROWS), "options": {"latency": "1"}}
    found = enrich(**call, sample=20, wait=0)
    assert found.exit is Exit.WAITING
    assert found.sample is not None
    words = sample_text(found, found.sample)
    assert "0 answered, 20 without an answer yet" in words
    assert "all rows   nothing was measured, so nothing can be told" in words
    assert "next       the same command again" in words
    assert enrich(**call, sample=20).exit is Exit.DONE
    assert billed(Path(call["output"])) == 20


def test_an_unpriced_sample_tells_tokens(tmp_path: Path) -> None:
    """And that there is no price."""
    found = enrich(**{**parameters_for(tmp_path, ROWS), "options": {}}, sample=20, model="gpt-unheard-of")
    assert found.sample is not None
    assert "all rows   no price: this model is not in the price table; about " in sample_text(found, found.sample)
    assert found.summary()["expected_usd"] is None


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
