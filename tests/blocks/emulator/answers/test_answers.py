"""Answers: functions of model and prompt, sensible enough in two languages, and always of the requested schema."""

import json
import re
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.emulator.answers.answers import Answers
from blocks.emulator.answers.patterns import matching_text
from blocks.emulator.answers.subject import SchemaFinder, subject_of
from tests.blocks.emulator.client import SCHEMA, prompt_for

GERMAN_SCHEMA = {
    "type": "object",
    "properties": {
        "stimmung": {"enum": ["positiv", "negativ", "neutral", "gemischt"]},
        "themen": {"type": "array", "items": {"type": "string"}},
        "merkmale": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
        "sprache": {"type": "string"},
        "zusammenfassung": {"type": "string", "maxLength": 60},
    },
    "required": ["stimmung", "themen"],
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "boss": {"anyOf": [{"$ref": "#/$defs/person"}, {"type": "null"}]}},
    "required": ["name", "boss"],
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "reviews": SCHEMA,
    "german": GERMAN_SCHEMA,
    "numbers": {
        "type": "object",
        "properties": {
            "rating": {"type": "integer", "minimum": 1, "maximum": 5},
            "score": {"type": "number", "minimum": -1, "maximum": 1},
            "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "even": {"type": "integer", "multipleOf": 2, "minimum": 3, "maximum": 9},
            "above": {"type": "integer", "exclusiveMinimum": 1000},
            "below": {"type": "number", "maximum": -7.5},
            "quarter": {"type": "number", "multipleOf": 0.25, "minimum": 0.1, "maximum": 0.9},
            "free": {"type": "number"},
        },
        "required": ["rating", "score", "share", "even", "above", "below", "quarter", "free"],
        "additionalProperties": False,
    },
    "strings": {
        "type": "object",
        "properties": {
            "long": {"type": "string", "minLength": 300},
            "short": {"type": "string", "maxLength": 3},
            "code": {"type": "string", "pattern": "^[A-Z]{2}-\\d{4}$"},
            "day": {"type": "string", "format": "date"},
            "mail": {"type": "string", "format": "email"},
            "fixed": {"const": 7},
            "nothing": {"type": "null"},
            "maybe": {"type": ["string", "null"]},
            "flag": {"type": "boolean"},
        },
        "required": ["long", "short", "code", "day", "mail", "fixed", "nothing", "maybe", "flag"],
    },
    "arrays": {
        "type": "object",
        "properties": {
            "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 2, "uniqueItems": True},
            "many": {"type": "array", "items": {"type": "string"}, "minItems": 8, "uniqueItems": True},
            "none": {"type": "array", "items": {"type": "string"}, "maxItems": 0},
            "tiny": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2},
            "pairs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"topic": {"type": "string"}, "sentiment": {"enum": ["POSITIVE", "NEGATIVE"]}},
                    "required": ["topic", "sentiment"],
                },
                "minItems": 2,
            },
            "point": {"type": "array", "prefixItems": [{"type": "number"}, {"type": "string"}], "items": False},
            "numbers": {"type": "array", "items": {"type": "integer", "minimum": 5}, "minItems": 3},
            "grid": {"type": "array", "items": {"type": "array", "items": {"type": "boolean"}}},
        },
        "required": ["tags", "many", "none", "tiny", "pairs", "point", "numbers", "grid"],
    },
    "combined": {
        "type": "object",
        "$defs": {"person": PERSON, "label": {"type": "string", "enum": ["x", "y"]}},
        "properties": {
            "label": {"$ref": "#/$defs/label"},
            "labels": {"type": "array", "items": {"$ref": "#/$defs/label"}},
            "person": {"$ref": "#/$defs/person"},
            "either": {"oneOf": [{"type": "null"}, {"type": "integer", "minimum": 2}]},
            "both": {"allOf": [{"type": "string"}, {"minLength": 20}]},
            "nullable": {"type": ["null", "integer"], "maximum": 3},
            "open": {"type": "object", "required": ["extra"]},
            "anything": {},
            "true": True,
        },
        "required": ["label", "labels", "person", "either", "both", "nullable", "open", "anything", "true"],
    },
}
TEXTS = st.text(max_size=300) | st.sampled_from(
    [
        '{"type":"object","properties":',
        '{"a": {',
        "}}}{{{",
        'say "properties" {',
        "Review: {x} [1, 2]",
        '{"properties":1}',
    ]
)


