"""The figures of a run are those of the emulator's own ledger, to the last pico-dollar."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

from flows.domain.money import PICO, show_usd
from flows.report.figures import disagreement, usd
from flows.report.verdict import Exit
from tests.flows.report.reports import PRICE, Reported, figures_with, line, run_reported

BILLED = "SELECT sum(input_tokens + output_tokens) FROM billed"


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """60 requests with failures, invalid answers and refusals, some of them to the end."""
    return run_reported(tmp_path_factory.mktemp("faulty"))


def test_tokens_and_cost_are_those_that_were_billed(faulty: Reported) -> None:
    """Every billed answer is in the sums, useless ones as well, and no other."""
    tokens_in, tokens_out = faulty.emulator("SELECT sum(input_tokens), sum(output_tokens) FROM billed")
    figures = faulty.figures
    assert (figures.input_tokens, figures.output_tokens) == (tokens_in, tokens_out)
    paid = (tokens_in + tokens_out) * PRICE
    assert (figures.money.total, figures.money.this_call, figures.money.single) == (paid, paid, 2 * paid)


def test_the_cost_of_useless_answers_is_counted_apart(faulty: Reported) -> None:
    """They were billed, and the emulator knows that they were broken."""
    (tokens,) = faulty.emulator("SELECT sum(input_tokens + output_tokens) FROM billed WHERE NOT valid")
    assert faulty.figures.money.rejected == tokens * PRICE > 0


def test_batches_and_attempts_are_those_that_the_emulator_received(faulty: Reported) -> None:
    """What was sent again counts again."""
    assert (faulty.figures.batches,) == faulty.emulator("SELECT count(*) FROM batches")
    assert (faulty.figures.attempts,) == faulty.emulator("SELECT count(*) FROM requests")
    assert [line["requests"] for line in faulty.figures.table] == [20, 20, 20, 20, faulty.figures.attempts - 80]


def test_outcomes_are_those_that_the_emulator_caused(faulty: Reported) -> None:
    """Each request that was sent has one."""
    caused = "SELECT sum(outcome = 'answered'), sum(outcome = 'invalid'), sum(outcome = 'failed'), "
    good, broken, failed, refused = faulty.emulator(f"{caused} sum(outcome = 'refused') FROM results")
    assert faulty.figures.outcomes == {"ok": good, "rejected": broken, "failed": failed, "filtered": refused}
    assert sum(faulty.figures.outcomes.values()) == faulty.figures.attempts


def test_rows_are_those_of_the_output(faulty: Reported) -> None:
    """By their status; each row of the input is one of them."""
    written = Counter(pq.read_table(faulty.output).column("_status").to_pylist())
    assert faulty.figures.rows == written
    assert written["skipped"] == 3
    assert written["failed"] > 0
    assert sum(written.values()) == 68
    assert faulty.figures.exit is Exit.ROWS_FAILED


def test_the_cost_column_adds_up_to_what_was_paid(faulty: Reported) -> None:
    """No cent of the output belongs to a row that is not there, and duplicates carry none."""
    table = pq.read_table(faulty.output)
    costs = [cost or Decimal(0) for cost in table.column("_cost_usd").to_pylist()]
    assert sum(costs) * PICO == faulty.figures.money.total
    assert costs[60:] == [0] * 8
    assert faulty.figures.money.shared == sum(costs[:5]) * PICO > 0
    assert (faulty.figures.money.elsewhere, faulty.figures.money.reused) == (0, 0)


def test_the_report_file_has_the_figures(faulty: Reported) -> None:
    """report.json is the object of `--json` and all that stands behind it."""
    report, figures = faulty.json, faulty.figures
    assert report.items() >= {"rows": 68, "requests": 60, "deduplicated": 5, "exit": 3, "emulated": True}.items()
    assert report["succeeded"] + report["failed"] + report["skipped"] + report["pending"] == 68
    assert report["total_cost_usd"] * PICO == figures.money.total
    assert report["rejected_cost_usd"] * PICO == figures.money.rejected
    assert report["outcomes"] == figures.outcomes
    assert sum(line["cost_usd"] for line in report["batch_table"]) == report["total_cost_usd"]


def test_numbers_have_all_their_digits(tmp_path: Path) -> None:
    """Sums that a float would round are written in full, without an exponent."""
    reported = run_reported(tmp_path, options={"huge_usage_rate": "1"})
    (tokens,) = reported.emulator("SELECT sum(input_tokens) + sum(output_tokens) FROM billed")
    paid = tokens * PRICE
    assert paid > 2**53
    assert reported.json["total_cost_usd"] * PICO == paid
    digits = f"{paid // PICO}.{paid % PICO:012d}".rstrip("0").rstrip(".")
    assert f'"total_cost_usd": {digits},' in reported.raw
    assert not re.search(r"_usd\": [\d.]+e", reported.raw)


@pytest.mark.parametrize(
    ("pico", "written"),
    [(0, b"0"), (1, b"0.000000000001"), (-15 * 10**11, b"-1.5"), (12_345_678_901_234_567_890, b"12345678.90123456789")],
)
def test_money_is_written_as_a_decimal(pico: int, written: bytes) -> None:
    """From one pico-dollar to millions, also below zero."""
    assert orjson.dumps(usd(pico)) == written


def test_an_unpriced_model_has_unknown_costs(tmp_path: Path) -> None:
    """Every sum of money is null, never 0; the tokens are counted."""
    reported = run_reported(tmp_path, model="gpt-unheard-of")
    report = reported.json
    money = {name for name in report if name.endswith("_usd")}
    assert {report[name] for name in money - {"saved_by_deduplication_usd", "billed_usd"}} == {None}
    assert (report["input_tokens"], report["output_tokens"]) == reported.emulator(
        "SELECT sum(input_tokens), sum(output_tokens) FROM billed"
    )


def test_answers_without_usage_are_counted(tmp_path: Path) -> None:
    """Their cost is unknown: the sums have the others alone."""
    reported = run_reported(tmp_path, options={"unmetered_rate": "0.5", "seed": "1"})
    figures = reported.figures
    assert 0 < figures.unmetered < 60
    (billed,) = reported.emulator("SELECT sum(input_tokens) FROM billed")
    assert 0 < figures.input_tokens < billed
    assert figures.money.total == (figures.input_tokens + figures.output_tokens) * PRICE


def test_pending_rows_are_counted(tmp_path: Path) -> None:
    """A run that does not wait has sent everything and paid for nothing yet."""
    figures = run_reported(tmp_path, wait=0, options={"latency": "600"}).figures
    assert (figures.rows, figures.exit) == ({"pending": 65, "skipped": 3}, Exit.WAITING)
    assert (figures.batches, figures.attempts, figures.money.this_call) == (3, 60, 0)
    assert {line["state"] for line in figures.table} == {"submitted"}


def test_a_later_call_counts_what_it_did_itself(tmp_path: Path) -> None:
    """What was there before it is reused; the total is that of all calls."""
    first = run_reported(tmp_path, limit=20, options={})
    (before,) = first.emulator(BILLED)
    second = run_reported(tmp_path, options={})
    (after,) = second.emulator(BILLED)
    money = second.figures.money
    assert (second.figures.reused, second.figures.attempts) == (20, 40)
    assert (money.reused, money.total) == (before * PRICE, after * PRICE)
    assert money.this_call == (after - before) * PRICE


def test_rows_that_left_the_input_are_paid_for_all_the_same(tmp_path: Path) -> None:
    """What they cost is named apart from what the rows of the output cost."""
    first = run_reported(tmp_path, options={})
    second = run_reported(tmp_path, limit=30, options={})
    costs = pq.read_table(second.output).column("_cost_usd").to_pylist()
    assert second.figures.attempts == 0
    assert second.figures.money.total == first.emulator(BILLED)[0] * PRICE
    assert second.figures.money.elsewhere == first.emulator(BILLED)[0] * PRICE - sum(costs) * PICO > 0


def test_the_summary_names_statuses_that_do_not_occur() -> None:
    """Programs find 0 under each name, not a missing key."""
    summary = figures_with(rows={"ok": 3}, table=[line(1)]).summary()
    assert (summary["succeeded"], summary["failed"], summary["skipped"], summary["pending"]) == (3, 0, 0, 0)


@pytest.mark.parametrize(
    ("stated", "ours", "is_told"),
    [
        (0, 10_000, False),  # it says nothing
        (10_000, 10_000, False),
        (10_100, 10_000, False),  # within one per cent of the larger
        (10_102, 10_000, True),
        (9_800, 10_000, True),
        (10_000, None, True),  # we know no price
    ],
)
def test_a_provider_that_counts_another_sum_is_told(stated: int, ours: int | None, *, is_told: bool) -> None:
    """From one per cent on, with both sums and what to compare."""
    money = replace(figures_with().money, stated=stated * 10**9, cost_of_stated=None if ours is None else ours * 10**9)
    said = disagreement(money)
    assert (said is not None) is is_told
    if said is not None:
        assert show_usd(stated * 10**9) in said
        assert "reconcile" in said
