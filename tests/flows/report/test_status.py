"""What `status` says of an output, read from its state directory alone."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import orjson
import pytest

from blocks.errors import UsageError
from flows.domain.money import PICO, show_usd
from flows.report.status import read_status
from flows.storage.state import StateDirectory
from tests.flows.report.reports import PRICE, TEXTS, Reported, run_reported


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """60 requests with failures, invalid answers and refusals, some of them to the end."""
    return run_reported(tmp_path_factory.mktemp("faulty"))


def test_a_finished_output_is_shown_as_it_was_reported(faulty: Reported) -> None:
    """Rows, batches and cost are those of the report and of the emulator's ledger."""
    status = read_status(faulty.output)
    found, figures = status.summary(), faulty.figures
    (tokens,) = faulty.emulator("SELECT sum(input_tokens + output_tokens) FROM billed")
    assert found["run"] == figures.run
    assert {name: count for name, count in found["statuses"].items() if count} == figures.rows
    assert found["batches"] == {"collected": figures.batches}
    assert (found["requests"], found["with_provider"], found["exit"]) == (60, 0, 0)
    written = json.loads(orjson.dumps(found), parse_float=Decimal)
    assert written["emulated_usd"] * PICO == tokens * PRICE
    assert written["total_cost_usd"] == 0, "nothing was billed"


def test_requests_that_failed_for_good_are_counted(faulty: Reported) -> None:
    """As many as the emulator never answered well."""
    (good,) = faulty.emulator("SELECT count(DISTINCT prompt_hash) FROM billed WHERE valid")
    assert read_status(faulty.output).summary()["final_failures"] == 60 - good > 0


def test_the_words_have_the_figures(faulty: Reported) -> None:
    """One line each, with thousands grouped and money as the report shows it."""
    status, figures = read_status(faulty.output), faulty.figures
    lines = dict(line.split(maxsplit=1) for line in status.text().splitlines())
    assert list(lines) == ["output", "input", "rows", "requests", "batches", "cost", "emulated"]
    assert lines["input"] == figures.input
    assert f"{figures.rows['ok']} ok" in lines["rows"]
    assert f"{figures.rows['failed']} failed" in lines["rows"]
    assert lines["requests"] == "60 in total, 0 with the provider now"
    assert lines["batches"] == f"{figures.batches} collected"
    assert lines["cost"] == "$0.00 so far"
    assert lines["emulated"] == f"{show_usd(figures.money.total)} for the emulator's answers, not billed"


def test_what_is_with_the_provider_is_counted(tmp_path: Path) -> None:
    """The output is published, and not complete."""
    reported = run_reported(tmp_path, wait=0, options={"latency": "600"})
    status = read_status(reported.output)
    found = status.summary()
    assert (found["with_provider"], found["batches"], found["complete"]) == (60, {"submitted": 3}, False)
    assert found["statuses"]["pending"] == 65
    assert "(not complete)" in status.text().splitlines()[0]
    assert "60 with the provider now" in status.text()
    expected = json.loads(orjson.dumps(found), parse_float=Decimal)
    assert (found["under_way"], found["expected_range_usd"]) == (60, None)
    assert expected["expected_usd"] > expected["under_way_usd"] > 0
    cost = next(line for line in status.text().splitlines() if line.startswith("cost"))
    under_way, total = (show_usd(int(expected[name] * PICO)) for name in ("under_way_usd", "expected_usd"))
    assert cost == f"cost       $0.00 (emulated) so far, about {under_way} under way, {total} expected in all"


def test_batches_whose_cost_nobody_can_tell_are_not_left_out(tmp_path: Path) -> None:
    """Without the plan's files the number of requests is told, and that their price is unknown."""
    reported = run_reported(tmp_path, wait=0, options={"latency": "600"})
    StateDirectory(reported.output).rows.unlink()
    status = read_status(reported.output)
    assert "$0.00 so far, 60 requests under way at an unknown price" in status.text()
    assert (status.summary()["under_way"], status.summary()["under_way_usd"]) == (60, None)


def test_a_complete_output_is_called_so(tmp_path: Path) -> None:
    """Every row has an answer or a reason why it has none."""
    reported = run_reported(tmp_path, options={})
    status = read_status(reported.output)
    assert status.summary()["complete"] is True
    assert "not complete" not in status.text()


def test_an_output_that_was_never_published_says_so(tmp_path: Path) -> None:
    """As after a run that was killed before its end."""
    reported = run_reported(tmp_path, options={})
    StateDirectory(reported.output).published.unlink()
    status = read_status(reported.output)
    assert (status.summary()["statuses"], status.summary()["complete"]) == ({}, False)
    assert "not published yet" in status.text()


def test_an_unpriced_model_costs_the_unknown(tmp_path: Path) -> None:
    """Null for programs, a word for people."""
    status = read_status(run_reported(tmp_path, TEXTS[:5], model="gpt-unheard-of").output)
    assert status.summary()["emulated_usd"] is None
    assert "emulated   unpriced for the emulator's answers" in status.text()


def test_what_batchwerk_did_not_write_has_no_status(tmp_path: Path) -> None:
    """The error says which name it wants."""
    with pytest.raises(UsageError, match="was not written by Batchwerk"):
        read_status(tmp_path / "other.parquet")


def test_reading_the_status_changes_nothing(faulty: Reported) -> None:
    """Whoever works on the output is not disturbed."""
    folder = StateDirectory(faulty.output).path
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}
    read_status(faulty.output).text()
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]} == before
