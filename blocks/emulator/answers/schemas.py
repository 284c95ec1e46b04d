"""Compiles a JSON Schema once into a function that makes a value of it, fitting a text as far as words go.

Covered: types and lists of types, enum, const, properties, items, prefixItems, anyOf, oneOf, allOf, local $ref, and the
usual limits; `pattern` as far as `patterns.py` goes. Unknown keywords are ignored.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard
from zlib import crc32

from blocks.emulator.answers.lexicon import LANGUAGES, TONES
from blocks.emulator.answers.patterns import matching_text
from blocks.emulator.answers.reading import Reading

Schema = Mapping[str, Any]
Make = Callable[[Reading], Any]

DEPTH_LIMIT = 6  # where a schema that contains itself is cut off
FORMATS = {
    "date": "2026-01-31",
    "time": "12:00:00Z",
    "date-time": "2026-01-31T12:00:00Z",
    "duration": "P1D",
    "email": "mail@example.com",
    "idn-email": "mail@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uri-reference": "https://example.com/",
    "iri": "https://example.com/",
    "url": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "json-pointer": "/a",
    "regex": ".*",
}
HINTS = {  # what a field contains, by parts of its name
    "feature": ("feature", "merkmal", "eigenschaft", "aspect", "aspekt"),
    "topic": ("topic", "thema", "themen", "tag", "keyword", "schlagw", "stichw", "categor", "kategorie"),
    "summary": ("summary", "zusammenfassung", "abstract", "gist", "headline", "title", "titel", "kurz"),
    "language": ("language", "sprache", "lang"),
    "rating": ("rating", "score", "stars", "sterne", "bewertung", "satisfaction", "zufriedenheit"),
    "sentiment": ("sentiment", "stimmung", "tone", "tonfall", "polarity"),
    "confidence": ("confidence", "probability", "konfidenz", "wahrscheinlich", "certainty"),
}
FRACTION_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value is in the answer: the hint in its field's name, a number of its own, and the depth."""

    hint: str = ""
    salt: int = 0
    depth: int = 0

    def field(self, name: str) -> "Place":
        """The place of a property."""
        return Place(hint_of(name), crc32(name.encode(), self.salt), self.depth + 1)

    def entry(self, number: int) -> "Place":
        """The place of an array's element."""
        return Place(self.hint, crc32(b"%d" % number, self.salt), self.depth + 1)


def hint_of(name: str) -> str:
    """What a field contains, by its name; empty if that says nothing."""
    lowered = name.lower()
    return next((hint for hint, parts in HINTS.items() if any(part in lowered for part in parts)), "")


def compile_schema(document: Schema) -> Make:
    """The function that makes values of a schema."""
    return Compiler(document).make(document, Place())


class Compiler:
    """Makes one function for each node of a schema."""

    def __init__(self, document: Schema) -> None:
        self._document = document

    def make(self, schema: object, place: Place) -> Make:
        """The function for one node."""
        if not isinstance(schema, Mapping):
            return make_text({}, place)
        schema = self._resolve(schema)
        if "const" in schema:
            return constant(schema["const"])
        if "enum" in schema:
            return make_choice(schema["enum"], place)
        branches = schema.get("anyOf") or schema.get("oneOf")
        if branches:
            return self._make_branch(schema, branches, place)
        return self._make_typed(schema, place)

    def _resolve(self, schema: Schema) -> Schema:
        """Follow $ref and merge allOf."""
        for _ in range(DEPTH_LIMIT):
            if "$ref" in schema:
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = {**self._target(schema["$ref"]), **rest}
            elif "allOf" in schema:
                schema = merge(schema, [self._resolve(part) for part in schema["allOf"]])
            else:
                break
        return schema

    def _target(self, reference: str) -> Schema:
        node: Any = self._document
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                name = step.replace("~1", "/").replace("~0", "~")
                node = node.get(name, {}) if isinstance(node, Mapping) else {}
        return node if isinstance(node, Mapping) else {}

    def _make_branch(self, schema: Schema, branches: Sequence[Any], place: Place) -> Make:
        """The first branch that is not null; too deep down null, if it is one of them."""
        resolved = [self._resolve(branch) for branch in branches if isinstance(branch, Mapping)]
        by_nullness = sorted(resolved, key=is_null, reverse=place.depth >= DEPTH_LIMIT)
        around = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
        return self.make(merge(around, by_nullness[:1]), place)

    def _make_typed(self, schema: Schema, place: Place) -> Make:
        kind = type_of(schema, place.depth)
        if kind == "object":
            return self._make_object(schema, place)
        if kind == "array":
            return self._make_array(schema, place)
        if kind == "boolean":
            return make_truth(place)
        if kind in ("integer", "number"):
            return make_number(schema, place, whole=kind == "integer")
        return constant(None) if kind == "null" else make_text(schema, place)

    def _make_object(self, schema: Schema, place: Place) -> Make:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        names = [name for name in properties if place.depth < DEPTH_LIMIT or name in required]
        names += [name for name in required if name not in properties]
        if place.depth > 2 * DEPTH_LIMIT:  # requires itself without an end: no value satisfies it
            names = []
        fields = [(name, self.make(properties.get(name, {}), place.field(name))) for name in names]
        return lambda reading: {name: make(reading) for name, make in fields}

    def _make_array(self, schema: Schema, place: Place) -> Make:
        least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
        prefix = [self.make(item, place.entry(at)) for at, item in enumerate(schema.get("prefixItems", []))]
        items = schema.get("items", {})
        if prefix or self._is_compound(items):
            count = max(least, len(prefix), 0 if place.depth >= DEPTH_LIMIT or items is False else 1)
            rest = [self.make(items, place.entry(at)) for at in range(len(prefix), int(min(count, most)))]
            makes = (prefix + rest)[: int(min(len(prefix + rest), most))]
            return lambda reading: [make(reading) for make in makes]
        items = self._resolve(items) if isinstance(items, Mapping) else {}
        if "enum" in items:
            return make_choices(items["enum"], place, least, most)
        return make_labels(items, place, least, most)

    def _is_compound(self, items: object) -> bool:
        """Whether items are anything but plain strings or an enum."""
        if not isinstance(items, Mapping):
            return items is False
        schema = self._resolve(items)
        limits = {"pattern", "format", "const", "anyOf", "oneOf"}
        return "enum" not in schema and (type_of(schema, 0) != "string" or not limits.isdisjoint(schema))


