"""The shape of answers: a JSON Schema, the columns it maps to, and the validation of every answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import jsonschema_rs
import orjson

from blocks.errors import UsageError
from blocks.printable import SHORT, printable

INT64 = range(-(2**63), 2**63)
PLAIN = "answer"  # the column of a job without an output schema
MAX_REASON = 300  # characters kept of a rejection, which is sent back to the model


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value of type string, int64, double or bool; `json`: no column type fits, stored as JSON text."""

    name: str


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of values of one type."""

    item: FieldType


@dataclass(frozen=True, slots=True)
class Struct:
    """Named values."""

    fields: tuple[tuple[str, FieldType], ...]


FieldType = Scalar | ListOf | Struct

_UNTYPED = {"$ref", "$dynamicRef", "prefixItems"}  # beside these, `type` and `items` may not say what values are
_SCALARS = {"string": "string", "integer": "int64", "number": "double", "boolean": "bool"}
Converter = Callable[[Any], Any]


class _Breach(Exception):
    """An answer that matches the schema but does not fit into its column."""


class OutputSchema:
    """A job's `output`: properties, all of them required, or a whole JSON Schema, or nothing for plain text."""

    def __init__(self, output: Mapping[str, Any] | None) -> None:
        self.schema = _whole_schema(output) if output is not None else None
        if self.schema is None:
            self.fields: dict[str, FieldType] = {PLAIN: Scalar("string")}
            return
        try:
            # References first: validating the schema would fetch remote ones.
            self._validator = jsonschema_rs.validator_for(self.schema, retriever=_no_network)
            jsonschema_rs.meta.validate(self.schema)
            orjson.dumps(self.schema)  # a number of more than 64 bits can't be sent
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, TypeError) as error:
            raise UsageError(
                f"`output` is not a valid JSON Schema: {_problem(error)}",
                next_step="fix `output` in the job file; see https://json-schema.org/understanding-json-schema",
            ) from error
        self.fields = {name: field_type(node) for name, node in self.schema["properties"].items()}
        _check_choices(self.schema["properties"])
        self._convert = _converter(Struct(tuple(self.fields.items())))

    @cached_property
    def id(self) -> str:
        """Names this schema: results of one schema are stored together."""
        return blake2b(orjson.dumps(self.schema), digest_size=6).hexdigest()

    def read(self, text: str) -> tuple[dict[str, Any] | None, str]:
        """The values of an answer, or None and why it is rejected."""
        if self.schema is None:
            return ({PLAIN: text}, "") if text.strip() else (None, "the answer is empty")
        try:
            value = _loads(text)
        except orjson.JSONDecodeError as error:
            return None, f"the answer is not JSON: {error}"[:MAX_REASON]
        try:
            if not self._validator.is_valid(value):
                return None, self._reason(value)
            return value if self._convert is None else self._convert(value), ""
        except _Breach as breach:
            return None, str(breach)
        except (TypeError, ValueError) as error:  # nested too deeply for the validator or the encoder
            return None, f"the answer can't be checked: {error}"[:MAX_REASON]

    def _reason(self, value: Any) -> str:
        for error in self._validator.iter_errors(value):
            place = "/".join(map(str, error.instance_path))
            return f"{place}: {error.message}"[:MAX_REASON] if place else error.message[:MAX_REASON]
        return "the answer does not match the schema"


def _problem(error: Exception) -> str:
    """What is wrong with a schema, and where; of its values little more than a word is quoted."""
    said = printable(str(error).split("\n", 1)[0], 2 * SHORT)
    if "retrieving it failed" in str(error):
        return f"{said}; only references inside the schema are followed"
    if isinstance(error, jsonschema_rs.ValidationError) and error.instance_path:
        return f"{printable('/'.join(map(str, error.instance_path)), 2 * SHORT)}: {said}"
    return said


def _whole_schema(output: Mapping[str, Any]) -> dict[str, Any]:
    if not output:
        raise UsageError(
            "`output` defines no fields", next_step="define at least one, such as `sentiment: {type: string}`"
        )
    if output.get("type") == "object" and isinstance(output.get("properties"), Mapping):
        if not output["properties"]:
            raise UsageError("`output` defines no fields", next_step="define at least one field in `properties`")
        return dict(output)
    for name, node in output.items():
        if not isinstance(node, Mapping | bool):
            raise UsageError(
                f"`output` field {printable(str(name), SHORT)!r} is not a JSON Schema",
                next_step=f"write it as a map, for example `{printable(str(name), SHORT)}: {{type: string}}`",
            )
    return {"type": "object", "properties": dict(output), "required": list(output)}


