"""OpenAI's dialect over a real socket: a file up, a batch, two files down, and what can go wrong between them."""

import gzip
import json
import logging
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import stamina
from hypothesis import given
from hypothesis import strategies as st

from blocks.batch import (
    LONGER,
    Answer,
    BatchPhase,
    BatchStatus,
    EncodedBatch,
    Failure,
    FailureKind,
    Found,
    Obstacle,
    RequestForm,
    Usage,
)
from blocks.errors import (
    UNCOUNTED,
    AuthenticationFailed,
    BatchRefused,
    BatchTooLarge,
    Incomplete,
    NotFound,
    ProviderError,
    SpendLimitReached,
    Transient,
    UnknownOutcome,
)
from blocks.providers.openai import ENTRY
from blocks.providers.openai.batches import OpenAI
from blocks.providers.openai.codec import CHAT, RESPONSES, STRICT, OpenAICodec, read_row, read_status
from blocks.providers.reading import TOO_LONG, UNREADABLE
from blocks.providers.schemas import NotStrict, narrowed
from tests.blocks.contract import once_each
from tests.blocks.scripted import Asked, Drop, Say, Server, Step, serving

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"label": {"type": "string"}}}
FORM = RequestForm("gpt-4.1-mini", "Be brief.", SCHEMA, 200)
KEY = "sk-very-secret-1234"
TAG = "abcd2345-7"
FILENAME = f"batchwerk-{TAG}.jsonl"
SENT = 1_795_334_400.0  # when the batch of these tests was sent
UPLOADED = Say(body={"id": "file-1", "object": "file"})
CREATED = Say(body={"id": "batch_1", "object": "batch", "status": "validating"})


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Retries without waiting."""
    with stamina.set_testing(True, attempts=3):  # stamina's own
        yield


@contextmanager
def connected(*script: Step, now: float = SENT + 10_000, **options: Any) -> Iterator[tuple[OpenAI, Server]]:
    with serving(*script) as server:
        provider = OpenAI(KEY, f"{server.url}/v1", clock=lambda: now, **options)
        try:
            yield provider, server
        finally:
            provider.close()


@pytest.fixture
def batch(tmp_path: Path) -> EncodedBatch:
    form = OpenAICodec(FORM)
    content = form.head + form.separator.join(form.encode(f"run-{n}-1", f"text {n}") for n in range(3)) + form.tail
    (tmp_path / "body").write_bytes(content)
    return EncodedBatch(tmp_path / "body", 3, len(content), "hash", TAG, sent_at=SENT)


def form_of(asked: Asked) -> dict[str, tuple[str | None, bytes]]:
    """The parts of a multipart body, name → (filename, content), as the standard library reads them."""
    message = message_from_bytes(b"Content-Type: " + asked.headers["content-type"].encode() + b"\r\n\r\n" + asked.body)
    parts = {}
    for part in message.walk():
        if not part.is_multipart():
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            parts[str(part.get_param("name", header="content-disposition"))] = (part.get_filename(), content)
    return parts


# --- requests


def test_an_answer_that_was_cut_off_may_be_longer_the_next_time() -> None:
    """Four times; where the job sets no limit, the model's own was reached and there is nothing to raise."""
    for endpoint, name in ((CHAT, "max_completion_tokens"), (RESPONSES, "max_output_tokens")):
        body = json.loads(OpenAICodec(FORM, endpoint).encode("run-1-2", "Hi", longer=True))["body"]
        assert body[name] == 800
        free = OpenAICodec(RequestForm("m"), endpoint)
        assert free.encode("run-1-2", "Hi", longer=True) == free.encode("run-1-2", "Hi")
    answer = read_row(row(1, chat("half", "length")), RequestForm("m"))
    assert answer is not None
    assert answer.failure is not None
    assert answer.failure.kind is FailureKind.TERMINAL


@pytest.mark.parametrize(
    ("structured", "kind", "in_words"),
    [
        ("json_schema", "json_schema", False),
        ("json_object", "json_object", True),
        ("prompt", None, True),
        ("off", None, False),
    ],
)
@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES])
def test_a_service_is_told_the_shape_of_answers_as_it_takes_it(
    endpoint: str, structured: str, kind: str | None, in_words: bool
) -> None:
    """In a field of its own, or in the system text; a compatible service may take neither schemas nor JSON objects."""
    body = json.loads(OpenAICodec(FORM, endpoint, structured).encode("run-1-1", "Hi"))["body"]
    form = body.get("response_format") if endpoint == CHAT else body.get("text", {}).get("format")
    assert (form and form["type"]) == kind
    system = body["messages"][0]["content"] if endpoint == CHAT else body.get("instructions", "")
    assert ("It must match this JSON Schema" in system) is in_words
    assert json.dumps(SCHEMA, separators=(",", ":")) in system or not in_words


def test_the_limit_of_tokens_has_the_name_that_the_service_knows() -> None:
    """Also where an answer may be longer."""
    codec = OpenAICodec(RequestForm("m", max_output_tokens=9), CHAT, "off", "max_tokens")
    for longer, limit in ((False, 9), (True, 9 * LONGER)):
        body = json.loads(codec.encode("run-1-1", "Hi", longer=longer))["body"]
        assert (body["max_tokens"], "max_completion_tokens" in body) == (limit, False)


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES])
def test_a_temperature_is_sent_where_the_job_has_one(endpoint: str) -> None:
    """Also 0, which is not the default."""
    body = json.loads(OpenAICodec(RequestForm("m", temperature=0.0), endpoint).encode("run-1-1", "Hi"))["body"]
    assert body["temperature"] == 0
    assert "temperature" not in json.loads(OpenAICodec(FORM, endpoint).encode("run-1-1", "Hi"))["body"]


@given(st.text(), st.none() | st.text(min_size=1), st.sampled_from([CHAT, RESPONSES]))
def test_an_encoded_request_is_one_line_of_json(prompt: str, system: str | None, endpoint: str) -> None:
    """Put together from pieces, it is what an encoder would have made of the whole."""
    form = OpenAICodec(RequestForm("m", system, SCHEMA, 9), endpoint)
    line = form.encode("run-1-1", prompt)
    assert b"\n" not in line
    request = json.loads(line)
    assert list(request) == ["custom_id", "method", "url", "body"]
    assert (request["custom_id"], request["method"], request["url"]) == ("run-1-1", "POST", endpoint)
    body = request["body"]
    said = body["messages" if endpoint == CHAT else "input"]
    if endpoint == CHAT and system:
        assert said.pop(0) == {"role": "system", "content": system}
    assert body.get("instructions") == (system if endpoint == RESPONSES else None)
    assert said == [{"role": "user", "content": prompt}]


def test_a_chat_body_is_as_documented() -> None:
    """Model, messages, limit, schema; nothing else."""
    body = json.loads(OpenAICodec(FORM).encode("run-1-1", "Hi"))["body"]
    strict = {**SCHEMA, "required": ["label"], "additionalProperties": False}
    assert body == {
        "model": "gpt-4.1-mini",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "max_completion_tokens": 200,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": strict},
        },
    }


