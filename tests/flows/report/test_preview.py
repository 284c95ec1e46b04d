"""What `plan` says beside its figures: why rows can't be sent, who answers, and that a price is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.domain.estimate import Estimate
from flows.preflight import check
from flows.report.preview import Preview, preview
from flows.settings import read_settings
from flows.storage.plan import Plan
from tests.flows.undecorated import JOB, reviews, write_job, write_texts

PLAN = Plan(
    rows=1200,
    total_rows=5000,
    skipped=100,
    unsendable=0,
    requests=1000,
    start=0,
    stop=1000,
    tokens_per_byte=0.25,
    counted_with=None,
    spread=(0.5, 2.0),
    first_prompt="Review: good",
    first_problem=None,
)
ESTIMATE = Estimate(900, 123_456, 7_890, 15 * 10**11, 3 * 10**12)


def shown(**changes: Any) -> list[str]:
    """The lines of a preview with these changes."""
    parts: dict[str, Any] = {"plan": PLAN, "estimate": ESTIMATE, "batches": 3, "model": "gpt-4.1", "emulated": False}
    return Preview(**{**parts, **changes}).text().splitlines()


def plan_with(**changes: Any) -> Plan:
    figures = {name: getattr(PLAN, name) for name in Plan.__dataclass_fields__}
    return Plan(**{**figures, **changes})


def previewed(folder: Path, texts: list[str | None], **parameters: Any) -> Preview:
    """Of a new output in this folder, by the emulator unless told otherwise."""
    places = {"input": write_texts(folder, texts), "output": folder / "out.parquet", "job": write_job(folder, JOB)}
    return preview(check(read_settings({**places, "provider": "local", "options": {}, **parameters})))


def test_the_lines_are_aligned_and_grouped_by_thousands() -> None:
    """Five lines of figures, then the first prompt."""
    assert shown() == [
        "rows       1,200 of 5,000 (100 skipped)",
        "requests   1,000 distinct (100 rows share another row's)",
        "to send    900, batches: 3",
        "tokens     about 123,456 in (61,730 to 246,910), 7,890 out (gpt-4.1)",
        "cost       about $1.50, $3.00 as single requests",
        "",
        "first prompt:",
        "Review: good",
    ]


def test_rows_that_can_not_be_sent_are_counted_and_the_first_is_explained() -> None:
    """Below the line of the rows, where the number stands."""
    lines = shown(plan=plan_with(unsendable=2, first_problem="row 7: too large"))
    assert lines[:2] == ["rows       1,200 of 5,000 (100 skipped, 2 can't be sent)", "           row 7: too large"]


def test_an_emulator_is_named() -> None:
    """Its costs are never taken for a bill."""
    assert "           the emulator answers; nothing is billed" in shown(emulated=True)
    assert not any("emulator" in line for line in shown())


def test_an_input_without_requests_has_no_prompt() -> None:
    """The lines end with the cost."""
    assert shown(plan=plan_with(first_prompt=None))[-1].startswith("cost ")


def test_a_row_that_is_too_large_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    """The provider's limit of one request is checked by planning."""
    found = previewed(tmp_path, [*reviews(2), "x" * 5_000_000])
    assert (found.plan.rows, found.plan.requests, found.plan.unsendable, found.batches) == (3, 2, 1, 1)
    assert found.summary()["first_problem"] == found.text().splitlines()[1].strip()


@pytest.mark.parametrize("texts", [[], [None], ["one"]], ids=["no rows", "a null", "one row"])
def test_the_smallest_inputs_can_be_planned(tmp_path: Path, texts: list[str | None]) -> None:
    """Nothing is divided by nothing."""
    found = previewed(tmp_path, texts)
    assert (found.plan.rows, found.batches) == (len(texts), len(texts))
    assert found.text().startswith(f"rows       {len(texts)} of {len(texts)} ")


def test_the_model_of_the_call_is_shown(tmp_path: Path) -> None:
    """It stands instead of the job's, and its prices apply."""
    usual, other = previewed(tmp_path, reviews(3)), previewed(tmp_path, reviews(3), model="deepseek-v3.2")
    assert (usual.model, other.model) == ("gpt-4.1", "deepseek-v3.2")
    dollars = [(found.estimate.cost or 0) / found.estimate.input_tokens for found in (usual, other)]
    assert dollars[0] > 10 * dollars[1] > 0  # 4 and 0.21 USD per million tokens, counted by each with its vocabulary


def test_a_row_that_commands_the_terminal_is_only_shown(tmp_path: Path) -> None:
    """The first prompt keeps its lines, the first problem is one line, and neither holds an escape sequence."""
    text = previewed(tmp_path, ["\x1b]0;title\x07good\nsecond line"]).text()
    assert text.endswith("first prompt:\nReview: \\u001b]0;title\\u0007good\nsecond line")
    lines = shown(plan=plan_with(first_problem="\x1b[2J\nbatchwerk: done"), model="\x1b[31mm")
    assert lines[1] == "           \\u001b[2J\\nbatchwerk: done"
    assert all(line.isprintable() for line in lines)


def test_only_the_beginning_of_a_long_prompt_is_shown() -> None:
    """The rest is counted."""
    lines = shown(plan=plan_with(first_prompt="x" * 30_000))
    assert lines[-2:] == ["x" * 10_000, "… and 20,000 characters more"]
