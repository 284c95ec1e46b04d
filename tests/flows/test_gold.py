"""A column that people filled: what the report says of the answers beside it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.cli import call as command
from flows.report.figures import Figures
from flows.storage.state import StateDirectory
from tests.flows.undecorated import JOB, emulator_ledger, enrich, reviews, write_job

LABELS = ["positive", "negative", "neutral", None]
SENT = "SELECT count(*) FROM requests"


def write_input(folder: Path, rows: int = 40) -> Path:
    path = folder / "input.parquet"
    people = [LABELS[number % len(LABELS)] for number in range(rows)]
    pq.write_table(pa.table({"text": reviews(rows), "people": people, "stars": [n % 5 for n in range(rows)]}), path)
    return path


@pytest.fixture
def call(tmp_path: Path) -> dict[str, Any]:
    return {"input": write_input(tmp_path), "output": tmp_path / "out.parquet", "job": write_job(tmp_path)}


def pairs_of(output: Path) -> list[tuple[str, str]]:
    """Labels and answers of the rows that have both, as the output has them."""
    rows = pq.read_table(output, columns=["people", "sentiment"]).to_pylist()
    return [(row["people"], row["sentiment"]) for row in rows if row["people"] and row["sentiment"]]


def check(figures: Figures, output: Path) -> None:
    (found,) = figures.gold
    pairs = pairs_of(output)
    assert found["compared"] == len(pairs) > 0
    assert found["correct"] == sum(label == answer for label, answer in pairs)
    assert found["accuracy"] == found["correct"] / found["compared"]
    assert {(each["label"], each["answer"]): each["rows"] for each in found["confusion"]} == Counter(pairs)
    texts = pq.read_table(output).to_pylist()
    for example in found["examples"]:
        row = texts[example["row"] - 1]
        assert (example["label"], example["answer"]) == (row["people"], row["sentiment"])
        assert example["label"] != example["answer"]
        assert example["input"]["text"] == row["text"]


def test_the_report_compares_answers_with_what_people_filled(call: dict[str, Any]) -> None:
    """As the output itself does, in the figures, report.json, report.md and `--json`."""
    figures = enrich(**call, gold={"people": "sentiment"})
    check(figures, call["output"])
    (found,) = figures.gold
    assert (found["rows_without_label"], found["rows_without_answer"]) == (10, 0)
    assert found["examples"]
    state = StateDirectory(call["output"])
    assert json.loads(state.report("json").read_bytes())["gold"] == figures.gold
    said = f"{found['correct']} of {found['compared']} rows agree ({found['accuracy']:.1%})."
    assert said in state.report("md").read_text()
    assert figures.summary()["gold"][0]["accuracy"] == found["accuracy"]


def test_another_gold_column_sends_nothing_again(call: dict[str, Any]) -> None:
    """It is no part of a request: named later, in the job file or on the command, changed, or left out."""
    assert enrich(**call).gold == []
    sent = emulator_ledger(call["output"], SENT)
    later = enrich(**call, gold={"people": "sentiment"})
    check(later, call["output"])
    call["job"].write_text(JOB + "gold: {sentiment: people}\n")
    from_job = enrich(**call)
    assert from_job.gold == later.gold
    assert (later.attempts, from_job.attempts) == (0, 0)
    assert emulator_ledger(call["output"], SENT) == sent


def test_a_prompt_is_judged_by_a_few_rows(call: dict[str, Any]) -> None:
    """`--limit` bounds what is compared, and what it costs."""
    figures = enrich(**call, gold={"people": "sentiment"}, limit=8)
    check(figures, call["output"])
    assert figures.attempts == 8
    assert figures.gold[0]["compared"] == 6


def test_failed_rows_are_no_wrong_answers(call: dict[str, Any]) -> None:
    """They have a label and no answer."""
    faults = {"refusal_rate": "0.3", "seed": "3"}
    figures = enrich(**call, gold={"people": "sentiment"}, options=faults, max_failed=1.0)
    check(figures, call["output"])
    rows = pq.read_table(call["output"]).to_pylist()
    failed = sum(row["people"] is not None and row["_status"] == "failed" for row in rows)
    assert figures.gold[0]["rows_without_answer"] == failed > 0


def test_a_renamed_field_is_found_by_its_name_in_the_job(call: dict[str, Any]) -> None:
    """What the output calls it does not matter."""
    call["job"].write_text(JOB + "rename: {sentiment: mood}\n")
    figures = enrich(**call, gold={"people": "sentiment"})
    rows = pq.read_table(call["output"], columns=["people", "mood"]).to_pylist()
    assert figures.gold[0]["correct"] == sum(row["people"] == row["mood"] for row in rows)


@pytest.mark.parametrize(
    ("gold", "problem"),
    [
        ("nobody=sentiment", "the gold column 'nobody' is not in the input"),
        ("people=mood", "a field 'mood' that answers do not have"),
        ("people=topics", "is a list or an object"),
        ("people", "--gold people has no value"),
        ("people=", "--gold must be COLUMN=FIELD"),
    ],
)
def test_a_wrong_gold_column_is_a_sentence(
    call: dict[str, Any], capsys: pytest.CaptureFixture[str], gold: str, problem: str
) -> None:
    """Before anything is sent."""
    names = ("input", "output", "job")
    source, output, job = (str(call[name]) for name in names)
    assert command(["plan", source, output, "--job", job, "--provider", "local", "--gold", gold]) == 2
    assert problem in capsys.readouterr().err
