"""Schemas of the OpenAPI kind, with upper-case types and `nullable`, as JSON Schemas."""

from functools import lru_cache
from typing import Any

import orjson

COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")  # may come as text
KEPT = ("description", "enum", "format", "minimum", "maximum", "pattern", "required", "title", "default", "example")
LISTED = ("anyOf", "prefixItems")
ORDER = "propertyOrdering"
KNOWN = {*COUNTS, *KEPT, *LISTED, ORDER, "type", "nullable", "items", "properties"}
TYPES = ("string", "number", "integer", "boolean", "array", "object", "null")


@lru_cache(512)
def to_json_schema(text: str) -> str:
    """Both as JSON. ValueError says what is wrong."""
    return orjson.dumps(convert(orjson.loads(text), "schema")).decode()


def convert(schema: Any, where: str) -> dict[str, Any]:
    if not isinstance(schema, dict):
        raise ValueError(f"{where} must be an object")  # noqa: TRY004  # one kind of error for all
    named = {camel(name): value for name, value in schema.items()}
    for name in named.keys() - KNOWN:
        raise ValueError(f'Unknown name "{name}" at {where}')
    converted = {name: named[name] for name in KEPT if name in named}
    converted |= {name: int(named[name]) for name in COUNTS if name in named}
    converted |= {
        name: [convert(part, f"{where}.{name}[{at}]") for at, part in enumerate(named[name])]
        for name in LISTED
        if name in named
    }
    if "type" in named:
        converted["type"] = type_of(named, where)
    if named.get("nullable") and None not in named.get("enum", [None]):
        converted["enum"] = [*named["enum"], None]
    if "items" in named:
        converted["items"] = convert(named["items"], f"{where}.items")
    if "properties" in named:
        converted["properties"] = convert_properties(named, where)
    return converted


def type_of(schema: dict[str, Any], where: str) -> str | list[str]:
    kind = str(schema["type"]).lower()
    if kind not in TYPES:
        raise ValueError(f"Invalid value at {where}.type: {schema['type']!r}")
    return [kind, "null"] if schema.get("nullable") else kind


def convert_properties(schema: dict[str, Any], where: str) -> dict[str, Any]:
    """In the order that is asked for."""
    properties = {name: convert(part, f"{where}.properties.{name}") for name, part in schema["properties"].items()}
    first = [name for name in schema.get(ORDER, ()) if name in properties]
    return {name: properties[name] for name in dict.fromkeys((*first, *properties))}


def camel(name: str) -> str:
    """`min_items` is `minItems`: both are understood."""
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)