def _check_choices(properties: Mapping[str, Any]) -> None:
    """Reject a string field with booleans in its `enum`: no answer could ever match them."""
    for name, node in properties.items():
        if isinstance(node, Mapping) and node.get("type") == "string":
            for choice in node.get("enum", ()):
                if isinstance(choice, bool):
                    raise UsageError(
                        f"`output` field {name!r} is a string, but its `enum` contains {str(choice).lower()}",
                        next_step="put the choices in quotes: YAML reads a bare yes, no, on or off as true or false",
                    )


def _no_network(uri: str) -> Any:
    raise ValueError(f"the schema refers to {uri}; only references inside the schema are followed")


_FENCE = "```"


def _loads(text: str) -> Any:
    """Parse JSON, even if the model wrapped it in a code fence."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        if (fenced := _unfenced(text)) is None:
            raise
        return orjson.loads(fenced)


def _unfenced(text: str) -> str | None:
    """What stands inside a code fence; None without one. No regular expression: answers may be long and odd."""
    opening, _, rest = text.strip().partition("\n")
    language = opening.removeprefix(_FENCE).strip()
    if not opening.startswith(_FENCE) or not rest.endswith(_FENCE):
        return None
    return rest.removesuffix(_FENCE) if not language or (language.isascii() and language.isalpha()) else None


def field_type(schema: Any) -> FieldType:
    """The column type of a schema: anything but a plain supported type becomes JSON text."""
    if not isinstance(schema, Mapping) or not _UNTYPED.isdisjoint(schema):
        return Scalar("json")
    if isinstance(schema.get("anyOf"), list):
        branches = [b for b in schema["anyOf"] if not (isinstance(b, Mapping) and b.get("type") == "null")]
        return field_type(branches[0]) if len(branches) == 1 else Scalar("json")
    kind = schema.get("type")
    if isinstance(kind, list):
        kinds = [k for k in kind if k != "null"]
        kind = kinds[0] if len(kinds) == 1 else None
    if kind is None and "enum" in schema and all(isinstance(v, str) for v in schema["enum"]):
        return Scalar("string")
    if kind == "array" and isinstance(schema.get("items"), Mapping):
        return ListOf(field_type(schema["items"]))
    if kind == "object" and isinstance(schema.get("properties"), Mapping) and schema["properties"]:
        return Struct(tuple((name, field_type(node)) for name, node in schema["properties"].items()))
    return Scalar(_SCALARS.get(kind, "json") if isinstance(kind, str) else "json")


def _converter(kind: FieldType) -> Converter | None:
    """Converts a valid JSON value into one that its column accepts; None if no conversion is needed."""
    match kind:
        case Scalar("json"):
            return _to_json
        case Scalar("int64"):
            return _to_int64
        case Scalar("double"):
            return _to_double
        case ListOf(item):
            inner = _converter(item)
            return None if inner is None else _for_list(inner)
        case Struct(fields):
            inners = {name: made for name, node in fields if (made := _converter(node)) is not None}
            return _for_struct(inners) if inners else None
    return None


def _for_list(inner: Converter) -> Converter:
    return lambda value: None if value is None else [inner(item) for item in value]


def _for_struct(inners: Mapping[str, Converter]) -> Converter:
    def convert(value: Any) -> Any:
        for name, inner in inners.items() if value is not None else ():
            if name in value:
                value[name] = inner(value[name])  # in place: nobody else has what was parsed
        return value

    return convert


def _to_json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _to_int64(value: Any) -> int | None:
    if value is None:
        return None
    number = int(value)
    rounded = isinstance(value, float) and number == INT64.start  # a number just out of range was parsed as this
    if number not in INT64 or rounded:
        raise _Breach(f"{value} is too large for a 64-bit integer")
    return number


def _to_double(value: Any) -> float | None:
    return None if value is None else float(value)