def test_a_body_of_responses_is_as_documented() -> None:
    """The same words in other places; the service is asked to keep nothing."""
    body = json.loads(OpenAICodec(FORM, RESPONSES).encode("run-1-1", "Hi"))["body"]
    strict = {**SCHEMA, "required": ["label"], "additionalProperties": False}
    assert body == {
        "model": "gpt-4.1-mini",
        "store": False,
        "instructions": "Be brief.",
        "input": [{"role": "user", "content": "Hi"}],
        "max_output_tokens": 200,
        "text": {"format": {"type": "json_schema", "name": "answer", "strict": True, "schema": strict}},
    }


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES])
def test_what_is_not_asked_for_is_not_sent(endpoint: str) -> None:
    """No system text, no schema, no limit."""
    body = json.loads(OpenAICodec(RequestForm("m"), endpoint).encode("run-1-1", "Hi"))["body"]
    assert set(body) <= {"model", "messages", "input", "store"}


# --- schemas

OPEN = {"type": "object"}
TEXT = {"type": "string"}


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def asked_for(part: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": part}}


@pytest.mark.parametrize(
    ("part", "strict"),
    [
        ({"type": "string", "description": "d", "title": "t", "default": "x", "examples": ["x"]},
         {"title": "t", "description": "d", "type": "string"}),
        ({"type": "string", "minLength": 1, "maxLength": 9}, TEXT),
        ({"type": "string", "pattern": "^a+$", "format": "date"}, {**TEXT, "pattern": "^a+$", "format": "date"}),
        ({"type": "string", "pattern": "^(?!x)", "format": "iri"}, TEXT),
        ({"type": "integer", "minimum": 1, "maximum": 5}, {"type": "integer", "minimum": 1, "maximum": 5}),
        ({"type": "number", "exclusiveMinimum": True}, {"type": "number"}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
        ({"type": "string", "minimum": 3, "items": {}}, TEXT),
        ({"enum": ["x", "y"]}, {"type": "string", "enum": ["x", "y"]}),
        ({"enum": ["x", 1, None, True, 1.5]},
         {"type": ["string", "integer", "null", "boolean", "number"], "enum": ["x", 1, None, True, 1.5]}),
        ({"type": "string", "enum": ["x", None]}, {"type": "string", "enum": ["x"]}),
        ({"type": "number", "enum": [1, 2.5]}, {"type": "number", "enum": [1, 2.5]}),
        ({"const": "x"}, {"type": "string", "enum": ["x"]}),
        ({"type": "array", "items": TEXT, "minItems": 1, "uniqueItems": True},
         {"type": "array", "items": TEXT, "minItems": 1}),
        ({"items": {"properties": {"b": TEXT}}}, {"type": "array", "items": closed(b=TEXT)}),
        ({"type": "object", "properties": {"b": {"type": "object", "properties": {"c": TEXT}}}, "required": [],
          "additionalProperties": TEXT, "minProperties": 1}, closed(b=closed(c=TEXT))),
        ({"anyOf": [TEXT, {"type": "null"}], "description": "d"},
         {"description": "d", "anyOf": [TEXT, {"type": "null"}]}),
        ({"oneOf": [TEXT, {"type": "object", "properties": {"b": TEXT}}]}, {"anyOf": [TEXT, closed(b=TEXT)]}),
        ({"$ref": "#", "description": "d"}, {"$ref": "#"}),
        ({"type": "string", "not": {"const": "x"}, "if": {}, "then": {}}, TEXT),
    ],
)  # fmt: skip
def test_a_schema_is_said_strictly(part: dict[str, Any], strict: dict[str, Any]) -> None:
    """Objects closed and their properties required; what strict mode has no words for is left out."""
    assert narrowed(asked_for(part), STRICT) == closed(a=strict)


@pytest.mark.parametrize("word", ["$defs", "definitions"])
def test_named_parts_are_kept(word: str) -> None:
    """Under the one name that strict mode knows, also where they refer to themselves."""
    node = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": f"#/{word}/node"}, {"type": "null"}]}}}
    schema = {**asked_for({"$ref": f"#/{word}/node"}), word: {"node": node}}
    inner = {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}
    assert narrowed(schema, STRICT) == {**closed(a={"$ref": "#/$defs/node"}), "$defs": {"node": closed(next=inner)}}


def deep(levels: int) -> dict[str, Any]:
    return TEXT if levels == 0 else asked_for(deep(levels - 1))


@pytest.mark.parametrize(
    "part",
    [
        {}, True, False, OPEN, {"type": "object", "properties": {}}, {"type": "object", "additionalProperties": TEXT},
        {"type": "array"}, {"type": "array", "items": {}}, {"prefixItems": [TEXT], "type": "array", "items": TEXT},
        {"allOf": [TEXT]}, {"type": "object", "anyOf": [{"required": ["x"]}], "properties": {"x": TEXT}},
        {"anyOf": []}, {"anyOf": [TEXT, {}]}, {"type": "string", "enum": [1]}, {"enum": [{"a": 1}]}, {"enum": []},
        {"enum": list(range(1001))}, {"type": "object", "properties": {"b": TEXT}, "required": ["c"]},
        {"$ref": "#/$defs/unknown"}, {"$ref": "https://example.com/x"}, {"$ref": "#/properties/a"}, {"$ref": 5},
        {"type": "thing"}, {"type": 5}, {"type": []}, {"enum": None}, deep(50),
        {"type": "object", "properties": {f"p{n}": TEXT for n in range(5001)}},
    ],
    ids=lambda part: str(part)[:50],
)  # fmt: skip
def test_what_can_not_be_said_strictly_is_sent_as_it_is(part: Any) -> None:
    """The model follows it as well as it can; the answer is checked against the whole schema in any case."""
    schema = asked_for(part)
    with pytest.raises(NotStrict):
        narrowed(schema, STRICT)
    body = json.loads(OpenAICodec(RequestForm("m", schema=schema)).encode("a", "Hi"))["body"]
    sent = body["response_format"]["json_schema"]
    assert (sent["strict"], sent["schema"]) == (False, schema)


@pytest.mark.parametrize("root", [{}, {"a": "ü\n"}, TEXT, {"type": ["object", "null"]}, {"anyOf": [asked_for(TEXT)]}])
def test_a_root_that_is_no_object_is_not_strict(root: dict[str, Any]) -> None:
    """Strict mode takes objects only."""
    with pytest.raises(NotStrict):
        narrowed(root, STRICT)


parts = st.recursive(
    st.sampled_from([TEXT, {"type": "integer", "minimum": 0}, {"enum": ["x", None]}, {"type": ["number", "null"]}]),
    lambda inner: (
        st.builds(lambda item: {"type": "array", "items": item, "maxItems": 2}, inner)
        | st.builds(lambda both: {"anyOf": list(both)}, st.tuples(inner, inner))
        | st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3).map(
            lambda properties: {"type": "object", "properties": properties}
        )
    ),
    max_leaves=5,
)


@given(parts, st.recursive(st.none() | st.integers() | st.text(max_size=2), lambda i: st.lists(i, max_size=2)
       | st.dictionaries(st.sampled_from("abc"), i, max_size=3), max_leaves=5))  # fmt: skip
def test_an_answer_that_is_strict_is_valid(part: dict[str, Any], value: Any) -> None:
    """The strict schema asks for nothing that the job's own would reject."""
    schema = asked_for(part)
    strict = narrowed(schema, STRICT)
    jsonschema_rs.meta.validate(strict)
    if jsonschema_rs.is_valid(strict, {"a": value}):
        assert jsonschema_rs.is_valid(schema, {"a": value})


# --- submit


def test_a_batch_is_a_file_and_an_order(batch: EncodedBatch) -> None:
    """Purpose before the file, the tag in its name and in the metadata, every byte with its length."""
    with connected(UPLOADED, CREATED) as (provider, server):
        assert provider.submit(batch, FORM) == "batch_1"
    upload, create = server.asked
    assert (upload.method, upload.path) == ("POST", "/v1/files")
    assert upload.headers["authorization"] == f"Bearer {KEY}"
    assert upload.headers["content-length"] == str(len(upload.body))
    assert "transfer-encoding" not in upload.headers
    assert list(form_of(upload).items()) == [
        ("purpose", (None, b"batch")),
        ("file", (FILENAME, batch.path.read_bytes())),
    ]
    assert (create.method, create.path) == ("POST", "/v1/batches")
    assert json.loads(create.body) == {
        "input_file_id": "file-1",
        "endpoint": CHAT,
        "completion_window": "24h",
        "metadata": {"batchwerk": TAG},
    }


def test_the_endpoint_of_the_lines_is_the_batchs(batch: EncodedBatch) -> None:
    """The service refuses a batch whose lines call something else."""
    with connected(UPLOADED, CREATED, endpoint=RESPONSES) as (provider, server):
        line = json.loads(ENTRY.codec_for(FORM, {"endpoint": RESPONSES}).encode("run-1-1", "Hi"))
        provider.submit(batch, FORM)
    assert json.loads(server.asked[1].body)["endpoint"] == line["url"] == RESPONSES


@pytest.mark.parametrize("trouble", [Say(500), Say(429), Say(200, b"x"), Drop(), Drop(reset=True)], ids=repr)
def test_an_upload_is_repeated(trouble: Step, batch: EncodedBatch) -> None:
    """An orphaned file costs nothing; each time the whole file is sent."""
    with connected(trouble, UPLOADED, CREATED) as (provider, server):
        assert provider.submit(batch, FORM) == "batch_1"
    assert [asked.path for asked in server.asked] == ["/v1/files", "/v1/files", "/v1/batches"]
    assert form_of(server.asked[1])["file"][1] == batch.path.read_bytes()


def test_an_upload_that_fails_leaves_nothing_unknown(batch: EncodedBatch) -> None:
    """No batch was made: it is no question whether one was."""
    for step in (Say(503), Drop(), Say(200, {}), Say(200, []), Say(200, {"id": None})):
        with connected(step) as (provider, server), pytest.raises(Transient):
            provider.submit(batch, FORM)
        assert {asked.path for asked in server.asked} == {"/v1/files"}


@pytest.mark.parametrize(
    "trouble", [Say(500), Say(503), Say(408), Say(200, b"x"), Drop(), Drop(reset=True)], ids=repr
)  # fmt: skip
def test_a_create_whose_answer_is_lost_is_never_repeated(trouble: Step, batch: EncodedBatch) -> None:
    """The batch may run and cost."""
    with connected(UPLOADED, trouble, CREATED) as (provider, server), pytest.raises(UnknownOutcome):
        provider.submit(batch, FORM)
    assert [asked.path for asked in server.asked] == ["/v1/files", "/v1/batches"]


@pytest.mark.parametrize("said", [{}, [], None, "b", {"id": None}, {"id": ""}, {"id": {}}, {"batch_id": "b"}])
def test_an_acceptance_without_an_id_is_unknown(said: Any, batch: EncodedBatch) -> None:
    """It was accepted, and nobody knows as what."""
    with connected(UPLOADED, Say(200, said)) as (provider, server), pytest.raises(UnknownOutcome, match="no id"):
        provider.submit(batch, FORM)
    assert len(server.asked) == 2


def test_a_throttled_create_is_made_again(batch: EncodedBatch) -> None:
    """A 429 accepted nothing; the file is not sent again."""
    with connected(UPLOADED, Say(429), CREATED) as (provider, server):
        assert provider.submit(batch, FORM) == "batch_1"
    assert [asked.path for asked in server.asked] == ["/v1/files", "/v1/batches", "/v1/batches"]


def test_a_create_may_be_answered_in_a_wrapping(batch: EncodedBatch) -> None:
    """Together puts the batch below `job`."""
    with connected(UPLOADED, Say(200, {"job": {"id": "b-7"}, "warning": None})) as (provider, _):
        assert provider.submit(batch, FORM) == "b-7"


def refusal(status: int, code: str | None, kind: str = "invalid_request_error", words: str = "no") -> Say:
    return Say(status, {"error": {"message": words, "type": kind, "param": None, "code": code}})


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (refusal(401, "invalid_api_key"), AuthenticationFailed),
        (refusal(403, "unsupported_country_region_territory"), AuthenticationFailed),
        (refusal(429, "insufficient_quota"), SpendLimitReached),
        (refusal(429, None, "insufficient_quota"), SpendLimitReached),
        (refusal(400, "billing_hard_limit_reached"), SpendLimitReached),
        (refusal(413, None), BatchTooLarge),
        (refusal(400, None), BatchRefused),
        (refusal(404, None), NotFound),
        (Say(400, b"<html>"), BatchRefused),
    ],
)  # fmt: skip
def test_a_refusal_has_its_error(said: Say, expected: type[ProviderError], batch: EncodedBatch) -> None:
    """At the file or at the batch, and not asked for again."""
    for script in ([said], [UPLOADED, said]):
        with connected(*script) as (provider, server), pytest.raises(ProviderError) as caught:
            provider.submit(batch, FORM)
        assert type(caught.value) is expected
        assert len(server.asked) == len(script)


