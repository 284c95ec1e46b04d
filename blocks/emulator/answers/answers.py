"""Answers: a function of model and prompt alone, made of word lists and the requested schema. This is not a model."""

from functools import lru_cache
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from blocks.emulator.answers.reading import Reading
from blocks.emulator.answers.schemas import Make, Schema, compile_schema
from blocks.emulator.answers.subject import SchemaFinder, subject_of

COMPILED_SCHEMAS = 512  # kept in memory
INVALID = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)  # of bad schemas


class Form(NamedTuple):
    """A schema, and the function that makes values of it."""

    schema: Schema
    make: Make


class Answer(NamedTuple):
    """An answer to a prompt; `number` stands for model and prompt. `form` is None if the prompt asks for no JSON."""

    text: str
    input_tokens: int
    output_tokens: int
    number: int
    form: Form | None


def count_tokens(text: str) -> int:
    """A quarter of the bytes: accurate enough, and the same on all platforms."""
    return len(text.encode()) // 4 + 1


@lru_cache(COMPILED_SCHEMAS)
def compile_text(schema: str) -> Form:
    """Compile the JSON text of a schema, once."""
    document = orjson.loads(schema)
    return Form(document, compile_schema(document))


def fill_in(schema: str, reading: Reading) -> tuple[Form, bytes]:
    """A value of the schema as JSON; an empty object if the schema is invalid."""
    try:
        form = compile_text(schema)
        return form, orjson.dumps(form.make(reading))
    except INVALID:
        return Form({}, lambda _: {}), b"{}"


class Answers:
    """Writes answers; remembers nothing but compiled schemas."""

    def __init__(self) -> None:
        self._finder = SchemaFinder()

    def answer(self, model: str, prompt: str, schema: str | None = None) -> Answer:
        """The answer to a prompt. The schema is the one given, else the last one in the prompt."""
        content = prompt.encode()
        number = crc32(content, crc32(model.encode()))
        span = None
        if schema is None:
            span = self._finder.find(prompt)
            schema = prompt[span.start : span.end] if span else None
        reading = Reading(subject_of(prompt, span), number)
        if schema is None:
            text = prose(reading)
            return Answer(text, len(content) // 4 + 1, count_tokens(text), number, None)
        form, written = fill_in(schema, reading)
        read = len(content) + (0 if span else len(schema.encode()))
        return Answer(written.decode(), read // 4 + 1, len(written) // 4 + 1, number, form)

    def broken(self, answer: Answer) -> str:
        """The answer, but violating its schema in a way that depends on the prompt. Empty if there is no schema."""
        if answer.form is None:
            return ""
        ways = [
            cut_off(answer.text),
            with_wrong_label(answer.text, answer.form.schema),
            without_field(answer.text, answer.form.schema),
            "Here is my assessment in plain words: " + answer.text.strip("{}").replace('"', ""),
        ]
        possible = [text for text in ways if text is not None]
        return possible[answer.number % len(possible)]


def prose(reading: Reading) -> str:
    """Two plain sentences in the language of the text."""
    topics = ", ".join(reading.topics) or reading.pick_word("nichts Bestimmtes", "nothing in particular")
    tones = {"positive": "positiv", "negative": "negativ", "mixed": "gemischt", "neutral": "neutral"}
    german = f"Der Text klingt {tones[reading.tone]}. Es geht um: {topics}."
    return reading.pick_word(german, f"The text sounds {reading.tone}. It is about: {topics}.")


def cut_off(text: str) -> str:
    """The first two thirds of a text."""
    return text[: max(1, len(text) * 2 // 3)]


def without_field(text: str, schema: Schema) -> str | None:
    """The answer without its last required field; None if no field is required."""
    value = orjson.loads(text)
    required = [name for name in schema.get("required", []) if name in value]
    if not required:
        return None
    del value[required[-1]]
    return orjson.dumps(value).decode()


def with_wrong_label(text: str, schema: Schema) -> str | None:
    """The answer with its first label replaced by one that the schema does not have; None if there are no labels."""
    value = orjson.loads(text)
    for name, field in schema.get("properties", {}).items():
        if name in value and isinstance(field, dict) and isinstance(field.get("enum"), list):
            value[name] = wrong_label(value[name], field["enum"])
            return orjson.dumps(value).decode()
    return None


def wrong_label(label: Any, labels: list[Any]) -> str:
    """A label that is not one of `labels`, if possible the same one in another spelling."""
    candidates = (str(label).capitalize(), str(label).upper(), f"{label}?", f"not {label}", "-")
    return next((each for each in candidates if each not in labels), "-" * 40)
