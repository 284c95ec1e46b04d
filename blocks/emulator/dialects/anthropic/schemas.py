"""The subset of JSON Schema accepted by Anthropic's structured outputs, with limits on complexity (§2.10)."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import orjson

CACHED_SCHEMAS = 512  # a job has one


UNSUPPORTED = {
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "maxItems",
    "uniqueItems", "contains", "minContains", "maxContains", "minProperties", "maxProperties", "patternProperties",
    "propertyNames", "dependentRequired", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems",
    "prefixItems", "if", "then", "else", "not", "oneOf",
}  # fmt: skip
TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid", "text")
BRANCHES = ("anyOf", "allOf")
MAX_OPTIONAL, MAX_UNIONS = 24, 16
SCALARS = (str, int, float, bool, type(None))


class SchemaError(ValueError):
    """Why a schema is refused."""


@lru_cache(CACHED_SCHEMAS)
def checked_schema(text: str) -> str:
    """The schema in the order of the answer: required properties first. Raises SchemaError."""
    document = orjson.loads(text)
    SchemaCheck(document).run()
    return orjson.dumps(required_first(document)).decode()


class SchemaCheck:
    """Visits every part of a schema once, and every definition that is referred to."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._known: set[str] = set()
        self._optional = 0
        self._unions = 0

    def run(self) -> None:
        """Raises SchemaError."""
        self._check(self._document, ())
        if self._optional > MAX_OPTIONAL:
            raise SchemaError(
                f"Schemas contains too many optional parameters ({self._optional}); at most {MAX_OPTIONAL} are allowed"
            )
        if self._unions > MAX_UNIONS:
            raise SchemaError(
                f"Schemas contains too many parameters with union types ({self._unions}); at most {MAX_UNIONS} are"
                " allowed"
            )

    def _check(self, node: Any, inside: tuple[str, ...]) -> None:
        """`inside` are the definitions on the way here."""
        if not isinstance(node, dict):
            raise SchemaError("each schema must be an object")
        if "$ref" in node:
            self._check_reference(node["$ref"], inside)
        for name in node:
            if name in UNSUPPORTED:
                raise SchemaError(f"For '{node.get('type', 'any')}' type, property '{name}' is not supported")
        self._check_type(node)
        if node.get("type") == "object" or "properties" in node:
            self._check_object(node)
        check_values(node)
        for part in parts_of(node):
            self._check(part, inside)

    def _check_reference(self, reference: Any, inside: tuple[str, ...]) -> None:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise SchemaError(f"External $ref {reference!r} is not supported")
        if reference in inside:
            raise SchemaError(f"Recursive schemas are not supported: {reference!r} contains itself")
        if reference in self._known:
            return
        node = self._document
        for step in reference.removeprefix("#").strip("/").split("/"):
            node = node.get(step.replace("~1", "/").replace("~0", "~")) if step and isinstance(node, dict) else node
        self._check(node, (*inside, reference))
        self._known.add(reference)

    def _check_type(self, node: dict[str, Any]) -> None:
        kind = node.get("type")
        kinds = kind if isinstance(kind, list) else [kind] if "type" in node else []
        for each in kinds:
            if each not in TYPES:
                raise SchemaError(f"type {each!r} is not supported")
        self._unions += isinstance(kind, list) or "anyOf" in node

    def _check_object(self, node: dict[str, Any]) -> None:
        if node.get("additionalProperties") is not False:
            raise SchemaError("For 'object' type, 'additionalProperties' must be explicitly set to false")
        properties, required = node.get("properties", {}), node.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise SchemaError("properties must be an object and required an array")
        self._optional += len(properties.keys() - set(map(str, required)))


def check_values(node: dict[str, Any]) -> None:
    """Raises SchemaError for values, formats and numbers of items outside the subset."""
    if node.get("minItems", 0) not in (0, 1):
        raise SchemaError("For 'array' type, 'minItems' values other than 0 or 1 are not supported")
    values = node.get("enum", [])
    if not isinstance(values, list) or not all(isinstance(value, SCALARS) for value in values):
        raise SchemaError("enum must be an array of strings, numbers, booleans or null")
    if node.get("format", "text") not in FORMATS:
        raise SchemaError(f"String format {node['format']!r} is not supported")


def parts_of(node: dict[str, Any]) -> Iterator[Any]:
    """The schemas inside a schema, except definitions. Raises SchemaError."""
    properties = node.get("properties")
    yield from properties.values() if isinstance(properties, dict) else ()
    if "items" in node:
        yield node["items"]
    for name in BRANCHES:
        branches = node.get(name, [])
        if not isinstance(branches, list):
            raise SchemaError(f"{name} must be an array")
        yield from branches


def required_first(node: Any) -> Any:
    """A schema whose objects name required properties before the others."""
    if isinstance(node, list):
        return [required_first(each) for each in node]
    if not isinstance(node, dict):
        return node
    ordered = {name: required_first(value) for name, value in node.items()}
    properties, required = ordered.get("properties"), ordered.get("required")
    if isinstance(properties, dict) and isinstance(required, list):
        first = {name: value for name, value in properties.items() if name in required}
        ordered["properties"] = {**first, **properties}
    return ordered
