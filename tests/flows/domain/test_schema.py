"""The shape of answers: columns from a JSON Schema, and what is rejected."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import UsageError
from flows.domain.schema import PLAIN, FieldType, ListOf, OutputSchema, Scalar, Struct, field_type
from flows.storage.results import answer_type

ROOT = Path(__file__).parents[3]
STRING, INT64, DOUBLE, BOOL, JSON = (Scalar(name) for name in ("string", "int64", "double", "bool", "json"))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, STRING),
        ({"type": "string", "enum": ["a", "b"]}, STRING),
        ({"enum": ["a", "b"]}, STRING),
        ({"type": "integer"}, INT64),
        ({"type": "number"}, DOUBLE),
        ({"type": "boolean"}, BOOL),
        ({"type": ["integer", "null"]}, INT64),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, INT64),
        ({"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "number"}}]}, ListOf(DOUBLE)),
        ({"type": "array", "items": {"type": "string"}}, ListOf(STRING)),
        ({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}, ListOf(ListOf(INT64))),
        ({"type": "object", "properties": {"x": {"type": "integer"}}}, Struct((("x", INT64),))),
        ({"type": "array"}, JSON),
        ({"type": "array", "items": {}}, ListOf(JSON)),
        ({"type": "object"}, JSON),
        ({"type": "object", "additionalProperties": {"type": "string"}}, JSON),
        ({"type": "null"}, JSON),
        ({"type": ["integer", "string"]}, JSON),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, JSON),
        ({"enum": ["a", 1]}, JSON),
        ({"$ref": "#/$defs/x"}, JSON),
        ({"$ref": "#/$defs/x", "type": "string"}, JSON),
        ({"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}}, JSON),
        ({}, JSON),
        (True, JSON),
    ],
)
def test_a_schema_becomes_a_column_type(schema: Any, expected: FieldType) -> None:
    """What has no column type of its own becomes JSON text."""
    assert field_type(schema) == expected


def read(field: Any, answer: str) -> tuple[Any, str]:
    """The field `a` of an answer, as its column would hold it, and the reason of a rejection."""
    schema = OutputSchema({"a": field})
    values, reason = schema.read(answer)
    if values is None:
        assert reason
        return None, reason
    return pa.array([values], answer_type(schema)).to_pylist()[0]["a"], reason


@pytest.mark.parametrize(
    ("field", "answer", "expected"),
    [
        ({"type": "integer"}, '{"a": 1}', 1),
        ({"type": "integer"}, '{"a": 1.0}', 1),
        ({"type": "integer"}, '{"a": 1e5}', 100_000),
        ({"type": "integer"}, '{"a": 9223372036854775807}', 2**63 - 1),
        ({"type": "integer"}, '{"a": -9223372036854775808}', -(2**63)),
        ({"type": "number"}, '{"a": 1}', 1.0),
        ({"type": "number"}, '{"a": 1e300}', 1e300),
        ({"type": "number"}, '{"a": 18446744073709551616}', 2.0**64),
        ({"type": ["integer", "null"]}, '{"a": null}', None),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, '{"a": null}', None),
        ({"type": "array", "items": {"type": ["integer", "null"]}}, '{"a": [1, null, 2.0]}', [1, None, 2]),
        (
            {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "string"}}},
            '{"a": {"x": 1, "z": "not asked for"}}',
            {"x": 1.0, "y": None},
        ),
        (True, '{"a": {"b": [1, "ä"]}}', '{"b":[1,"ä"]}'),
        (True, '{"a": null}', None),
        (
            {"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}},
            '{"a": [1, "x"]}',
            '[1,"x"]',
        ),
        ({"type": "string"}, '```json\n{"a": "x"}\n```', "x"),
        ({"type": "string"}, '\n```\n{"a": "x"}```\n', "x"),
        ({"type": "string"}, '{"a": "```"}', "```"),
        ({"type": "string"}, '{"a": "first", "a": "last"}', "last"),
        ({"type": "string"}, '{"a": "\\u0000\\ud83d\\ude42"}', "\x00🙂"),
    ],
)
def test_an_answer_becomes_typed_values(field: Any, answer: str, expected: Any) -> None:
    """Code fences are taken off, floats that are whole are integers, the rest is as the schema says."""
    assert read(field, answer) == (expected, "")


@pytest.mark.parametrize(
    "answer",
    ["```" + "\n" * 100_000, "```a" + " \n" * 100_000 + "x", "\n" * 100_000 + "```"],
    ids=["opened", "with text", "closed"],
)
def test_an_answer_of_line_breaks_is_judged_at_once(answer: str) -> None:
    """Whoever looks for a code fence step by step would look for hours; the process is stopped long before."""
    program = (
        "import sys; from flows.domain.schema import OutputSchema;"
        "print(OutputSchema({'a': {'type': 'string'}}).read(sys.stdin.read())[1])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, input=answer, capture_output=True, text=True, timeout=60, check=True)
    assert "not JSON" in done.stdout


@pytest.mark.parametrize(
    ("field", "answer", "reason"),
    [
        ({"type": "integer"}, '{"a": 9223372036854775808}', "too large for a 64-bit integer"),
        ({"type": "integer"}, '{"a": -9223372036854775809}', "too large for a 64-bit integer"),
        ({"type": "integer"}, '{"a": 1e30}', "too large for a 64-bit integer"),
        ({"type": "integer"}, '{"a": 1.5}', "1.5"),
        ({"type": "integer"}, '{"a": true}', "true"),
        ({"type": "number"}, '{"a": NaN}', "not JSON"),
        ({"type": "number"}, '{"a": Infinity}', "not JSON"),
        ({"type": "number"}, '{"a": 1e400}', "not JSON"),
        ({"type": "number"}, '{"a": ' + "9" * 400 + "}", "not JSON"),
        ({"type": "string"}, '{"a": "\\ud800"}', "not JSON"),
        ({"type": "string"}, '{"a": null}', "a: null"),
        ({"type": "string"}, "{}", "a"),
        ({"type": "string"}, "[]", "object"),
        ({"type": "string"}, "", "not JSON"),
        ({"type": "string"}, "Sure! Here it is.", "not JSON"),
        ({"type": "string"}, '{"a": "x"} and more', "not JSON"),
        ({"type": "string"}, 'Here: ```json\n{"a": "x"}\n```', "not JSON"),
        ({"type": "string", "enum": ["x"]}, '{"a": "y"}', '"y"'),
        ({"type": "string", "pattern": "^(?=(a+)+$)(a*)*b\\1$"}, '{"a": "' + "a" * 60 + '"}', "a"),
        (True, '{"a": ' + "[" * 900 + "]" * 900 + "}", "can't be checked"),
        ({"type": "string"}, '{"a": ' + "[" * 900 + "]" * 900 + "}", "can't be checked"),
        (True, '{"a": ' + "[" * 5000 + "]" * 5000 + "}", "not JSON"),
    ],
)
def test_an_answer_that_breaks_the_schema_is_rejected_with_the_reason(field: Any, answer: str, reason: str) -> None:
    """A rejected answer costs an attempt; it never stops a run, however strange it is."""
    value, said = read(field, answer)
    assert value is None
    assert reason in said
    assert len(said) <= 300


def test_without_a_schema_the_text_is_the_answer() -> None:
    """Plain text comes out as it came in, and no text is no answer."""
    schema = OutputSchema(None)
    assert schema.fields == {PLAIN: STRING}
    assert schema.read(" as it is \n") == ({PLAIN: " as it is \n"}, "")
    assert schema.read(" \n") == (None, "the answer is empty")


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ({}, "defines no fields"),
        ({"type": "object", "properties": {}}, "defines no fields"),
        ({"a": "string"}, "'a' is not a JSON Schema"),
        ({"a": {"type": "text"}}, "text"),
        ({"a": {"type": "string", "minLength": -1}}, "-1"),
        ({"a": {"type": "string", "pattern": "["}}, "regex"),
        ({"a": {"$ref": "#/nowhere"}}, "nowhere"),
        ({"a": {"type": "integer", "minimum": 10**40}}, "valid JSON Schema"),
        ({"a": {"type": "object", "properties": {1: {"type": "string"}}}}, "valid JSON Schema"),
        ({"a": {"enum": [{1, 2}]}}, "valid JSON Schema"),
        ({"a": {"type": "string", "enum": [True, False]}}, "quotes"),
    ],
)
def test_a_schema_that_is_none_is_refused(output: Any, said: str) -> None:
    """Also one that YAML made of something else: `enum: [yes, no]` is true and false."""
    with pytest.raises(UsageError) as caught:
        OutputSchema(output)
    assert said in str(caught.value)


@pytest.mark.parametrize("where", ["$ref", "$schema", "$dynamicRef"])
def test_a_schema_never_makes_us_call_anybody(where: str) -> None:
    """Only references inside the schema are followed: checking a job opens no connection and no file."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        part = {"a": {where: url}}
        whole = {where: url, "type": "object", "properties": {"a": {"type": "string"}}}
        for output in (part, whole) if where != "$schema" else (whole,):
            with pytest.raises(UsageError):
                OutputSchema(output)
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_file_is_no_schema() -> None:
    """A reference to a file of the machine is not followed."""
    with pytest.raises(UsageError, match="only references inside the schema"):
        OutputSchema({"a": {"$ref": "file:///etc/hostname"}})


