"""What the report says of failures, fields and examples is what the output's files hold."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.report import contents
from flows.report.contents import Layout, read_contents
from flows.report.distributions import MOST_VALUES, Distribution, leaves
from tests.flows.report.reports import TEXTS, Reported, run_reported
from tests.flows.undecorated import enrich, reviews, write_job, write_texts


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """60 requests with failures, invalid answers and refusals, some of them to the end."""
    return run_reported(tmp_path_factory.mktemp("faulty"))


def test_failures_are_counted_by_reason_and_shown_with_their_rows(faulty: Reported) -> None:
    """All failed rows are in one of them; an example is the row that it names, with what was asked."""
    table, report = pq.read_table(faulty.output).to_pylist(), faulty.json
    found = report["contents"]
    assert sum(each["rows"] for each in found["failures"]) + found["more_failed"] == report["failed"] > 0
    for each in found["failures"]:
        for example in each["examples"]:
            row = table[example["row"] - 1]
            assert row["_status"] == "failed"
            assert example["error"].split()[0] in row["_error"]
            assert example["input"]["text"][:50] == row["text"][:50]


def test_what_repeats_failed_rows_is_the_command_of_the_run(faulty: Reported) -> None:
    """Parameter by parameter, with one more."""
    command = shlex.split(faulty.json["commands"]["retry"])
    assert command[:3] == ["batchwerk", "run", str(faulty.output.parent / "input.parquet")]
    assert {"--retry-failed", "--batch-size", "20", "seed=3"} <= set(command)
    assert "--retry-failed" not in faulty.json["commands"]["continue"]


def test_fields_are_counted_in_good_rows(faulty: Reported) -> None:
    """Each value as often as the output has it."""
    good = [row for row in pq.read_table(faulty.output).to_pylist() if row["_status"] == "ok"]
    fields = {each["field"]: each for each in faulty.json["contents"]["fields"]}
    shown = {each["value"]: each["count"] for each in fields["sentiment"]["top"]}
    assert shown == Counter(row["sentiment"] for row in good)
    assert fields["sentiment"]["given"] == len(good)


def test_examples_have_answers_beside_their_inputs(faulty: Reported) -> None:
    """From the whole output, not from its first rows alone."""
    table = pq.read_table(faulty.output).to_pylist()
    examples = faulty.json["contents"]["examples"]
    rows = [each["row"] for each in examples]
    assert len(rows) == 5
    assert rows[-1] > len(TEXTS) // 2
    for each in examples:
        row = table[each["row"] - 1]
        assert (each["input"]["text"], each["answer"]["sentiment"]) == (row["text"], row["sentiment"])
        assert json.loads(each["answer"]["topics"]) == row["topics"]


def test_spending_adds_up_to_what_the_emulator_billed(faulty: Reported) -> None:
    """To the last digit, and rejected answers are those that it broke."""
    spent = faulty.json["spending_usd"]
    assert sum(spent.values()) == faulty.json["total_cost_usd"] > 0
    assert spent["rejected_answers"] == faulty.json["rejected_cost_usd"] > 0
    assert spent["answers_no_row_shows"] == spent["repeated_answers"] == 0
    assert faulty.json["wasted_usd"] == faulty.json["total_cost_usd"] - spent["good_rows"]


def test_good_answers_of_rows_that_left_have_their_own_line(tmp_path: Path) -> None:
    """They were not wasted, and they are in no row."""
    run_reported(tmp_path, options={})
    after = run_reported(tmp_path, limit=30, options={}).json
    spent = after["spending_usd"]
    assert spent["good_rows"] + spent["answers_no_row_shows"] == after["total_cost_usd"]
    assert spent["answers_no_row_shows"] == after["cost_of_rows_that_left_usd"] > 0
    assert after["wasted_usd"] == 0


def distribution(*windows: list[Any]) -> dict[str, Any]:
    found = Distribution("f")
    for values in windows:
        found.add(pa.array(values))
    return found.details()


def test_few_values_are_counted_each() -> None:
    """The most frequent first; what is not shown is counted together."""
    found = distribution(["a", "b", None, "a"], [*"cdefghijklmnop"])
    assert (found["given"], found["nulls"], found["different"]) == (17, 1, 16)
    assert found["top"][:2] == [{"value": "a", "count": 2}, {"value": "b", "count": 1}]
    assert sum(each["count"] for each in found["top"]) + found["rest"] == 17


def test_free_texts_are_counted_by_their_length() -> None:
    """Powers of two, up to which a text has characters; all of them are in one."""
    texts = [f"{number:0{1 + number % 40}d}" for number in range(3 * MOST_VALUES)]
    found = distribution(texts[:2000], texts[2000:])
    assert "top" not in found
    assert sum(each["count"] for each in found["lengths"]) == len(texts)
    sixteen = sum(each["count"] for each in found["lengths"] if each["to"] <= 16)
    assert sixteen == sum(len(text) <= 16 for text in texts)


def test_many_numbers_are_counted_by_their_size() -> None:
    """Also below zero; lowest, highest and mean are exact."""
    numbers = [(number - 1000) / 8 for number in range(4 * MOST_VALUES)]
    found = distribution(numbers)
    assert (found["lowest"], found["highest"], found["mean"]) == (-125.0, 374.875, sum(numbers) / len(numbers))
    assert sum(each["count"] for each in found["sizes"]) == len(numbers)
    for each in found["sizes"]:
        near = sum(each["from"] * 0.98 - 0.01 <= number <= each["to"] * 1.02 + 0.01 for number in numbers)
        assert 0 < each["count"] <= near or each["to"] <= 0


def test_booleans_and_nested_values_have_names() -> None:
    """A list by its items, an object by its members."""
    rows = pa.array([{"tags": ["a", "b"], "ok": True}, {"tags": [], "ok": False}, None])
    found = dict(leaves("f", rows))
    assert {name: values.to_pylist() for name, values in found.items()} == {
        "f.tags[]": ["a", "b"],
        "f.ok": [True, False],
    }
    assert distribution([True, False, True])["top"][0] == {"value": "true", "count": 2}


def test_an_output_that_is_too_large_is_read_in_part_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first rows of each file, and how many these were."""
    monkeypatch.setattr(contents, "MOST_ROWS", 50)
    files = {}
    for name, count in (("a", 300), ("b", 100)):
        place = tmp_path / name
        table = {"x": ["t"] * count, "label": [name] * count, "_status": ["ok"] * count, "_error": [None] * count}
        pq.write_table(pa.table(table, pa.schema([(column, pa.string()) for column in table])), place)
        files[place] = count
    found = read_contents(files, Layout({"label": "label"}, ["x"], "_status", "_error"), 400, "again")
    assert (found.rows, found.rows_read) == (400, 37 + 12)
    assert found.fields[0]["top"] == [{"value": "a", "count": 37}, {"value": "b", "count": 12}]


