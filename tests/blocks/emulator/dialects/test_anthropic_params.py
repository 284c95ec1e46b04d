"""What is wrong with a request is found as Anthropic finds it: in its row, not at the create."""

from typing import Any

import orjson
import pytest

from blocks.emulator.dialects.anthropic.params import OLD_VERSION, VERSION, ParamsError, read_params
from blocks.emulator.dialects.anthropic.schemas import checked_schema
from tests.blocks.emulator.dialects.anthropic_client import Json, params_for

CACHED = {"type": "ephemeral", "ttl": "1h"}
LONG = "You label reviews. " * 1000  # 4750 tokens


def closed(**properties: Any) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def text(content: str, **fields: Any) -> Json:
    return {"type": "text", "text": content, **fields}


def user(*blocks: Any) -> list[Json]:
    return [{"role": "user", "content": list(blocks)}]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"max_tokens": True}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": "5"}, "max_tokens: Input should be a valid integer"),
        ({"model": None}, "model: Field required"),
        ({"model": 4}, "model: Input should be a valid string"),
        ({"messages": None}, "messages: Field required"),
        ({"messages": []}, "messages: at least one message"),
        ({"messages": [{"role": "robot", "content": "x"}]}, r"messages\.0\.role"),
        ({"messages": [{"role": "user", "content": ""}]}, "non-empty content"),
        ({"messages": ["hello"]}, r"messages\.0\.role"),
        ({"messages": [{"role": "user", "content": 5}]}, r"messages\.0\.content"),
        ({"messages": user("x")}, r"messages\.0\.content\.0"),
        ({"messages": user({"type": "hologram"})}, r"messages\.0\.content\.0"),
        ({"messages": user(text(""))}, "text content blocks must be non-empty"),
        ({"system": 5}, "system: Input"),
        ({"system": [{"type": "image"}]}, r"system\.0"),
        ({"stream": True}, "stream: Extra inputs are not permitted"),
        ({"color": "red"}, "color: Extra inputs are not permitted"),
        ({"output_format": {}}, "output_format: Extra inputs"),
        ({"system": [text("x", cache_control={"type": "forever"})]}, "cache_control.type"),
        ({"system": [text("x", cache_control={"type": "ephemeral", "ttl": "2h"})]}, "cache_control.ttl"),
        ({"output_config": {"format": {"type": "xml"}}}, r"output_config\.format\.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, r"output_config\.format\.schema"),
        ({"output_config": {"effort": "huge"}}, "effort"),
        ({"output_config": {"colour": "red"}}, "output_config"),
        ({"messages": [*user(text("x")), {"role": "assistant", "content": "{"}]}, r"messages\.1\.role"),
        ({"temperature": 1}, "temperature: not supported"),
        ({"top_p": 1}, "top_p: Extra inputs"),
    ],
)
def test_unsound_request_is_named(fields: Json, named: str) -> None:
    """The error says which field is wrong, missing or not supported."""
    asked = {**params_for(), **fields}
    with pytest.raises(ParamsError, match=named):
        read_params({name: value for name, value in asked.items() if value is not None}, VERSION)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"temperature": 2}, "range"),
        ({"temperature": "warm"}, "valid number"),
        ({"temperature": 0.5, "model": "claude-opus-4-8"}, "only the default value"),
    ],
)
def test_sampling_has_its_limits_in_the_older_version_too(fields: Json, named: str) -> None:
    """A temperature out of range is refused in either version."""
    with pytest.raises(ParamsError, match=named):
        read_params(params_for(**fields), OLD_VERSION)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"temperature": 1, "model": "claude-opus-5"},
    ],
)
def test_older_version_takes_what_the_newer_does_not(fields: Json) -> None:
    """A temperature was allowed before it was withdrawn."""
    assert read_params(params_for(**fields), OLD_VERSION).prompt