def test_a_name_of_json_schema_can_be_a_field() -> None:
    """`type` and `properties` are fields like others where the map as a whole is no object schema."""
    assert OutputSchema({"type": {"type": "string"}, "properties": {"type": "integer"}}).fields == {
        "type": STRING,
        "properties": INT64,
    }


def test_all_short_fields_are_required_and_a_whole_schema_says_for_itself() -> None:
    """The short form asks for every field."""
    assert OutputSchema({"a": True}).read("{}")[0] is None
    assert OutputSchema({"type": "object", "properties": {"a": {"type": "string"}}}).read("{}") == ({}, "")


kinds = st.recursive(
    st.sampled_from([{"type": name} for name in ("string", "integer", "number", "boolean", "null")] + [{}]),
    lambda inner: st.one_of(
        inner.map(lambda item: {"type": "array", "items": item}),
        inner.map(lambda item: {"anyOf": [item, {"type": "null"}]}),
        st.dictionaries(st.sampled_from("xyz"), inner, max_size=2).map(lambda p: {"type": "object", "properties": p}),
    ),
    max_leaves=4,
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=2),
    max_leaves=5,
)


@given(kinds, json_values)
def test_what_a_schema_lets_through_its_column_can_hold(kind: dict[str, Any], value: Any) -> None:
    """No valid answer can stop a run because its column doesn't take it."""
    import json  # noqa: PLC0415  # the standard library's encoder, not the one under test

    read(kind, json.dumps({"a": value}))


def test_what_is_wrong_with_a_schema_is_one_line() -> None:
    """What the validator says beyond it repeats the schema."""
    with pytest.raises(UsageError) as caught:
        OutputSchema({"a": {"type": "string", "minLength": "x"}})
    said = caught.value.message.partition(": ")[2]
    assert said == 'properties/a/minLength: "x" is not of type "integer"'
