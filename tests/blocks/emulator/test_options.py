"""Every switch in one value, from code, from text and from a command line."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from blocks.emulator import EmulatorOptions
from blocks.emulator.options import argument_parser, flag, parse_args

UNUSUAL = EmulatorOptions(
    seed=7, state=Path("a b.sqlite"), key="-k=1", latency=0.25, failure_rate=0.5, drop_every=3, hold_file=Path("h")
)


def test_defaults_bring_no_faults() -> None:
    """And need no arguments on the command line."""
    options = EmulatorOptions()
    assert not any(getattr(options, each.name) for each in fields(options) if each.name.endswith("_rate"))
    assert options.to_args() == []


def test_command_line_brings_the_same_options_back() -> None:
    """Every option survives the way to another process."""
    assert parse_args(UNUSUAL.to_args()) == (UNUSUAL, False)
    assert parse_args(["--attached"]) == (EmulatorOptions(), True)


def test_text_is_parsed_by_the_type_of_its_field() -> None:
    """Numbers, paths and texts that look like numbers; dashes are as good as underscores."""
    text = {"failure_rate": "0.1", "max-requests": "50", "state": "x.sqlite", "key": "5"}
    expected = EmulatorOptions(failure_rate=0.1, max_requests=50, state=Path("x.sqlite"), key="5")
    assert EmulatorOptions.from_mapping(text) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ({"failure_rat": "0.1"}, "did you mean 'failure_rate'"),
        ({"failure_rate": "ten"}, "failure_rate must be a number, not 'ten'"),
        ({"max_requests": "1.5"}, "max_requests must be a whole number"),
        ({"failure_rate": "1.5"}, "failure_rate must be from 0 to 1"),
        ({"latency": "-1"}, "latency must be at least 0"),
        ({"latency": "nan"}, "latency must be finite"),
        ({"latency": "inf"}, "latency must be finite"),
        ({"dialect": "klingon"}, "known dialects: anthropic, "),
        ({"failure_rate": "0.6", "missing_rate": "0.6"}, "sum must be at most 1"),
        ({"length_rate": "0.6", "unexplained_rate": "0.6"}, "sum must be at most 1"),
        ({"timeout_rate": "0.6", "failure_rate": "0.6"}, "sum must be at most 1"),
        ({"should_retry": "perhaps"}, "should_retry must be true, false or empty, not 'perhaps'"),
        ({"max_requests": "0"}, "max_requests must be at least 1"),
        ({"retry_header": "date"}, "retry_header must be one of retry-after, retry-after-ms, none"),
    ],
)
def test_mistake_is_named(text: dict[str, str], named: str) -> None:
    """The error says which option is unknown or wrong."""
    with pytest.raises(ValueError, match=named):
        EmulatorOptions.from_mapping(text)


@pytest.mark.parametrize("value", ["0.1", True, None])
def test_value_of_the_wrong_type_is_refused(value: Any) -> None:
    """Also when it comes from Python code and not as text."""
    with pytest.raises(ValueError, match="failure_rate must be of type float"):
        EmulatorOptions(failure_rate=value)


def test_mistake_on_the_command_line_ends_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    """The reason stands on standard error."""
    with pytest.raises(SystemExit) as ended:
        parse_args(["--failure-rate=2"])
    assert ended.value.code == 2
    assert "failure_rate must be from 0 to 1" in capsys.readouterr().err


def test_help_explains_every_switch() -> None:
    """Each field has its flag and its sentence in the help."""
    text = argument_parser("emulator").format_help()
    assert all(flag(each) in text and each.metadata["help"][:10] in text for each in fields(EmulatorOptions))