def answer(text: str, schema: object = SCHEMA, model: str = "m") -> dict[str, Any]:
    return dict(orjson.loads(Answers().answer(model, prompt_for(text, schema)).text))


@pytest.mark.parametrize("name", SCHEMAS)
@settings(max_examples=60, deadline=None)
@given(before=TEXTS, after=TEXTS)
def test_answer_satisfies_its_schema_whatever_surrounds_it(name: str, before: str, after: str) -> None:
    """Text before and after the schema, braces included, does not change what is asked for."""
    schema = SCHEMAS[name]
    prompt = f"{before}\nSchema: {orjson.dumps(schema).decode()}\n{after}"
    value = orjson.loads(Answers().answer("m", prompt).text)
    assert [error.message for error in jsonschema_rs.validator_for(schema).iter_errors(value)] == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_found_however_it_is_laid_out(name: str) -> None:
    """Indented and in a code block is as good as on one line."""
    schema = SCHEMAS[name]
    text = orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode()
    value = orjson.loads(Answers().answer("m", f"Use this:\n```json\n{text}\n```\nReview: fine {{really}}").text)
    assert jsonschema_rs.is_valid(schema, value)


def test_schema_given_beside_the_prompt_is_followed() -> None:
    """Providers that take a schema in a field of its own are answered to it."""
    text = Answers().answer("m", "Review: great", orjson.dumps(SCHEMA).decode()).text
    assert orjson.loads(text)["sentiment"] == "positive"


@settings(max_examples=60, deadline=None)
@given(before=TEXTS, after=TEXTS)
def test_schema_is_cut_out_exactly(before: str, after: str) -> None:
    """Not one character before or after it is taken for part of it, also when it is remembered."""
    schema = orjson.dumps(SCHEMA).decode()
    prompt = f"{before}\nSchema: {schema}{after}"
    finder = SchemaFinder()
    for _ in range(2):  # the second time it is remembered
        span = finder.find(prompt)
        assert span is not None
        assert prompt[span.start : span.end] == schema


def test_last_of_several_schemas_counts() -> None:
    """Earlier ones may be examples; the order decides, not what was seen first."""
    other = {"type": "object", "properties": {"old": {"type": "string"}}, "required": ["old"]}
    first, last = orjson.dumps(other).decode(), orjson.dumps(SCHEMA).decode()
    answers = Answers()
    for _ in range(2):
        assert orjson.loads(answers.answer("m", f"{first}\n{last}").text).keys() == SCHEMA["properties"].keys()
        assert orjson.loads(answers.answer("m", f"{last}\n{first}").text).keys() == {"old"}


def test_schema_seen_alone_before_is_not_mistaken_inside_another() -> None:
    """What was remembered applies to the same schema alone, not to one that contains it."""
    outer = {"type": "object", "properties": {"inner": SCHEMA, "list": {"type": "array", "items": SCHEMA}}}
    answers = Answers()
    answers.answer("m", prompt_for("Review: great"))
    assert orjson.loads(answers.answer("m", prompt_for("Review: great", outer)).text).keys() == {"inner", "list"}


def test_schema_in_a_wrapper_is_found() -> None:
    """A name and `strict` around it, as OpenAI wants them, are looked through."""
    wrapper = {"name": "labels", "strict": True, "schema": SCHEMA}
    assert answer("Review: great", wrapper)["sentiment"] == "positive"