def test_a_server_error_with_the_words_of_an_empty_account_stays_unknown(batch: EncodedBatch) -> None:
    """A 5xx may hide an accepted batch, whatever it says."""
    with connected(UPLOADED, refusal(500, "insufficient_quota")) as (provider, _), pytest.raises(UnknownOutcome):
        provider.submit(batch, FORM)


@pytest.mark.parametrize("shown", [KEY, "sk-very*****1234", "sk-other-key-9"])
def test_no_key_is_in_an_error(shown: str, batch: EncodedBatch) -> None:
    """Also where the service repeats it, whole or masked."""
    said = refusal(401, "invalid_api_key", words=f"Incorrect API key provided: {shown}. Find yours at …")
    with connected(said) as (provider, _), pytest.raises(AuthenticationFailed, match="Incorrect API key") as caught:
        provider.submit(batch, FORM)
    assert shown not in f"{caught.value}{caught.value!r}{caught.value.__dict__}{caught.value.__cause__}"


def test_a_key_of_any_form_is_in_no_error() -> None:
    """Services that speak the dialect have keys of other forms."""
    with serving(refusal(401, None, words="no such key: tgp_v1_abc")) as server:
        provider = OpenAI("tgp_v1_abc", f"{server.url}/v1")
        with pytest.raises(AuthenticationFailed, match="no such key: …"):
            provider.poll("batch_1")
        provider.close()