def merge(schema: Schema, parts: Sequence[Schema]) -> Schema:
    """A schema merged with its parts: properties and required are added up, for all else the last one counts."""
    folded = {key: value for key, value in schema.items() if key != "allOf"}
    for part in parts:
        properties = {**folded.get("properties", {}), **part.get("properties", {})}
        required = [*folded.get("required", []), *part.get("required", [])]
        folded = {**folded, **part}
        if properties:
            folded |= {"properties": properties, "required": list(dict.fromkeys(required))}
    return folded


def is_null(schema: Schema) -> bool:
    """Whether a schema only takes null."""
    return schema.get("type") == "null" or schema.get("const", "") is None


def type_of(schema: Schema, depth: int) -> str:
    """The type to make: the first that is not null; too deep down null, if it is one of them."""
    kind = schema.get("type")
    if isinstance(kind, list):
        if "null" in kind and depth >= DEPTH_LIMIT:
            return "null"
        kind = next((each for each in kind if each != "null"), "null")
    if isinstance(kind, str):
        return kind
    implied = {"properties": "object", "items": "array", "minimum": "number", "maximum": "number"}
    return next((each for key, each in implied.items() if key in schema), "string")


def constant(value: object) -> Make:
    """Always the same value."""
    return lambda _: value


def make_choice(values: Sequence[Any], place: Place) -> Make:
    """By tone or language if the labels are such; else a label that is in the text; else the prompt decides."""
    options = [value for value in values if value is not None] or list(values)
    tones = by_meaning(options, TONES)
    if {"positive", "negative"} <= tones.keys():
        tones.setdefault("mixed", tones.get("neutral", tones["positive"]))
        tones.setdefault("neutral", tones["mixed"])
        return lambda reading: tones[reading.tone]
    languages = by_meaning(options, LANGUAGES)
    if {"de", "en"} <= languages.keys():
        return lambda reading: languages[reading.pick_word("de", "en")]
    named = {option.lower(): option for option in options if isinstance(option, str)}
    labels = frozenset(named)

    def choose(reading: Reading) -> Any:
        if not labels.isdisjoint(reading.vocabulary):
            return named[next(word for word in reading.words if word in labels)]
        return options[reading.choose(place.salt, len(options))]

    return choose


def by_meaning(options: Sequence[Any], meanings: Mapping[str, str]) -> dict[str, Any]:
    """Labels by what they stand for, as far as that is known."""
    return {
        meanings[option.lower()]: option for option in options if isinstance(option, str) and option.lower() in meanings
    }


def make_choices(values: Sequence[Any], place: Place, least: int, most: float) -> Make:
    """The labels that are in the text, else one; filled up to the minimum number."""
    choose = make_choice(values, place)
    named = [(str(value).lower(), value) for value in values]

    def choose_several(reading: Reading) -> list[Any]:
        found = [value for word, value in named if word in reading.vocabulary] or [choose(reading)]
        found += [value for value in values if value not in found][: max(0, least - len(found))]
        return found[: int(min(most, len(found)))]

    return choose_several