@pytest.mark.parametrize(
    "fields",
    [
        {"output_config": {"effort": "low"}},
        {"messages": user(text("x"), text("y"))},
        {"system": [text("x", cache_control={"type": "ephemeral"})]},
    ],
)
def test_sound_request_is_taken(fields: Json) -> None:
    """Effort, text blocks and cache marks pass the checks."""
    assert read_params(params_for(**fields), VERSION).prompt


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "object", "properties": {}}, "additionalProperties"),
        (closed(a={"type": "object", "properties": {}, "additionalProperties": True}), "additionalProperties"),
        (closed(a={"type": "integer", "minimum": 1}), "'integer' type, property 'minimum' is not supported"),
        (closed(a={"type": "string", "maxLength": 1}), "maxLength"),
        (closed(a={"type": "array", "items": {"type": "string", "minLength": 1}}), "minLength"),
        (closed(a={"type": "array", "minItems": 2}), "minItems"),
        (closed(a={"oneOf": [{"type": "string"}]}), "oneOf"),
        (closed(a={"anyOf": [{"type": "number", "multipleOf": 2}]}), "multipleOf"),
        (closed(a={"enum": [{"b": 1}]}), "enum"),
        (closed(a={"type": "text"}), "type 'text'"),
        (closed(a={"type": "string", "format": "iban"}), "format"),
        (closed(a=True), "must be an object"),
        (closed(a={"$ref": "http://example.com/schema"}), "External"),
        (closed(a={"$ref": "#"}), "Recursive"),
        (
            {**closed(a={"$ref": "#/$defs/node"}), "$defs": {"node": closed(next={"$ref": "#/$defs/node"})}},
            "Recursive",
        ),
        ({**closed(a={"$ref": "#/$defs/low"}), "$defs": {"low": {"type": "integer", "minimum": 1}}}, "minimum"),
        ({**closed(**{f"f{at}": {"type": "string"} for at in range(25)}), "required": []}, "too many optional"),
        (closed(**{f"f{at}": {"type": ["string", "null"]} for at in range(17)}), "union types"),
    ],
)
def test_schema_outside_of_the_subset_is_refused(schema: Json, named: str) -> None:
    """Keywords that strict output does not support are named in the error."""
    with pytest.raises(ParamsError, match=named):
        read_params(params_for(schema=schema), VERSION)


def test_schema_within_the_subset_is_taken() -> None:
    """References, enums and up to 24 optional fields are within it."""
    shared = {"type": "array", "items": {"type": "string", "enum": ["a", None, 1]}, "minItems": 1}
    schema = {**closed(a={"$ref": "#/$defs/shared"}, b={"$ref": "#/$defs/shared"}), "$defs": {"shared": shared}}
    assert read_params(params_for(schema=schema), VERSION).schema
    optional = {f"f{at}": {"type": "string", "format": "date"} for at in range(24)}
    assert read_params(params_for(schema={**closed(**optional), "required": []}), VERSION).schema


def test_required_properties_come_first_in_what_is_answered() -> None:
    """As the real API orders them, whatever the order in the schema."""
    schema = {**closed(a={"type": "string"}, b={"type": "string"}), "required": ["b"]}
    assert list(orjson.loads(checked_schema(orjson.dumps(schema).decode()))["properties"]) == ["b", "a"]


def test_prompt_is_the_text_of_system_and_messages() -> None:
    """All text blocks in their order, with a blank line in between."""
    asked = read_params(
        params_for(system=[text("one"), text("two")], messages=user(text("three"), text("four"))), VERSION
    )
    assert asked.prompt == "one\n\ntwo\n\nthree\n\nfour"
    assert read_params(params_for("hello"), VERSION).prompt == "You label reviews.\n\nhello"


@pytest.mark.parametrize(
    ("model", "words", "is_cached"),
    [
        ("claude-haiku-4-5", 1000, True),
        ("claude-haiku-4-5-20251001", 800, False),
        ("claude-sonnet-5", 800, True),
        ("claude-sonnet-5", 200, False),
        ("claude-opus-5-5", 200, True),
    ],
)
def test_what_is_too_short_is_not_cached(model: str, words: int, *, is_cached: bool) -> None:
    """Each family of models has its own minimum length."""
    system = [text("You label reviews. " * words, cache_control=CACHED)]
    assert bool(read_params(params_for(system=system, model=model), VERSION).segments) is is_cached


def test_beginnings_are_known_by_all_that_comes_before_their_end() -> None:
    """Two prompts share a cache entry only up to their first difference."""

    def keys(system: str, message: str) -> list[str]:
        blocks = [text(system, cache_control=CACHED)]
        asked = params_for(system=blocks, messages=user(text(message, cache_control={"type": "ephemeral"})))
        return [segment.key for segment in read_params(asked, VERSION).segments]

    first, again = keys(LONG, "a"), keys(LONG, "b")
    assert first[0] == again[0]
    assert first[1] != again[1]
    assert first[0] != keys(LONG + "x", "a")[0]