# --- find


def listed(*items: dict[str, Any], more: bool = False) -> Say:
    return Say(body={"object": "list", "data": list(items), "has_more": more})


def a_batch(number: int, *, tag: str | None = None, at: float = SENT + 60, **changes: Any) -> dict[str, Any]:
    metadata = {"batchwerk": tag} if tag else None
    item = {"id": f"batch_{number}", "status": "in_progress", "created_at": int(at), "metadata": metadata}
    return {**item, "input_file_id": f"file-{number}", **changes}


def a_file(number: int, name: str = FILENAME, at: float = SENT + 30) -> dict[str, Any]:
    return {"id": f"file-{number}", "object": "file", "filename": name, "created_at": int(at), "purpose": "batch"}


def test_a_lost_batch_is_found_by_its_tag(batch: EncodedBatch) -> None:
    """Nothing is sent."""
    page = listed(a_batch(9, tag="abcd2345-8"), a_batch(8, metadata={}), a_batch(7, tag=TAG), a_batch(6))
    with connected(page) as (provider, server):
        assert not provider.replays
        assert provider.find(batch, FORM) == Found("batch_7")
    (batches,) = server.asked
    assert (batches.method, batches.path, batches.query) == ("GET", "/v1/batches", {"limit": "100"})


def test_a_lost_batch_is_found_by_its_file(batch: EncodedBatch) -> None:
    """Where a service keeps no metadata. Some give no more files at once than batches, and refuse a larger number."""
    script = [listed(a_batch(5), a_batch(7)), listed(a_file(5, "other.jsonl"), a_file(7))]
    with connected(*script) as (provider, server):
        assert provider.find(batch, FORM) == Found("batch_7")
    files = server.asked[1]
    assert (files.method, files.path) == ("GET", "/v1/files")
    assert files.query == {"purpose": "batch", "order": "desc", "limit": "100"}


def test_lists_are_read_page_by_page_back_to_the_time_of_sending(batch: EncodedBatch) -> None:
    """And not further: an account may have thousands of old batches."""
    pages = [
        listed(a_batch(9), a_batch(8), more=True),
        listed(a_batch(7), a_batch(6, tag=TAG), more=True),
        listed(a_batch(5, at=SENT - 90_000), more=True),
        listed(a_batch(4), more=True),
    ]
    with connected(*pages) as (provider, server):
        assert provider.find(batch, FORM) == Found("batch_6")
    assert [asked.query.get("after") for asked in server.asked] == [None, "batch_8", "batch_6"]


@pytest.mark.parametrize(
    "page", [listed(more=True), listed(a_batch(9), more=True), Say(body=[a_batch(9)]), Say(body={"data": [5, "x"]})]
)
def test_reading_a_list_always_ends(page: Say, batch: EncodedBatch) -> None:
    """Also one that promises more and brings the same, or is another shape."""
    with connected(page, now=SENT + 5) as (provider, server), pytest.raises(UnknownOutcome):
        provider.find(batch, FORM)
    assert len(server.asked) <= 4


@pytest.mark.parametrize("said", [{}, None, "x", 5, {"data": None}, {"data": {}}])
def test_what_is_no_list_is_an_error(said: Any, batch: EncodedBatch) -> None:
    """Not an empty one, after which the batch would be sent again."""
    for script in ([Say(body=said)], [listed(), Say(body=said)]):
        with connected(*script) as (provider, server), pytest.raises(Transient):
            provider.find(batch, FORM)
        assert {asked.method for asked in server.asked} == {"GET"}


def test_of_two_the_oldest_stays(batch: EncodedBatch, caplog: pytest.LogCaptureFixture) -> None:
    """The other is cancelled, and both are told."""
    page = listed(a_batch(9, tag=TAG, at=SENT + 90), a_batch(8), a_batch(7, tag=TAG, at=SENT + 80))
    with connected(page, Say(body=a_batch(9, status="cancelling"))) as (provider, server):
        assert provider.find(batch, FORM) == Found("batch_7", copies=("batch_9",))
    assert (server.asked[1].method, server.asked[1].path) == ("POST", "/v1/batches/batch_9/cancel")
    assert len(server.asked) == 2
    assert "batch_7 is kept, batch_9 is cancelled" in caplog.text


@pytest.mark.parametrize("status", ["failed", "cancelled", "cancelling", "FAILED"])
def test_of_two_one_that_can_still_answer_stays(status: str, batch: EncodedBatch) -> None:
    """One that failed, or was cancelled the last time, is not what is waited for."""
    page = listed(a_batch(9, tag=TAG, at=SENT + 90), a_batch(7, tag=TAG, at=SENT + 80, status=status))
    with connected(page, CREATED) as (provider, _):
        assert provider.find(batch, FORM) == Found("batch_9", copies=("batch_7",))


def test_a_batch_that_is_listed_twice_is_one(batch: EncodedBatch) -> None:
    """A list that moves while it is read shows one again; it is not cancelled."""
    pages = [listed(a_batch(7, tag=TAG), more=True), listed(a_batch(7, tag=TAG), a_batch(6))]
    with connected(*pages) as (provider, server):
        assert provider.find(batch, FORM) == Found("batch_7")
    assert {asked.method for asked in server.asked} == {"GET"}


def test_one_too_many_that_can_not_be_cancelled_is_told(batch: EncodedBatch, caplog: pytest.LogCaptureFixture) -> None:
    """The batch is found all the same."""
    page = listed(a_batch(9, tag=TAG, at=SENT + 90), a_batch(7, tag=TAG, at=SENT + 80))
    with connected(page, refusal(409, None), Say(body=a_batch(9))) as (provider, _):
        assert provider.find(batch, FORM) == Found("batch_7", copies=("batch_9",))
    assert "will be billed" in caplog.text


def test_an_empty_list_proves_nothing_for_a_while(batch: EncodedBatch) -> None:
    """New batches can stay invisible for minutes: nothing is sent, and it says how long."""
    with connected(listed(), now=SENT + 400) as (provider, server), pytest.raises(UnknownOutcome) as caught:
        provider.find(batch, FORM)
    assert caught.value.retry_after == 200
    assert "counts as not accepted in 200 s" in caught.value.message
    assert {asked.method for asked in server.asked} == {"GET"}


def test_after_a_while_a_batch_that_is_not_there_was_never_accepted(batch: EncodedBatch) -> None:
    """Nothing is sent here: sending its requests again is a batch of its own."""
    with connected(listed(), listed(a_batch(9)), now=SENT + 601) as (provider, server):
        assert provider.find(batch, FORM) is None
    assert {asked.method for asked in server.asked} == {"GET"}


def test_the_time_runs_from_the_last_upload(batch: EncodedBatch) -> None:
    """A large file takes its time, and the batch is only made after it."""
    script = [listed(), listed(a_file(8, at=SENT + 9000), a_file(7))]
    with connected(*script, now=SENT + 9100) as (provider, _), pytest.raises(UnknownOutcome) as caught:
        provider.find(batch, FORM)
    assert caught.value.retry_after == 500
    with connected(*script, now=SENT + 9601) as (provider, _):
        assert provider.find(batch, FORM) is None


