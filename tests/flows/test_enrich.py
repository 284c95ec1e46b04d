"""The flow's parameters as Prefect draws and checks them. The server that runs it is in test_prefect.py."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, NoReturn

import pytest
from prefect.exceptions import ParameterBindError, ParameterTypeError
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import get_call_parameters
from prefect.utilities.schema_tools.validation import validate

from flows.enrich import cancel_at_provider, enrich, enrich_flow
from flows.settings import Settings
from tests.flows.command import ROOT

REQUIRED = {"input": "a.parquet", "output": "b.parquet", "job": "j.yaml", "provider": "local"}
SCHEMA = enrich.parameters.model_dump()
# Type, bounds and choices of each field of the form.
TEXT: dict[str, Any] = {"type": "string"}
NOTHING = {"type": "null"}
COUNT = {"type": "integer", "minimum": 1}
SECONDS = {"anyOf": [{"type": "number", "minimum": 0}, NOTHING]}
ABOVE_ZERO = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, NOTHING]}
FORM: dict[str, dict[str, Any]] = {
    "input": TEXT,
    "output": TEXT,
    "job": TEXT,
    "provider": TEXT,
    "model": {"anyOf": [{"type": "string", "minLength": 1}, NOTHING], "default": None},
    "base_url": {"anyOf": [TEXT, NOTHING], "default": None},
    "prices": {"anyOf": [TEXT, NOTHING], "default": None},
    "batch_size": {"anyOf": [COUNT, {"type": "string", "enum": ["auto"]}], "default": 5000},
    "max_in_flight": {**COUNT, "default": 50},
    "max_attempts": {**COUNT, "default": 3},
    "max_failed": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.0},
    "budget": {**ABOVE_ZERO, "default": None},
    "monthly_budget": {**ABOVE_ZERO, "default": None},
    "budget_name": {
        "anyOf": [{"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"}, NOTHING],
        "default": None,
    },
    "wait": {**SECONDS, "default": None},
    "give_up_after": {**SECONDS, "default": None},
    "on_unknown": {"type": "string", "enum": ["fail", "resubmit"], "default": "fail"},
    "abandon_after": {**SECONDS, "default": None},
    "poll_interval": {**ABOVE_ZERO, "default": None},
    "limit": {"anyOf": [COUNT, NOTHING], "default": None},
    "where": {"anyOf": [{"type": "string", "minLength": 1}, NOTHING], "default": None},
    "sample": {"anyOf": [COUNT, NOTHING], "default": None},
    "gold": {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}, "default": {}},
    "retry_failed": {"type": "boolean", "default": False},
    "replace": {"type": "boolean", "default": False},
    "input_moved": {"type": "boolean", "default": False},
    "state_moved": {"type": "boolean", "default": False},
    "compression": {"type": "string", "enum": ["zstd", "snappy", "gzip", "none"], "default": "zstd"},
    "row_group_rows": {**COUNT, "default": 122_880},
    "memory_limit": {"type": "string", "pattern": r"^\d+ ?[KMGT]i?B$", "default": "100MB"},
    "options": {
        "type": "object",
        "additionalProperties": {"anyOf": [TEXT, {"type": "number"}, {"type": "boolean"}]},
        "default": {},
    },
}


def test_the_form_has_each_field_with_title_help_type_and_bounds_in_order() -> None:
    """What the UI draws and `enforce_parameter_schema` checks."""
    expected = {
        name: {**field, "title": name, "description": Settings.model_fields[name].description, "position": position}
        for position, (name, field) in enumerate(FORM.items())
    }
    assert list(SCHEMA["properties"]) == list(Settings.model_fields) == list(FORM)
    assert SCHEMA["properties"] == expected
    assert SCHEMA["required"] == list(REQUIRED)


@pytest.mark.parametrize(
    "given",
    [
        {"batch_size": "auto"},
        {"batch_size": 7},
        {"options": {"latency": 600, "failure_rate": 0.1, "dialect": "openai", "flag": True}},
        {"wait": None, "max_failed": 1, "limit": 1},
    ],
    ids=str,
)
def test_what_a_form_may_send_passes_the_schema_and_the_flow(given: dict[str, Any]) -> None:
    """The server validates the schema, the flow its annotations."""
    validate({**REQUIRED, **given}, SCHEMA, raise_on_error=True)
    enrich.validate_parameters(get_call_parameters(enrich.fn, (), {**REQUIRED, **given}))


@pytest.mark.parametrize(
    "given",
    [
        {"batch_size": 0},
        {"batch_size": "many"},
        {"max_failed": 1.5},
        {"poll_interval": 0},
        {"wait": -1},
        {"compression": "lzma"},
        {"memory_limit": "lots"},
        {"options": {"latency": [1]}},
        {"retry_failed": "perhaps"},
    ],
    ids=str,
)
def test_what_is_out_of_bounds_is_refused_by_the_schema_and_by_the_flow(given: dict[str, Any]) -> None:
    """Without a deployment there is no server that enforces the schema."""
    assert validate({**REQUIRED, **given}, SCHEMA) != []
    with pytest.raises(ParameterTypeError, match=next(iter(given))):
        enrich.validate_parameters(get_call_parameters(enrich.fn, (), {**REQUIRED, **given}))


def test_an_unknown_parameter_is_refused() -> None:
    """A misspelled one would otherwise do nothing."""
    with pytest.raises(ParameterBindError, match="limt"):
        get_call_parameters(enrich.fn, (), {**REQUIRED, "limt": 3})


def test_option_values_reach_the_flow_as_text() -> None:
    """The form's numbers are what `--option` would have given."""
    given = get_call_parameters(enrich.fn, (), {**REQUIRED, "options": {"latency": 600, "visible": 0.5}})
    assert enrich.validate_parameters(given)["options"] == {"latency": "600", "visible": "0.5"}


def test_the_entry_point_is_the_flow() -> None:
    """`prefect deploy` and the worker load it by its dotted name."""
    assert load_flow_from_entrypoint("flows.enrich.enrich") is enrich
    assert enrich._entrypoint == "flows.enrich:enrich"


def test_the_commands_flow_is_the_deployed_one_around_another_body() -> None:
    """Name, version, form, run names, task runner and cancellation hook are the same."""

    def body(_: object) -> NoReturn:
        raise AssertionError

    ours = enrich_flow(body)
    for attribute in ("name", "version", "description", "flow_run_name", "parameters", "_entrypoint", "persist_result"):
        assert getattr(ours, attribute) == getattr(enrich, attribute)
    assert ours.on_cancellation_hooks == enrich.on_cancellation_hooks == [cancel_at_provider]
    assert ours.task_runner == enrich.task_runner


def test_a_second_flow_of_the_name_is_no_reason_for_a_warning() -> None:
    """Prefect could take it for a mistake."""
    code = "from flows.enrich import enrich_flow; enrich_flow(lambda _: None)"
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stderr == ""