def test_a_long_value_makes_a_field_free_text() -> None:
    """A thousand long answers are not kept in memory to be counted each."""
    found = distribution(["short"], ["long " * 100])
    assert "top" not in found
    assert sum(each["count"] for each in found["lengths"]) == 2


def test_advice_is_about_all_answers_to_the_job(tmp_path: Path) -> None:
    """Also to those that were asked for with other options."""
    first = run_reported(tmp_path).json
    again = run_reported(tmp_path, options={"seed": "9"}).json
    waste = {each["what"]: each["saves_usd"] for each in again["advice"]}
    assert waste["no answers that break the schema"] == again["rejected_cost_usd"] == first["rejected_cost_usd"] > 0
    assert all("(emulated)" in each["how"] for each in again["advice"] if "$" in each["how"])


def test_an_output_that_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next report says the same of it; one that changed is read."""
    places = {
        "input": write_texts(tmp_path, reviews(20)),
        "output": tmp_path / "out.parquet",
        "job": write_job(tmp_path),
    }
    read: list[Path] = []
    reads = contents._Reading.read

    def noted(self: Any, path: Path, most: int) -> None:
        read.append(path)
        reads(self, path, most)

    monkeypatch.setattr(contents._Reading, "read", noted)
    first = Reported(places["output"], enrich(**places)).json["contents"]
    assert Reported(places["output"], enrich(**places)).json["contents"] == first
    assert read == [places["output"]]
    enrich(**places, limit=10, replace=True)
    assert len(read) == 2