def test_the_time_runs_from_the_lost_answer(batch: EncodedBatch) -> None:
    """Which may be long after the intent, also if the upload is not listed yet."""
    with connected(UPLOADED, Drop(), listed(), now=SENT + 700) as (provider, server):
        with pytest.raises(UnknownOutcome, match="broke"):
            provider.submit(batch, FORM)
        with pytest.raises(UnknownOutcome, match="600 s"):
            provider.find(batch, FORM)
    assert [asked.method for asked in server.asked].count("POST") == 2


def test_without_a_time_nothing_is_sent(batch: EncodedBatch) -> None:
    """Nobody can tell how long ago it was; the way to look for it is told."""
    timeless = EncodedBatch(batch.path, batch.requests, batch.bytes, batch.sha256, batch.tag)
    with connected(listed()) as (provider, server), pytest.raises(UnknownOutcome) as caught:
        provider.find(timeless, FORM)
    assert FILENAME in caught.value.next_step
    assert {asked.method for asked in server.asked} == {"GET"}


def test_the_time_to_settle_can_be_set(batch: EncodedBatch) -> None:
    """A service that lists at once needs none."""
    with connected(listed(), now=SENT, settle=0) as (provider, _):
        assert provider.find(batch, FORM) is None


# --- poll and cancel


@pytest.mark.parametrize(
    ("wording", "phase"),
    [
        ("validating", BatchPhase.RUNNING),
        ("in_progress", BatchPhase.RUNNING),
        ("finalizing", BatchPhase.RUNNING),
        ("cancelling", BatchPhase.RUNNING),
        ("completed", BatchPhase.ENDED),
        ("expired", BatchPhase.ENDED),
        ("cancelled", BatchPhase.ENDED),
        ("failed", BatchPhase.FAILED),
        ("VALIDATING", BatchPhase.RUNNING),
        ("IN_PROGRESS", BatchPhase.RUNNING),
        ("COMPLETED", BatchPhase.ENDED),
        ("EXPIRED", BatchPhase.ENDED),
        ("CANCELLED", BatchPhase.ENDED),
        ("FAILED", BatchPhase.FAILED),
        ("something new", BatchPhase.RUNNING),
        ("", BatchPhase.RUNNING),
    ],
)
def test_each_state_is_a_phase(wording: str, phase: BatchPhase) -> None:
    """From a word that we don't know nothing is concluded."""
    counts = {"total": 200, "completed": 90, "failed": 10}
    said = a_batch(1, status=wording, request_counts=counts, errors=None)
    with connected(Say(body=said)) as (provider, server):
        status = provider.poll("batch_1")
    assert status == BatchStatus(
        "batch_1", phase, wording or "unknown", created_at=datetime.fromtimestamp(SENT + 60, UTC)
    )
    assert (server.asked[0].method, server.asked[0].path) == ("GET", "/v1/batches/batch_1")


@pytest.mark.parametrize(
    "extra",
    [
        {}, {"status": None}, {"status": 5}, {"status": {}}, {"request_counts": None}, {"request_counts": {}},
        {"request_counts": {"total": None, "completed": None}}, {"request_counts": {"total": "5", "completed": -1}},
        {"request_counts": [1]}, {"created_at": "soon"}, {"created_at": 1e300}, {"created_at": {}}, {"errors": {}},
        {"errors": {"data": None}}, {"errors": {"data": []}}, {"errors": []}, {"errors": [None, {}]},
    ],
    ids=str,
)  # fmt: skip
def test_a_batch_may_say_little(extra: dict[str, Any]) -> None:
    """Without a word that is known it is running."""
    status = read_status({"id": "b", **extra})
    assert (status.phase, status.error) == (BatchPhase.RUNNING, None)
    assert status.created_at is None


def test_dates_may_be_text() -> None:
    """Together writes ISO 8601, with or without a zone."""
    expected = datetime(2026, 11, 22, 8, tzinfo=UTC)
    for text in ("2026-11-22T08:00:00Z", "2026-11-22T08:00:00", "2026-11-22T10:00:00+02:00"):
        assert read_status({"id": "b", "created_at": text}).created_at == expected


QUEUE = {
    "code": "token_limit_exceeded",
    "message": "Enqueued token limit reached for gpt-4.1",
    "param": None,
    "line": None,
}
BAD_LINE = {"code": "invalid_json_line", "message": "This line is not parseable.", "param": None, "line": 12}


@pytest.mark.parametrize(
    ("errors", "obstacle", "said"),
    [
        ({"object": "list", "data": [QUEUE]}, Obstacle.QUEUE_FULL, f"token_limit_exceeded: {QUEUE['message']}"),
        ({"data": [BAD_LINE]}, None, "invalid_json_line: This line is not parseable. (line 12)"),
        ({"data": [BAD_LINE, QUEUE]}, Obstacle.QUEUE_FULL, f"token_limit_exceeded: {QUEUE['message']} (and 1 more)"),
        ([BAD_LINE], None, "invalid_json_line: This line is not parseable. (line 12)"),
        ({"message": "no"}, None, "no"),
        ("no", None, "no"),
        ({"data": [{"code": "empty_file"}]}, None, "empty_file"),
        ({"data": [{"param": "x"}]}, None, "no reason given"),
        ({"data": [{"code": "too_many_tasks"}]}, Obstacle.TOO_LARGE, "too_many_tasks"),
        (None, None, None),
    ],
)
def test_a_failed_batch_says_why(errors: Any, obstacle: Obstacle | None, said: str | None) -> None:
    """A full queue, which passes, and a batch that is too large are told by their codes."""
    status = read_status(a_batch(1, status="failed", errors=errors))
    assert (status.phase, status.obstacle, status.error) == (BatchPhase.FAILED, obstacle, said)


def test_a_failed_batch_with_answers_has_ended() -> None:
    """They were paid."""
    assert read_status({"id": "b", "status": "FAILED", "output_file_id": "file-1"}).phase is BatchPhase.ENDED
    assert read_status({"id": "b", "status": "failed", "output_file_id": {}}).phase is BatchPhase.FAILED


@pytest.mark.parametrize("said", [{}, [], None, "running", 5, {"status": "completed"}, {"id": None}, {"job": 5}])
def test_what_is_no_batch_is_an_error_of_the_provider(said: Any) -> None:
    """Not a traceback, and not a batch without answers."""
    with connected(Say(200, said)) as (provider, _):
        for call in (provider.poll, provider.cancel, lambda batch_id: list(provider.results(batch_id, FORM))):
            with pytest.raises(ProviderError) as caught:
                call("b-1")
            assert caught.value.provider == "openai"


def test_a_batch_that_is_not_known_is_not_found() -> None:
    """It may not be visible yet: that is the caller's to judge."""
    with connected(refusal(404, None)) as (provider, _), pytest.raises(NotFound):
        provider.poll("batch_1")


def test_cancelling_is_asked_for_and_told() -> None:
    """The batch's own word for it."""
    with connected(Say(body=a_batch(1, status="cancelling"))) as (provider, server):
        assert provider.cancel("batch_1").wording == "cancelling"
    assert (server.asked[0].method, server.asked[0].path) == ("POST", "/v1/batches/batch_1/cancel")


