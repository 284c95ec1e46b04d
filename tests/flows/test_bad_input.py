"""Bad input gets a clear error before Prefect is imported, and nothing is sent or written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.errors import UsageError
from flows.preflight import check
from flows.settings import read_settings
from tests.flows.command import Called, batchwerk
from tests.flows.undecorated import JOB, enrich, reviews, write_job, write_texts


class Call:
    """A right call, to be made wrong in one place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.input = write_texts(folder, reviews(3))
        self.output = folder / "out" / "out.parquet"
        self.job = write_job(folder)
        self.provider = "local"
        self.more: list[str] = []
        self.env: dict[str, str] = {"HOLYSHEEP_API_KEY": ""}

    def write_job(self, old: str, new: str) -> None:
        self.job = write_job(self.folder, JOB.replace(old, new))

    def make(self, command: str = "run") -> Called:
        options: list[str | Path] = ["--job", self.job, "--provider", self.provider, *self.more]
        return batchwerk(command, self.input, self.output, *options, env=self.env)


@pytest.fixture
def call(tmp_path: Path) -> Call:
    return Call(tmp_path)


def missing_input(call: Call) -> str:
    call.input = call.folder / "nowhere.parquet"
    return "nowhere.parquet does not exist"


def folder_without_parquet(call: Call) -> str:
    call.input = call.folder / "empty"
    call.input.mkdir()
    return "contains no .parquet file"


def folder_that_holds_the_output(call: Call) -> str:
    call.input = call.folder
    return "lies inside the other"


def folder_with_a_link_to_where_the_output_lies(call: Call) -> str:
    folder, linked = call.folder / "in", call.folder / "linked"
    folder.mkdir()
    linked.mkdir()
    call.input.rename(linked / "a.parquet")
    (folder / "link").symlink_to(linked)
    call.input, call.output = folder, linked / "out"
    return "lies inside the other"


def folder_into_a_file(call: Call) -> str:
    folder = call.folder / "in"
    folder.mkdir()
    call.input = call.input.rename(folder / "a.parquet").parent
    call.output.parent.mkdir()
    call.output.touch()
    return "is a folder, but the output"


def folder_of_another_table_format(call: Call) -> str:
    (call.folder / "in" / "_delta_log").mkdir(parents=True)
    (call.folder / "in" / "_delta_log" / "0.json").touch()
    call.input = call.input.rename(call.folder / "in" / "a.parquet").parent
    return "is a Delta table"


def folder_of_two_types(call: Call) -> str:
    folder = call.folder / "in"
    folder.mkdir()
    pq.write_table(pa.table({"text": [{"x": 1}]}), folder / "b.parquet")
    call.input = call.input.rename(folder / "a.parquet").parent
    return "the column 'text' is string in a.parquet and struct<x: int64> in b.parquet"


def folder_where_a_file_lacks_a_column(call: Call) -> str:
    folder = call.folder / "in"
    folder.mkdir()
    pq.write_table(pa.table({"id": [1]}), folder / "b.parquet")
    call.input = call.input.rename(folder / "a.parquet").parent
    return "text"


def not_parquet(call: Call) -> str:
    call.input.write_text("id,text\n1,a\n")
    return "is not a readable Parquet file"


def cut_off_parquet(call: Call) -> str:
    call.input.write_bytes(call.input.read_bytes()[:-50])
    return "is not a readable Parquet file"


def unknown_column(call: Call) -> str:
    call.write_job("{{ text }}", "{{ txt }}")
    return "uses a column 'txt' that the input does not have; did you mean 'text'?"


def broken_template(call: Call) -> str:
    call.write_job("{{ text }}", "{{ text ")
    return "the prompt is not a valid template"


def unknown_filter(call: Call) -> str:
    call.write_job("{{ text }}", "{{ text | shout }}")
    return "No filter named 'shout'"


def prompt_without_a_column(call: Call) -> str:
    call.write_job("{{ text }}", "hello")
    return "the prompt uses no column"


def output_that_is_no_schema(call: Call) -> str:
    call.write_job("{type: string, enum: [positive, negative, neutral]}", "{type: strin}")
    return "`output` is not a valid JSON Schema"


def output_field_that_is_no_schema(call: Call) -> str:
    call.write_job("{type: string, enum: [positive, negative, neutral]}", "positive")
    return "field 'sentiment' is not a JSON Schema"


def job_that_is_not_yaml(call: Call) -> str:
    call.job.write_text("name: [")
    return "not valid YAML"


def job_that_does_not_exist(call: Call) -> str:
    call.job = call.folder / "no.yaml"
    return "no.yaml does not exist"


def job_without_a_prompt(call: Call) -> str:
    call.job.write_text("name: a\nmodel: b\n")
    return "`prompt` is missing"


def job_with_an_unknown_setting(call: Call) -> str:
    call.job.write_text(JOB + "promt: x\n")
    return "`promt` is not a known setting"


def skip_empty_of_an_unknown_column(call: Call) -> str:
    call.job.write_text(JOB + "skip_empty: [body]\n")
    return "`skip_empty` names a column 'body'"


def output_column_that_exists(call: Call) -> str:
    table = pq.read_table(call.input)
    pq.write_table(table.append_column("sentiment", pa.array(["x"] * 3)), call.input)
    return "the input already has a column 'sentiment'\n  → choose another name in the job file, for example `rename:"


def status_column_that_exists(call: Call) -> str:
    table = pq.read_table(call.input)
    pq.write_table(table.append_column("_status", pa.array(["x"] * 3)), call.input)
    return "the input already has a column '_status'"