def make_labels(items: Schema, place: Place, least: int, most: float) -> Make:
    """Topics of the text, or features if the field is named so."""
    shortest, longest = items.get("minLength", 0), items.get("maxLength")
    limited = bool(shortest) or longest is not None
    of_features = place.hint == "feature"

    def labels(reading: Reading) -> list[str]:
        found = reading.features if of_features else reading.topics
        if limited:
            found = list(dict.fromkeys(fit_length(label, shortest, longest) for label in found))
        if len(found) < least:
            found = fill_up(found, least, shortest, longest)
        return found if len(found) <= most else found[: int(most)]

    return labels


def fill_up(found: Sequence[str], least: int, shortest: int, longest: int | None) -> list[str]:
    """Numbered labels until there are enough, all different."""
    labels = dict.fromkeys(found)
    number = 0
    while len(labels) < least and number < 10 * least + 100:
        number += 1
        name = f"{number}" if longest is not None and longest < len("topic 100") else f"topic {number}"
        labels[fit_length(name, shortest, longest)] = None
    return list(labels)


def make_truth(place: Place) -> Make:
    """True for a positive text, false for a negative one; else the prompt decides."""
    return lambda reading: (
        reading.tone == "positive" or (reading.tone != "negative" and reading.choose(place.salt, 2) == 1)
    )


def make_number(schema: Schema, place: Place, *, whole: bool) -> Make:
    """In range: ratings by the tone, anything else as the prompt decides."""
    low, high = limits_of(schema, place)
    step = schema.get("multipleOf", 1 if whole else 0)
    if whole and step < 1:
        step = 1
    by_tone = place.hint == "rating"

    def number(reading: Reading) -> float:
        share = reading.satisfaction if by_tone else reading.choose(place.salt, FRACTION_STEPS + 1) / FRACTION_STEPS
        return in_steps(low, high, share, step, whole=whole)

    return number


def limits_of(schema: Schema, place: Place) -> tuple[float, float]:
    """The smallest and the largest value; a limit that is excluded is moved inwards."""
    usual = {"rating": (1, 5), "confidence": (0, 1)}.get(place.hint, (0, 100))
    inwards = 1 if schema.get("type") == "integer" else 0.001
    lows = [schema.get("minimum"), moved(schema.get("exclusiveMinimum"), inwards)]
    highs = [schema.get("maximum"), moved(schema.get("exclusiveMaximum"), -inwards)]
    low = max(filter(is_number, lows), default=None)
    high = min(filter(is_number, highs), default=None)
    if low is None:
        low = usual[0] if high is None or usual[0] <= high else high - 100
    if high is None:
        high = usual[1] if low <= usual[1] else low + 100
    return low, high


def moved(limit: Any, by: float) -> float | None:
    """A limit moved by a step; None if there is none."""
    return limit + by if is_number(limit) else None


def is_number(value: object) -> TypeGuard[float]:
    """Whether a limit can be used."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def in_steps(low: float, high: float, share: float, step: float, *, whole: bool) -> float:
    """The value at that share of a range; a multiple of `step` unless that is 0."""
    if not step:
        return min(high, max(low, round(low + (high - low) * share, 3)))
    first, last = math.ceil(low / step), math.floor(high / step)
    value = (first + round(max(0, last - first) * share)) * step
    return int(value) if whole else round(value, 10)


def make_text(schema: Schema, place: Place) -> Make:
    """By pattern or format if there is one; else words of the text."""
    if "pattern" in schema:
        return constant(matching_text(schema["pattern"], schema.get("minLength", 0)))
    if schema.get("format") in FORMATS:
        return constant(FORMATS[schema["format"]])
    write = writer(place)
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength")
    if not shortest and longest is None:
        return write
    return lambda reading: fit_length(write(reading), shortest, longest)


def writer(place: Place) -> Callable[[Reading], str]:
    """What a string is filled with, by the hint in its field's name."""
    german_tones = {"positive": "positiv", "negative": "negativ", "mixed": "gemischt", "neutral": "neutral"}
    writers: dict[str, Callable[[Reading], str]] = {
        "feature": lambda reading: first_of(reading.features, reading),
        "topic": lambda reading: first_of(reading.topics, reading),
        "language": lambda reading: reading.pick_word("de", "en"),
        "sentiment": lambda reading: reading.pick_word(german_tones[reading.tone], reading.tone),
    }
    return writers.get(place.hint, lambda reading: reading.summary)


def first_of(labels: Sequence[str], reading: Reading) -> str:
    """The first label, or a general one."""
    return labels[0] if labels else reading.pick_word("Allgemeines", "general")


def fit_length(text: str, shortest: int, longest: int | None) -> str:
    """A text padded or cut to its limits."""
    if len(text) < shortest:
        text = text.ljust(shortest, ".")
    return text if longest is None else text[:longest]