def test_a_batch_that_ended_before_it_was_cancelled_is_told_as_it_is() -> None:
    """The service refuses; one that still runs is a refusal in earnest."""
    with connected(refusal(409, None), Say(body=a_batch(1, status="completed"))) as (provider, _):
        assert provider.cancel("batch_1").phase is BatchPhase.ENDED
    with connected(refusal(409, None), Say(body=a_batch(1))) as (provider, _), pytest.raises(BatchRefused):
        provider.cancel("batch_1")


# --- results


def done(output: Any = "file-o", errors: Any = "file-e", **changes: Any) -> Say:
    return Say(body=a_batch(1, status="completed", output_file_id=output, error_file_id=errors, **changes))


def chat(text: Any = "x", finish: Any = "stop", **message: Any) -> dict[str, Any]:
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"content": text, **message}, "finish_reason": finish}],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 2},
        },
    }


def row(number: int, body: Any = None, status: Any = 200, error: Any = None) -> dict[str, Any]:
    response = {"status_code": status, "request_id": "r", "body": chat() if body is None else body}
    return {"id": "batch_req_1", "custom_id": f"run-{number}-1", "response": response, "error": error}


def ended(number: int, code: str) -> dict[str, Any]:
    return {"id": "r", "custom_id": f"run-{number}-1", "response": None, "error": {"code": code, "message": "why"}}


def file(*rows: Any) -> Say:
    return Say(body=b"".join(json.dumps(item).encode() + b"\n" for item in rows))


def test_both_files_are_read(batch: EncodedBatch) -> None:
    """Whatever the counters say."""
    script = [
        done(request_counts={"total": 3, "completed": 3, "failed": 0}),
        file(row(1), row(0)),
        file(ended(2, "batch_expired")),
    ]
    with connected(*script) as (provider, server):
        found = list(provider.results("batch_1", FORM))
    assert [answer.custom_id for answer in found] == ["run-1-1", "run-0-1", "run-2-1"]
    assert [asked.path for asked in server.asked] == [
        "/v1/batches/batch_1", "/v1/files/file-o/content", "/v1/files/file-e/content",
    ]  # fmt: skip


def test_all_that_both_files_say_of_a_request_is_told() -> None:
    """Which of it counts is decided by whoever sent it."""
    with connected(done(), file(row(1)), file(ended(1, "batch_expired"), ended(2, "x"))) as (provider, _):
        found = list(provider.results("batch_1", FORM))
    assert [(answer.custom_id, answer.text) for answer in found] == [
        ("run-1-1", "x"), ("run-1-1", None), ("run-2-1", None),
    ]  # fmt: skip


@pytest.mark.parametrize("absent", [None, {}, ""])
def test_either_file_may_be_absent(absent: Any, caplog: pytest.LogCaptureFixture) -> None:
    """All failed: no output. All succeeded: no errors."""
    with connected(done(output=absent), file(row(1, status=500))) as (provider, _):
        assert [answer.text for answer in provider.results("batch_1", FORM)] == [None]
    with connected(done(errors=absent), file(row(1))) as (provider, _):
        assert [answer.text for answer in provider.results("batch_1", FORM)] == ["x"]
    assert not caplog.records
    nothing = {"total": 2, "completed": 0, "failed": 0}
    with connected(done(absent, absent, request_counts=nothing)) as (provider, _):
        assert not list(provider.results("batch_1", FORM))
    assert "neither an output nor an error file" in caplog.text


@pytest.mark.parametrize(
    ("output", "counts"),
    [
        (None, {"total": 2, "completed": 2, "failed": 0}),
        (None, None),
        (None, {}),
        (5, None),
        ({"href": "https://x.example"}, None),
        (["a", "b"], None),
    ],
)
def test_a_file_that_is_not_named_yet_or_not_understood_is_never_an_empty_result(output: Any, counts: Any) -> None:
    """Some services name it seconds after the batch has ended; what they mean by other things nobody knows."""
    asked_for = connected(done(output, None, request_counts=counts))
    with asked_for as (provider, server), pytest.raises(Incomplete) as caught:
        list(provider.results("batch_1", FORM))
    assert (caught.value.fewer, len(server.asked)) == (0, 1)


@pytest.mark.parametrize("named", [{"id": "file-o"}, {"file_id": "file-o", "object": "file"}, ["file-o"]])
def test_a_file_may_be_named_by_an_object(named: Any) -> None:
    """One server of Mistral's models does so."""
    with connected(done(named, None), file(row(1))) as (provider, server):
        assert [answer.text for answer in provider.results("batch_1", FORM)] == ["x"]
    assert server.asked[1].path == "/v1/files/file-o/content"


def test_files_that_are_gone_are_told() -> None:
    """Not an empty result."""
    with connected(done(), refusal(404, None)) as (provider, _), pytest.raises(NotFound):
        list(provider.results("batch_1", FORM))
    with connected(done(), file(row(1)), refusal(404, None)) as (provider, _), pytest.raises(NotFound):
        list(provider.results("batch_1", FORM))


def test_lines_that_can_not_be_read_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """As answers that name nobody; their content is in no log."""
    bad = [
        b"",
        b"  ",
        b"{secret",
        b"[]",
        b"null",
        b"5",
        b'{"custom_id":null}',
        b'{"custom_id":5}',
        b'{"id":"x"}',
        b"\xff",
    ]
    good = [json.dumps(row(n)).encode() for n in range(2)]
    with connected(done(errors=None), Say(body=b"\n".join([good[0], *bad, good[1]]))) as (provider, _):
        found = list(provider.results("batch_1", FORM))
    assert [answer.custom_id for answer in found if answer.custom_id] == ["run-0-1", "run-1-1"]
    assert [answer.failure for answer in found if not answer.custom_id] == [UNREADABLE] * 8
    assert "8 lines of the batch batch_1 name no request" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "secret" not in caplog.text


LINES = [json.dumps(row(n, chat("ü" * n))).encode() for n in range(300)]
BODY = b"\r\n".join(LINES)  # the last without an end