@pytest.mark.parametrize(
    "field",
    [
        {"enum": []},
        {"enum": 7},
        {"type": "array", "minItems": "x"},
        {"pattern": 3},
        {"$ref": "#/nowhere"},
        {"$ref": 1},
        {"type": "integer", "multipleOf": 0},
        {"minimum": 5, "maximum": 1},
        {"const": 2**70},
        {"const": "\ud800"},
    ],
)
def test_unsound_schema_is_answered_all_the_same(field: dict[str, Any]) -> None:
    """A schema that nothing can satisfy gets some object, never an error of the emulator."""
    schema = json.dumps({"type": "object", "properties": {"a": field}, "required": ["a"]})
    answers = Answers()
    written = answers.answer("m", f"Review: great\nSchema: {schema}")
    assert isinstance(orjson.loads(written.text), dict)
    assert isinstance(answers.broken(written), str)


def test_prompt_with_many_braces_is_answered_in_time() -> None:
    """Looking for the schema does not become quadratic where thousands of braces open."""
    assert answer('{"a":' * 2000 + "{" * 5000 + " Review: great")["sentiment"] in ("positive", "neutral")


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=200), model=st.text(min_size=1, max_size=20))
def test_answer_depends_on_nothing_but_model_and_prompt(text: str, model: str) -> None:
    """What was answered before leaves no trace, so that runs can be compared."""
    used = Answers()
    used.answer("other", prompt_for("Review: something else", GERMAN_SCHEMA))
    assert used.answer(model, prompt_for(text)) == Answers().answer(model, prompt_for(text))


@pytest.mark.parametrize(
    ("text", "sentiment"),
    [
        ("Der Akku hält lange, die Lieferung war schnell. Sehr zufrieden!", "positive"),
        ("Leider schon nach zwei Tagen kaputt, der Kundenservice antwortet nicht.", "negative"),
        ("Das Paket kam am Dienstag.", "neutral"),
        ("Überhaupt nicht gut, keine Empfehlung.", "negative"),
        ("Great taste, fast delivery, would recommend to anyone.", "positive"),
        ("Arrived broken. A total waste of money.", "negative"),
        ("The box contains twelve pieces.", "neutral"),
        ("Not bad, no problem so far.", "positive"),
        ("This is not good and not worth it.", "negative"),
    ],
)
def test_tone_of_plain_texts_is_found(text: str, sentiment: str) -> None:
    """Praise, complaint and negation are told apart in German and English."""
    assert answer(f"Review: {text}")["sentiment"] == sentiment


def test_instructions_do_not_colour_the_answer() -> None:
    """Words of the prompt around the text are not counted."""
    prompt = (
        "You are great and excellent at this. Say positive if the customer is happy.\n\n"
        "Review: Terrible, it arrived broken.\n\nAnswer as JSON, be good, to this schema: "
        + orjson.dumps(SCHEMA).decode()
    )
    assert orjson.loads(Answers().answer("m", prompt).text)["sentiment"] == "negative"


def test_note_on_a_rejected_answer_is_not_read() -> None:
    """A second attempt quotes the first answer; its words are not the text's."""
    note = "\n\nYour previous answer was rejected: great is excellent, perfect and wonderful\nAnswer again."
    for prompt in (prompt_for("Review: It arrived broken.") + note, prompt_for(f"Review: It arrived broken.{note}")):
        assert orjson.loads(Answers().answer("m", prompt).text)["sentiment"] == "negative"


def test_german_texts_are_answered_in_german() -> None:
    """Topics, labels, language and summary all follow the language of the text."""
    text = "Bewertung: Der Akku ist schwach, aber die Lieferung war schnell und der Preis gut."
    value = answer(text, GERMAN_SCHEMA)
    assert value["themen"] == ["Akku", "Lieferung", "Preis"]
    assert value["stimmung"] == "positiv"
    assert value["sprache"] == "de"
    assert value["zusammenfassung"].startswith("Der Akku ist schwach")


def test_english_texts_are_answered_in_english() -> None:
    """Even when the names and labels of the schema are German."""
    value = answer("Review: The battery is weak but the delivery was fast and the price is fair.", GERMAN_SCHEMA)
    assert value["themen"] == ["battery", "delivery", "price"]
    assert value["sprache"] == "en"


