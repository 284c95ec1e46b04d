"""The capitals of an answer's choices, which Anthropic does not promise (docs/wire-protocols.md, §2.10)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from blocks.providers.lenient import array, mapping

Mend = Callable[[Any, Any], bool]  # of a list or object and a place in it: puts the value there right, says whether


def mending(part: Any) -> Mend | None:
    """What puts the capitals of an answer's choices right; None where the schema has no choices of texts.

    Choices are looked for at the root, in properties and items, and beside null in a union. Where several parts of a
    union may be meant, and behind a `$ref`, nothing is touched.
    """
    schema = mapping(part)
    if "anyOf" in schema or "oneOf" in schema:
        branches = array(schema.get("anyOf", schema.get("oneOf")))
        meant = [branch for branch in branches if mapping(branch).get("type") != "null"]
        return mending(meant[0]) if len(meant) == 1 else None
    if "enum" in schema or "const" in schema:
        return _mend_choice([schema["const"]] if "const" in schema else array(schema["enum"]))
    properties = mapping(schema.get("properties"))
    named = {name: mend for name, inner in properties.items() if (mend := mending(inner))}
    if named:
        return _mend_properties(named)
    items = mending(schema["items"]) if "items" in schema else None
    return _mend_items(items) if items else None


def _mend_choice(choices: list[Any]) -> Mend | None:
    texts = {choice for choice in choices if isinstance(choice, str)}
    alike = Counter(text.casefold() for text in texts)
    meant = {text.casefold(): text for text in texts if alike[text.casefold()] == 1}

    def mend(place: Any, key: Any) -> bool:
        value = place[key]
        choice = meant.get(value.casefold()) if isinstance(value, str) and value not in texts else None
        if choice is None:
            return False
        place[key] = choice
        return True

    return mend if meant else None


def _mend_properties(properties: Mapping[str, Mend]) -> Mend:
    def mend(place: Any, key: Any) -> bool:
        value = place[key]
        if not isinstance(value, dict):
            return False
        return sum(part(value, name) for name, part in properties.items() if name in value) > 0

    return mend


def _mend_items(item: Mend) -> Mend:
    def mend(place: Any, key: Any) -> bool:
        value = place[key]
        return isinstance(value, list) and sum(item(value, number) for number in range(len(value))) > 0

    return mend