@pytest.mark.parametrize("cut", [0, 1, 100, len(BODY) // 2, len(BODY) - 1])
@pytest.mark.parametrize("reset", [False, True])
def test_a_download_that_breaks_is_read_anew(cut: int, monkeypatch: pytest.MonkeyPatch, *, reset: bool) -> None:
    """From its start: the second time it may have another order, and two halves are never joined."""
    monkeypatch.setattr("blocks.transport.DOWNLOAD_CHUNK", 1000)
    part = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY[:cut]
    again = Say(body=b"\r\n".join(reversed(LINES)))
    with connected(done(errors=None), Drop(after=part, reset=reset), Say(503), again) as (provider, server):
        found = {answer.custom_id: answer.text for answer in once_each(provider.results("batch_1", FORM)).values()}
    assert found == {f"run-{n}-1": "ü" * n for n in range(300)}
    assert len(server.asked) == 4


HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"


@pytest.mark.parametrize(
    "content",
    [
        Say(body=HTML, headers={"content-type": "text/html"}),
        Say(body=b"\n  " + HTML),
        Say(body=LINES[0], headers={"content-type": "text/html; charset=utf-8"}),
        Say(body=b"upstream connect error"),
        Say(body=b'{"error": {"message": "no healthy upstream"}}'),
        Say(body=b""),
    ],
)
def test_what_a_proxy_answers_is_no_result(content: Say) -> None:
    """However often it comes, no request counts as unanswered for it."""
    with connected(done(errors=None), content) as (provider, _), pytest.raises(Incomplete) as caught:
        list(provider.results("batch_1", FORM))
    assert caught.value.fewer in {0, UNCOUNTED}
    assert caught.value.fewer == 0 or not content.body


def test_a_page_in_the_place_of_results_is_asked_for_again_at_once() -> None:
    """Also one in whole lines that says of itself that it is data."""
    whole = Say(body=BODY)
    with connected(done(errors=None), Say(body=HTML + b"\n"), whole) as (provider, server):
        assert len(list(provider.results("batch_1", FORM))) == len(LINES)
    assert len(server.asked) == 3


@pytest.mark.parametrize("kept", [1, 150, 299])
@pytest.mark.parametrize("torn", [0, 5])
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_ends_early_is_not_whole(kept: int, torn: int, *, packed: bool) -> None:
    """Where a body is delimited by the end of the connection, its last line and the counters tell."""
    body = b"\n".join([*LINES[:kept], LINES[kept][:torn]])
    headers = b"content-encoding: gzip\r\n" if packed else b""
    cut = Drop(after=b"HTTP/1.0 200 OK\r\n" + headers + b"\r\n" + (gzip.compress(body) if packed else body))
    counts = {"total": 300, "completed": 299, "failed": 1}
    with connected(done(errors=None, request_counts=counts), cut) as (provider, _), pytest.raises(Incomplete) as caught:
        list(provider.results("batch_1", FORM))
    assert caught.value.fewer == (UNCOUNTED if torn else 300 - kept)


def test_a_packed_file_that_ends_early_is_not_whole() -> None:
    """Though it has lines enough for a service that does not count them."""
    packed = gzip.compress(BODY)
    cut = Drop(after=b"HTTP/1.0 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + packed[: len(packed) // 2])
    with connected(done(errors=None, request_counts=None), cut) as (provider, _), pytest.raises(Transient):
        list(provider.results("batch_1", FORM))


def test_a_file_that_explodes_when_it_is_unpacked_is_left() -> None:
    """400 KB that become 400 MB: memory stays flat, and none of it is taken for an answer."""
    bomb = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    zeros = b"0" * 2**20
    body = b"".join([*(bomb.compress(zeros) for _ in range(400)), bomb.flush()])
    said = Say(body=body, headers={"content-encoding": "gzip"})
    with connected(done(errors=None), said) as (provider, _):
        tracemalloc.start()
        try:
            with pytest.raises(Transient):
                list(provider.results("batch_1", FORM))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 100_000_000


def test_a_line_that_is_too_long_is_an_answer_that_nobody_can_read() -> None:
    """It was billed; the others are read, and memory stays flat."""
    long = json.dumps(row(1, chat("x" * 40_000_000))).encode()
    with connected(done(errors=None), Say(body=b"\n".join([LINES[0], long, LINES[2]]))) as (provider, _):
        tracemalloc.start()
        try:
            found = [(answer.custom_id, answer.failure) for answer in provider.results("batch_1", FORM)]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert found == [("run-0-1", None), ("run-1-1", TOO_LONG), ("run-2-1", None)]
    assert peak < 120_000_000


@pytest.mark.parametrize(
    ("line", "text", "failure"),
    [
        (json.dumps(row(1, chat("a\ud83d!"))), "a\ufffd!", None),
        (json.dumps({**row(1), "score": float("nan"), "other": float("-inf")}), "x", None),
        (json.dumps(row(1)).replace('"x"', '"\xff"'), "\ufffd", None),
        ("\ufeff" + json.dumps(row(1)), "x", None),
        (json.dumps(row(1))[:-9], None, UNREADABLE),
        (json.dumps(row(1)).replace('"x"', "[" * 100_000), None, UNREADABLE),
        (json.dumps(row(1)).replace(" 7", " " + "7" * 5_000), None, UNREADABLE),
    ],
    ids=["half a pair", "NaN", "no UTF-8", "mark", "torn", "deep", "long number"],
)
def test_a_line_is_read_wherever_it_can_be(line: str, text: str | None, failure: Failure | None) -> None:
    """What can't be read but names a request is an answer to it, of which nobody knows what it cost."""
    content = line.encode("latin-1" if "\xff" in line else "utf-8")
    with connected(done(errors=None), Say(body=content + b"\n" + LINES[0])) as (provider, _):
        first, second = provider.results("batch_1", FORM)
    assert (first.custom_id, first.text, first.failure) == ("run-1-1", text, failure)
    assert second.custom_id == "run-0-1"


def test_a_download_can_be_left() -> None:
    """Whoever wants no more answers keeps no connection."""
    with connected(done(errors=None), Say(body=BODY * 2000)) as (provider, _):
        answers = provider.results("batch_1", FORM)
        assert next(answers).custom_id == "run-0-1"
        assert isinstance(answers, Iterator)
        answers.close()  # type: ignore[attr-defined]  # a generator


def test_memory_does_not_grow_with_the_file() -> None:
    """60 MB go through in a few chunks."""
    body = b"\n".join([json.dumps(row(1, chat("x" * 10_000))).encode()] * 6000)
    with connected(done(errors=None), Say(body=body)) as (provider, _):
        tracemalloc.start()
        try:
            assert sum(1 for _ in provider.results("batch_1", FORM)) == 6000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 5_000_000


USAGE = Usage(7, 3, 2)


def transient(code: str, message: str) -> Failure:
    return Failure(FailureKind.TRANSIENT, code, message)


def final(code: str, message: str) -> Failure:
    return Failure(FailureKind.TERMINAL, code, message)


def paid(failure: Failure) -> Failure:
    """One that an answer of the model stands behind."""
    return failure._replace(billed=True)


CUT = paid(Failure(FailureKind.CUT_OFF, "length", "the answer was cut off at the limit of output tokens"))
FILTERED = paid(Failure(FailureKind.FILTERED, "content_filter", "the provider's filter stopped the answer"))
REFUSED = paid(Failure(FailureKind.REFUSED, "refusal", "I can't."))


def said_no(code: str | None, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": "why", "type": kind, "param": None, "code": code}}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (row(1), ("x", USAGE, None)),
        (row(1, chat("")), ("", USAGE, None)),
        (row(1, chat(None)), ("", USAGE, None)),
        (row(1, chat([{"type": "text", "text": "a"}, {"type": "image"}, "b", 5])), ("ab", USAGE, None)),
        (row(1, chat(finish=None)), ("x", USAGE, None)),
        (row(1, chat(finish={})), ("x", USAGE, None)),
        (row(1, chat(finish="eos")), ("x", USAGE, None)),
        (row(1, chat(refusal={})), ("x", USAGE, None)),
        (row(1, json.dumps(chat())), ("x", USAGE, None)),
        (row(1, error={}), ("x", USAGE, None)),
        (row(1, status=None), ("x", USAGE, None)),
        (row(1, chat(None, refusal="I can't.")), (None, USAGE, REFUSED)),
        (row(1, chat("half", "length")), (None, USAGE, CUT)),
        (row(1, chat("half", "content_filter")), (None, USAGE, FILTERED)),
        (row(1, {"choices": []}), (None, None, transient("no_answer", "the answer has no message"))),
        (row(1, {"choices": [None]}), (None, None, transient("no_answer", "the answer has no message"))),
        (row(1, "{broken"),
         (None, None, transient("no_answer", "the provider gave neither an answer nor a reason"))),
        (row(1, {}, 0), (None, None, transient("http_0", "the provider answered 0 and gave no reason"))),
        (row(1, said_no("rate_limit_exceeded"), 429), (None, None, transient("rate_limit_exceeded", "why"))),
        (row(1, said_no(None, "server_error"), 500), (None, None, transient("server_error", "why"))),
        (row(1, {}, 503), (None, None, transient("http_503", "the provider answered 503 and gave no reason"))),
        (row(1, said_no(None), 400), (None, None, final("invalid_request_error", "why"))),
        (row(1, json.dumps(said_no("context_length_exceeded")), 400),
         (None, None, final("context_length_exceeded", "why"))),
        (row(1, said_no("model_not_found"), 404), (None, None, final("model_not_found", "why"))),
        (row(1, said_no(None), 408), (None, None, transient("invalid_request_error", "why"))),
        (row(1, said_no("content_policy_violation")),
         (None, None, Failure(FailureKind.FILTERED, "content_policy_violation", "why"))),
        (ended(1, "batch_expired"), (None, None, Failure(FailureKind.NOT_RUN, "batch_expired", "why"))),
        (ended(1, "batch_cancelled"), (None, None, Failure(FailureKind.NOT_RUN, "batch_cancelled", "why"))),
        (ended(1, "request_timeout"), (None, None, transient("request_timeout", "why"))),
        (ended(1, "new"), (None, None, transient("new", "why"))),
        (row(1, error="broken"), (None, USAGE, transient("unknown", "broken"))),
        (row(1, error={"code": 429}), (None, USAGE, transient("429", "the provider gave no reason"))),
        ({"custom_id": "run-1-1"},
         (None, None, transient("no_answer", "the provider gave neither an answer nor a reason"))),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_each_line_is_an_answer(line: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """What passes goes again, what is final does not, what never ran is excused."""
    assert read_row(line, FORM) == Answer("run-1-1", *expected)


def response(*content: Any, status: Any = "completed", reason: Any = None, error: Any = None) -> dict[str, Any]:
    return {
        "object": "response",
        "status": status,
        "error": error,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": [{"type": "reasoning", "summary": []}, {"type": "message", "content": list(content)}],
        "usage": {"input_tokens": 7, "input_tokens_details": {"cached_tokens": 2}, "output_tokens": 3},
    }


A, B = {"type": "output_text", "text": "a"}, {"type": "output_text", "text": "b"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (response(A, B), ("ab", USAGE, None)),
        (response(A, status=None), ("a", USAGE, None)),
        (response(), ("", USAGE, None)),
        (response({"type": "refusal", "refusal": "I can't."}), (None, USAGE, REFUSED)),
        (response(A, status="incomplete", reason="max_output_tokens"), (None, USAGE, CUT)),
        (response(A, status="incomplete", reason="content_filter"), (None, USAGE, FILTERED)),
        (response(A, status="incomplete"), (None, USAGE, paid(transient("incomplete", "")))),
        (response(status="failed", error={"code": "server_error", "message": "why"}),
         (None, USAGE, transient("server_error", "why"))),
        (response(status="failed", error={"code": "invalid_prompt", "message": "why"}),
         (None, USAGE, final("invalid_prompt", "why"))),
        ({"output": None}, ("", None, None)),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_each_response_is_an_answer(body: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """The other endpoint's bodies, by the same rules."""
    assert read_row(row(1, body), FORM) == Answer("run-1-1", *expected)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 3}, Usage(7, 3)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0)),
        ({"input_tokens": 7, "output_tokens": 3}, Usage(7, 3)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": None}, Usage(7, 3)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 9}}, Usage(7, 3, 7)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": -1}}, Usage(7, 3)),
        ({"prompt_tokens": 7}, None),
        ({"prompt_tokens": "7", "completion_tokens": 3}, None),
        ({"prompt_tokens": -7, "completion_tokens": 3}, None),
        ({"prompt_tokens": 10**300, "completion_tokens": 3}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
    ids=str,
)  # fmt: skip
def test_tokens_that_are_not_named_are_not_free(usage: Any, expected: Usage | None) -> None:
    """They are unknown."""
    answer = read_row(row(1, {**chat(), "usage": usage}), FORM)
    assert answer is not None
    assert answer.usage == expected


WORDS = [
    "id", "status", "errors", "error", "data", "code", "message", "custom_id", "response", "status_code", "body",
    "choices", "output", "content", "usage", "finish_reason", "incomplete_details", "reason", "text", "type",
    "refusal", "created_at", "request_counts", "total", "completed", "prompt_tokens", "completion_tokens",
    "prompt_tokens_details", "metadata", "job",
]  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(WORDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(json_values, json_values)
def test_no_answer_is_too_strange(thing: Any, other: Any) -> None:
    """Whatever JSON comes, it is read or refused as a provider's error."""
    bodies = [thing, {"choices": [thing], "usage": other}, {"choices": [{"message": thing, "finish_reason": other}]}]
    bodies += [{"output": thing, "status": other}, {"output": [{"content": thing}], "incomplete_details": other}]
    lines = [thing, {"custom_id": "a", "response": thing, "error": other}]
    lines += [row(1, body, status) for body in bodies for status in (200, other)]
    for line in lines:
        answer = read_row(line, FORM)
        assert answer is None or (answer.text is None) != (answer.failure is None)
    for batch in (thing, {"id": "b", "status": thing, "errors": other, "request_counts": thing, "created_at": other}):
        with suppress(ProviderError):
            read_status(batch)


def test_nothing_there_is_a_providers_error(batch: EncodedBatch) -> None:
    """Every call, every time."""
    with connected(Drop()) as (provider, _):
        for call in (
            lambda: provider.submit(batch, FORM),
            lambda: provider.find(batch, FORM),
            lambda: provider.poll("b"),
            lambda: list(provider.results("b", FORM)),
            lambda: provider.cancel("b"),
        ):
            with pytest.raises(Transient) as caught:
                call()
            assert caught.value.provider == "openai"
            assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("cost", "pico"),
    [(0.000123, 123_000_000), (0, 0), (-1, 0), ("0.1", 0), (None, 0), (True, 0), (1e9, 0), (1, 10**12)],
    ids=str,
)
def test_what_a_gateway_says_an_answer_costs_is_read(cost: Any, pico: int) -> None:
    """In dollars, beside the tokens; what is no sum says nothing."""
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "cost": cost}
    answer = read_row(row(1, {**chat(), "usage": usage}), FORM)
    assert answer is not None
    assert answer.usage == Usage(5, 3, stated_cost=pico)
