"""Narrowing a job's JSON Schema to the words that a provider's structured output takes.

Constraints that a provider lacks are left out: answers are checked against the whole schema afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from blocks.providers.lenient import array, is_count, is_number, mapping

_TYPES = {"string", "number", "integer", "boolean", "null", "object", "array"}
_LOCAL_REF = re.compile(r"#(?:/(?:\$defs|definitions)/([^/~%]+))?")
ANY_NUMBER = 2**31


@dataclass(frozen=True, slots=True)
class Subset:
    """Which words of JSON Schema a provider takes, and how many of some."""

    bounds: tuple[str, ...] = ()  # of numbers, such as `minimum`
    formats: Collection[str] = ()  # of texts
    patterns: bool = False
    most_items: int = 0  # the highest number that `minItems` may say; `maxItems` goes with any number only
    recursive: bool = False
    all_required: bool = True  # otherwise properties may be optional, up to `most_optional`
    most_optional: int = ANY_NUMBER
    most_unions: int = ANY_NUMBER
    deepest: int = ANY_NUMBER
    most_properties: int = ANY_NUMBER
    most_choices: int = ANY_NUMBER
    plain_choices: bool = False  # an `enum` names texts and numbers only


class NotStrict(Exception):
    """A schema with a part that the subset has no words for, such as an object of any keys."""


def narrowed(schema: Mapping[str, Any], subset: Subset) -> dict[str, Any]:
    """The schema in the words of the subset, every object closed.

    Raises `NotStrict` where leaving out would change what is asked for.
    """
    if _types_of(schema) != ["object"]:
        raise NotStrict("the root is not an object")
    return _Narrowing(schema, subset).root()


def as_words(schema: Mapping[str, Any]) -> str:
    """The whole schema as an instruction to the model, where the provider has no words for it."""
    text = orjson.dumps(schema).decode()
    return f"Answer with one JSON object and nothing else. It must match this JSON Schema:\n{text}"


class _Narrowing:
    """One schema on its way into the subset, with what is counted over all of its parts."""

    def __init__(self, schema: Mapping[str, Any], subset: Subset) -> None:
        self._schema = schema
        self._subset = subset
        self._properties = self._choices = self._optional = self._unions = 0
        named = {**mapping(schema.get("definitions")), **mapping(schema.get("$defs"))}
        self._defs = {str(name): part for name, part in named.items()}

    def root(self) -> dict[str, Any]:
        if not self._subset.recursive and _is_recursive(self._schema, self._defs):
            raise NotStrict("a part that contains itself")
        narrow = self._part(self._schema, 1)
        defs = {name: self._part(part, 1) for name, part in self._defs.items()}
        return {**narrow, "$defs": defs} if defs else narrow

    def _part(self, part: Any, depth: int) -> dict[str, Any]:
        if not isinstance(part, Mapping) or depth > self._subset.deepest:
            raise NotStrict("a part that may be anything, or is nested too deep")
        if "$ref" in part:
            return {"$ref": self._reference(part["$ref"])}
        inner = self._union(part, depth) if "anyOf" in part or "oneOf" in part else self._typed(part, depth)
        notes = {name: part[name] for name in ("title", "description") if isinstance(part.get(name), str)}
        return {**notes, **inner}

    def _reference(self, reference: Any) -> str:
        named = _named_by(reference)
        if named is None or (named and named not in self._defs):
            raise NotStrict(f"the reference {reference!r}")
        return f"#/$defs/{named}" if named else "#"

    def _union(self, part: Mapping[str, Any], depth: int) -> dict[str, Any]:
        """`oneOf` becomes `anyOf`: that only one matches is for the check afterwards."""
        if "type" in part or "properties" in part or "allOf" in part or ("anyOf" in part and "oneOf" in part):
            raise NotStrict("a union beside other words")
        branches = part.get("anyOf", part.get("oneOf"))
        if not isinstance(branches, list) or not branches:
            raise NotStrict("a union of nothing")
        self._count_union()
        return {"anyOf": [self._part(branch, depth) for branch in branches]}

    def _count_union(self) -> None:
        self._unions += 1
        if self._unions > self._subset.most_unions:
            raise NotStrict("too many unions")

    def _typed(self, part: Mapping[str, Any], depth: int) -> dict[str, Any]:
        if "allOf" in part:
            raise NotStrict("allOf")
        types = _types_of(part)
        if self._subset.plain_choices and ("enum" in part or "const" in part) and {"null", "boolean"} & {*types}:
            return self._plain_choices(part, types, depth)
        if len(types) > 1:
            self._count_union()
        narrow: dict[str, Any] = {"type": types[0] if len(types) == 1 else types}
        if "enum" in part or "const" in part:
            narrow["enum"] = self._enum(part, types)
        if "string" in types:
            narrow.update(self._text_limits(part))
        if "number" in types or "integer" in types:
            narrow.update({name: part[name] for name in self._subset.bounds if is_number(part.get(name))})
        if "array" in types:
            narrow.update(self._array(part, depth))
        if "object" in types:
            narrow.update(self._object(part, depth))
        return narrow

    def _plain_choices(self, part: Mapping[str, Any], types: list[str], depth: int) -> dict[str, Any]:
        """Null and truth values as types of their own, beside the choices that an `enum` may name."""
        chosen = {_type_of(value) for value in _choices_of(part)}
        odd = [{"type": name} for name in ("boolean", "null") if name in types and name in chosen]
        rest = [name for name in types if name not in {"boolean", "null"}]
        values = [value for value in _choices_of(part) if value is not None and not isinstance(value, bool)]
        named = [self._typed({"type": rest, "enum": values}, depth)] if rest and values else []
        branches = [*named, *odd]
        if not branches:
            raise NotStrict("an enum of no plain values")
        if len(branches) == 1:
            return branches[0]
        self._count_union()
        return {"anyOf": branches}

    def _enum(self, part: Mapping[str, Any], types: list[str]) -> list[Any]:
        """The choices that are of the types; with one of another type the schema would be refused."""
        fitting = {*types, "integer"} if "number" in types else {*types}
        values = [value for value in _choices_of(part) if _type_of(value) in fitting]
        self._choices += len(values)
        if not values or self._choices > self._subset.most_choices:
            raise NotStrict("an enum of no plain values, or of too many")
        return values

    def _text_limits(self, part: Mapping[str, Any]) -> dict[str, str]:
        """A pattern that looks around is refused by the services, and one row after another with it."""
        limits = {}
        pattern, form = part.get("pattern"), part.get("format")
        if self._subset.patterns and isinstance(pattern, str) and "(?" not in pattern:
            limits["pattern"] = pattern
        if isinstance(form, str) and form in self._subset.formats:
            limits["format"] = form
        return limits

    def _array(self, part: Mapping[str, Any], depth: int) -> dict[str, Any]:
        if "prefixItems" in part:
            raise NotStrict("prefixItems")
        most = self._subset.most_items
        names = ("minItems", "maxItems") if most == ANY_NUMBER else ("minItems",) if most else ()
        counts = {name: part[name] for name in names if is_count(part.get(name)) and part[name] <= most}
        return {"items": self._part(part.get("items"), depth + 1), **counts}

    def _object(self, part: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = mapping(part.get("properties"))
        named = part.get("required")
        required = list(properties) if self._subset.all_required else [n for n in properties if n in array(named)]
        self._properties += len(properties)
        self._optional += len(properties) - len(required)
        unnamed = set(named) - properties.keys() if isinstance(named, list) else set()
        if not properties or unnamed or self._properties > self._subset.most_properties:
            raise NotStrict("an object whose properties are not all named, or too many")
        if self._optional > self._subset.most_optional:
            raise NotStrict("too many optional properties")
        return {
            "properties": {name: self._part(inner, depth + 1) for name, inner in properties.items()},
            "required": required,
            "additionalProperties": False,
        }


def _named_by(reference: Any) -> str | None:
    """The definition that a reference names, empty for the whole schema; None for any other place."""
    found = _LOCAL_REF.fullmatch(reference) if isinstance(reference, str) else None
    return None if found is None else found[1] or ""


def _is_recursive(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> bool:
    """Whether following references leads back to where they began."""

    def leads(part: Any, on_the_way: frozenset[str]) -> bool:
        if isinstance(part, list):
            return any(leads(inner, on_the_way) for inner in part)
        if not isinstance(part, Mapping):
            return False
        named = _named_by(part.get("$ref"))
        if named is not None:
            return named in on_the_way or leads(defs.get(named), on_the_way | {named})
        return any(leads(inner, on_the_way) for name, inner in part.items() if name not in {"$defs", "definitions"})

    return leads(schema, frozenset({""}))


def _types_of(part: Mapping[str, Any]) -> list[str]:
    """The types that a schema names, or that its other words imply."""
    named = part.get("type")
    if named is None and ("enum" in part or "const" in part):
        named = list(dict.fromkeys(map(_type_of, _choices_of(part))))
    elif named is None:
        named = "object" if "properties" in part else "array" if "items" in part else None
    types = [kind for kind in (named if isinstance(named, list) else [named]) if isinstance(kind, str)]
    if not types or not _TYPES.issuperset(types):
        raise NotStrict("a part without a type")
    return types


def _choices_of(part: Mapping[str, Any]) -> list[Any]:
    return [part["const"]] if "const" in part else array(part["enum"])


def _type_of(value: Any) -> str | None:
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
    return kinds.get(type(value))