def unknown_provider(call: Call) -> str:
    call.provider = "holysheeep"
    return "there is no provider 'holysheeep'"


def no_key(call: Call) -> str:
    call.provider = "holysheep"
    return "HOLYSHEEP_API_KEY is not set"


def base_url_that_is_none(call: Call) -> str:
    call.provider, call.env["HOLYSHEEP_API_KEY"] = "holysheep", "k"
    call.more = ["--base-url", "api.holysheep.ai"]
    return "is not a web address"


def unknown_option(call: Call) -> str:
    call.more = ["--option", "failure_rat=0.1"]
    return "failure_rat"


def option_without_a_value(call: Call) -> str:
    call.more = ["--option", "failure_rate"]
    return "has no value"


def option_out_of_range(call: Call) -> str:
    call.more = ["--option", "max_requests=none"]
    return "max_requests=none is not a whole number"


def memory_that_is_no_size(call: Call) -> str:
    call.more += ["--memory-limit", "lots"]
    return "--memory-limit must be a size such as 100MB or 2GB"


def batch_size_that_is_none(call: Call) -> str:
    call.more = ["--batch-size", "many"]
    return "--batch-size must be a whole number, at least 1, or auto\n"


def batch_size_of_nothing(call: Call) -> str:
    call.more = ["--batch-size", "0"]
    return "--batch-size must be a whole number, at least 1, or auto\n"


def choice_that_is_none(call: Call) -> str:
    call.more = ["--compression", "lzma"]
    return "--compression must be zstd, snappy, gzip or none\n"


def two_values_out_of_bounds(call: Call) -> str:
    call.more = ["--max-failed", "2", "--wait", "soon"]
    return "--max-failed must be a number, at least 0 and at most 1; --wait must be a number, at least 0\n"


def where_that_is_no_condition(call: Call) -> str:
    call.more = ["--where", "txt = 'a'"]
    return "invalid --where condition"


def output_that_is_the_input(call: Call) -> str:
    call.output = call.input
    return "is the input itself"


def output_that_is_somebody_elses(call: Call) -> str:
    call.output.parent.mkdir()
    call.output.write_text("precious")
    return "was not written by Batchwerk"


def output_of_another_input(call: Call) -> str:
    other = write_texts(call.folder, reviews(2), "other.parquet")
    enrich(input=other, output=call.output, job=call.job)
    return f"belongs to another input: {other.resolve()}\n  → choose another output, or add --input-moved"


def output_that_is_a_folder(call: Call) -> str:
    call.output.mkdir(parents=True)
    return "is a folder"


def output_below_a_file(call: Call) -> str:
    call.output = call.input / "out.parquet"
    return "can't be written"


MISTAKES: list[Callable[[Call], str]] = [
    missing_input, folder_without_parquet, folder_that_holds_the_output, folder_into_a_file,
    folder_of_another_table_format, folder_of_two_types, folder_where_a_file_lacks_a_column, not_parquet,
    cut_off_parquet, unknown_column, broken_template, unknown_filter, prompt_without_a_column,
    output_that_is_no_schema, output_field_that_is_no_schema, job_that_is_not_yaml, job_that_does_not_exist,
    job_without_a_prompt, job_with_an_unknown_setting, skip_empty_of_an_unknown_column, output_column_that_exists,
    status_column_that_exists, unknown_provider, no_key, base_url_that_is_none, memory_that_is_no_size,
    unknown_option, option_without_a_value, option_out_of_range, batch_size_that_is_none, batch_size_of_nothing,
    choice_that_is_none, two_values_out_of_bounds,
    where_that_is_no_condition, output_that_is_the_input, output_that_is_somebody_elses, output_of_another_input,
    output_that_is_a_folder, output_below_a_file,
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_is_answered_with_status_2_and_a_sentence(call: Call, mistake: Callable[[Call], str]) -> None:
    """Exit status 2, what is wrong in one sentence, no traceback, Prefect not imported, nothing written."""
    said = mistake(call)
    before = {path: path.read_bytes() for path in call.folder.rglob("*") if path.is_file()}
    called = call.make()
    assert called.status == 2, called.err
    assert said in called.err
    assert "Traceback" not in called.err
    assert not called.started_prefect
    assert {path: path.read_bytes() for path in call.folder.rglob("*") if path.is_file()} == before


def test_json_says_so_too(call: Call) -> None:
    """With --json the last line of standard output is an object with the error and the exit status."""
    said = missing_input(call)
    call.more = ["--json"]
    called = call.make()
    answer = json.loads(called.out.splitlines()[-1])
    assert answer["exit"] == called.status == 2
    assert said in answer["error"]


def test_plan_finds_the_same_mistakes(call: Call) -> None:
    """`plan` takes the same arguments and checks the same things."""
    said = unknown_column(call)
    called = call.make("plan")
    assert (called.status, said in called.err) == (2, True)


def test_a_missing_argument_is_status_2(call: Call) -> None:
    """The command line itself is checked the same way."""
    called = batchwerk("run", call.input, call.output, "--job", call.job)
    assert called.status == 2
    assert "--provider" in called.err
    assert not called.started_prefect


def test_an_output_that_may_not_be_written_is_found(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system is asked whether the folder may be written; root always may, so its answer is replaced here."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="is not a writable folder"):
        check(read_settings({"input": call.input, "output": call.output, "job": call.job, "provider": "local"}))
