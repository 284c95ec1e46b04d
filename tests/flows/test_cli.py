"""The command line derives from `Settings`, and answers in JSON whatever happens if it is asked to."""

from __future__ import annotations

import json

import pytest

from flows.cli import call
from flows.report import status
from flows.settings import Settings, parameter_table
from tests.blocks.scripted import free_port
from tests.flows.command import batchwerk


@pytest.fixture(scope="module", params=["run", "plan"])
def help_text(request: pytest.FixtureRequest) -> str:
    called = batchwerk(request.param, "--help")
    assert called.status == 0, called.err
    assert not called.started_prefect
    return " ".join(called.out.split())


def test_help_shows_every_parameter_with_help_and_default(help_text: str) -> None:
    """In the same words as the table of parameters."""
    for row in parameter_table():
        assert f"{row.option} " in help_text
        assert row.help in help_text
        if row.default:
            assert f"{row.help} [default: {row.default}]" in help_text


def test_help_shows_choices_and_what_is_required(help_text: str) -> None:
    """Choices stand where the value is written."""
    assert "--compression zstd|snappy|gzip|none " in help_text
    assert "--on-unknown fail|resubmit " in help_text
    assert "--batch-size N|auto " in help_text
    required = sum(field.is_required() for field in Settings.model_fields.values())
    assert help_text.count("[required]") == required == 4


def test_a_flag_has_no_opposite_and_takes_no_value(help_text: str) -> None:
    """`--retry-failed` is there or not."""
    assert "--no-" not in help_text
    assert "--retry-failed Retry" in help_text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "--colour"], "No such option: --colour"),
        (["run"], "Missing argument 'INPUT'"),
        (["run", "a", "b"], "Missing option '--job'"),
        (["status", "a", "b"], "Got unexpected extra argument"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["run", "a", "b", "--limit"], "Option '--limit' requires an argument"),
    ],
    ids=str,
)
def test_a_usage_error_is_one_sentence_and_with_json_an_object(arguments: list[str], sentence: str) -> None:
    """Exit status 2; the last line of standard output is one JSON object if `--json` was given, else nothing."""
    plain, as_json = batchwerk(*arguments), batchwerk(arguments[0], "--json", *arguments[1:])
    assert (plain.status, as_json.status) == (2, 2)
    assert f"batchwerk: {sentence}" in plain.err
    assert "Traceback" not in plain.err + as_json.err
    assert plain.out == ""
    (line,) = as_json.out.splitlines()
    assert json.loads(line)["exit"] == 2
    assert json.loads(line)["error"].startswith(sentence)


def test_an_option_without_a_value_is_told_in_json_too() -> None:
    """It is found before the settings are."""
    called = batchwerk("plan", "a", "b", "--job", "c", "--provider", "local", "--option", "latency", "--json")
    assert json.loads(called.out) == {"error": "--option latency has no value", "exit": 2}
    assert called.status == 2


def test_the_command_alone_shows_its_help() -> None:
    """With exit status 2, for nothing was done."""
    called = batchwerk()
    assert called.status == 2
    assert "Usage: batchwerk [OPTIONS] COMMAND" in called.err
    assert "batchwerk: " not in called.err


def test_setup_without_its_server_is_a_sentence() -> None:
    """With what to do, and no traceback."""
    called = batchwerk("setup", env={"PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"})
    assert called.status == 1
    assert "Prefect's server can't be reached" in called.err
    assert "make serve" in called.err
    assert "Traceback" not in called.err


def test_ctrl_c_is_answered_with_how_to_continue(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 130, no traceback."""

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status, "read_status", interrupted)
    assert call(["status", "out.parquet"]) == 130
    assert capsys.readouterr() == ("", "stopped; run the same command again to continue\n")