def test_mixed_label_is_used_where_there_is_one() -> None:
    """A text with praise and complaint is `mixed` if the schema knows it, else neutral."""
    text = "Bewertung: Das Display ist gut, aber der Akku ist schlecht."
    assert answer(text, GERMAN_SCHEMA)["stimmung"] == "gemischt"
    assert answer(text)["sentiment"] == "neutral"


def test_topics_of_unknown_matters_are_words_of_the_text() -> None:
    """A text that no word list covers is answered with its own words."""
    assert answer("Review: Archaeologists excavated sarcophagi")["topics"] == [
        "Archaeologists",
        "excavated",
        "sarcophagi",
    ]


def test_label_that_the_text_names_is_chosen() -> None:
    """Upper and lower case make no difference."""
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "Green", "blue"]}}, "required": ["colour"]}
    assert answer("Review: I got the green one", schema) == {"colour": "Green"}


def test_labels_that_no_word_decides_are_spread() -> None:
    """Every label of an enum occurs, so that tests see them all."""
    schema = {"type": "object", "properties": {"group": {"enum": ["a1", "b2", "c3"]}}, "required": ["group"]}
    assert {answer(f"Review: item {number}", schema)["group"] for number in range(50)} == {"a1", "b2", "c3"}


def test_rating_follows_the_tone() -> None:
    """Praise is near the maximum of the range, complaint near the minimum."""
    schema = {"type": "object", "properties": {"rating": {"type": "integer", "minimum": 1, "maximum": 5}}}
    good, bad = "Review: great, excellent, perfect, love it", "Review: broken, terrible, awful, waste"
    assert answer(good, schema)["rating"] >= 4
    assert answer(bad, schema)["rating"] <= 2


def test_without_a_schema_the_answer_is_a_sentence() -> None:
    """In the language of the text, with its tone and topics."""
    text = Answers().answer("m", "Fasse zusammen: Der Akku ist schlecht und die Lieferung kam zu spät.").text
    assert text == "Der Text klingt negativ. Es geht um: Akku, Lieferung."


def test_tokens_are_a_quarter_of_the_bytes() -> None:
    """Bytes of UTF-8, not characters, and one more."""
    assert Answers().answer("m", "ä" * 40).input_tokens == 21


@settings(max_examples=80, deadline=None)
@given(text=st.text(max_size=80), name=st.sampled_from(sorted(SCHEMAS)))
def test_broken_answer_breaks_its_schema(text: str, name: str) -> None:
    """It is either no JSON at all or JSON that the schema refuses."""
    answers = Answers()
    broken = answers.broken(answers.answer("m", prompt_for(text, SCHEMAS[name])))
    try:
        value = orjson.loads(broken)
    except orjson.JSONDecodeError:
        return
    assert not jsonschema_rs.is_valid(SCHEMAS[name], value)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\d{5}$",
        r"^[A-Z]{2}-\d{4}$",
        r"^(yes|no)$",
        r"^[^a]+@[a-z]+\.com$",
        r"^\w+\s\w+$",
        r".{3,}",
        r"^a?b*c+$",
        r"^\S+$",
    ],
)
def test_patterns_are_matched(pattern: str) -> None:
    """A string that must match a regular expression does."""
    assert re.search(pattern, matching_text(pattern))


def test_pattern_reaches_a_least_length() -> None:
    """`minLength` holds beside a pattern without an upper end."""
    assert len(matching_text("^[a-z]+$", shortest=12)) >= 12


def test_pattern_that_is_not_understood_is_passed_over() -> None:
    """An invalid expression makes an empty text, not an error."""
    assert matching_text("(") == ""


def test_subject_is_the_labelled_text() -> None:
    """Instructions before and after it are left out, blank lines inside it are kept."""
    prompt = "You label reviews.\nBe strict: always.\n\nReview: one\n\ntwo\n\nAnswer with JSON only."
    assert subject_of(prompt, None) == "one\n\ntwo"
