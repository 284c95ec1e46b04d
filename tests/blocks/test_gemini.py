"""Gemini's dialect over a real socket: requests in the call or in a file, and answers that say whose they are."""

import json
import logging
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
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
    PollPlan,
    RequestForm,
    Usage,
)
from blocks.errors import (
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
from blocks.providers.gemini import LIMITS
from blocks.providers.gemini.answers import UNPROVEN, RowReader
from blocks.providers.gemini.batches import INLINE_BYTES, INLINE_REQUESTS, Gemini
from blocks.providers.gemini.codec import ECHO, ECHO_TOKENS, GeminiCodec, echo_of, read_status
from blocks.providers.gemini.errors import complaint_of, read_error
from blocks.providers.reading import UNREADABLE
from blocks.providers.reconciling import SLOWEST_UPLOAD
from tests.blocks.scripted import Asked, Drop, Say, Server, Step, serving

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}
FORM = RequestForm("gemini-2.5-flash", "Be brief.", SCHEMA, 200)
PLAIN = RequestForm("gemini-2.5-flash")
KEY = "AIzaSyVerySecretVerySecret-1234"
TAG = "abcd2345-7"
SENT = 1_795_334_400.0  # when the batch of these tests was sent
CREATED = Say(body={"name": "batches/b1", "metadata": {"state": "BATCH_STATE_PENDING"}})
CREATE, LIST = "/v1beta/models/gemini-2.5-flash:batchGenerateContent", "/v1beta/batches"


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Retries without waiting."""
    with stamina.set_testing(True, attempts=3):  # stamina's own
        yield


@contextmanager
def connected(*script: Step, now: float = SENT + 10_000, **options: Any) -> Iterator[tuple[Gemini, Server]]:
    with serving(*script) as server:
        provider = Gemini(KEY, server.url, clock=lambda: now, **options)
        try:
            yield provider, server
        finally:
            provider.close()


@pytest.fixture
def batch(tmp_path: Path) -> EncodedBatch:
    form = GeminiCodec(FORM)
    prompts = ["text 0", 'two\nlines, "request":{"key":"x"}', "ü \u2028"]
    content = form.head + form.separator.join(form.encode(f"{TAG}-{n}-1", p) for n, p in enumerate(prompts)) + form.tail
    (tmp_path / "body").write_bytes(content)
    return EncodedBatch(tmp_path / "body", 3, len(content), "hash", TAG, sent_at=SENT)


def larger(batch: EncodedBatch, **changes: Any) -> EncodedBatch:
    known = {"requests": batch.requests, "bytes": batch.bytes, "sent_at": batch.sent_at, **changes}
    return EncodedBatch(batch.path, sha256=batch.sha256, tag=batch.tag, **known)


def encoded(form: RequestForm, *arguments: Any, longer: bool = False) -> Any:
    """The request of an encoded line."""
    return json.loads(GeminiCodec(form).encode("run-1-1", *arguments, longer=longer))["request"]


# --- requests

open_schema = {"type": "object", "additionalProperties": {"type": "string"}}


@given(
    st.text(),
    st.none() | st.text(min_size=1),
    st.sampled_from([None, SCHEMA, open_schema, {"enum": ["a"]}]),
    st.booleans(),
)
def test_an_encoded_request_is_one_line_of_json(prompt: str, system: str | None, schema: Any, longer: bool) -> None:
    """Put together from pieces, it is what an encoder would have made of the whole."""
    line = GeminiCodec(RequestForm("m", system, schema, 9)).encode("run-1-1", prompt, longer=longer)
    assert b"\n" not in line
    row = json.loads(line)
    assert (list(row), row["key"]) == (["key", "request"], "run-1-1")
    (said,) = row["request"]["contents"]
    assert (said["role"], said["parts"][0]) == ("user", {"text": prompt})
    assert len(said["parts"]) == 1 + (schema is open_schema)
    limit = row["request"]["generationConfig"]["maxOutputTokens"]
    assert limit == (9 * LONGER if longer else 9) + (ECHO_TOKENS if echo_of(schema) else 0)


def test_a_request_is_as_documented() -> None:
    """System text, prompt, temperature, limit, and a schema that asks for the request's own key first."""
    assert encoded(RequestForm("m", "Be brief.", SCHEMA, 200, 0.0), "Hi") == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "generationConfig": {
            "temperature": 0.0,
            "maxOutputTokens": 200 + ECHO_TOKENS,
            "responseMimeType": "application/json",
            "responseJsonSchema": {
                **SCHEMA,
                "properties": {ECHO: {"type": "string", "enum": ["run-1-1"]}, **SCHEMA["properties"]},
                "required": [ECHO, "label"],
            },
        },
    }
    schema = encoded(FORM, "Hi")["generationConfig"]["responseJsonSchema"]
    assert list(schema["properties"]) == [ECHO, "label"]


def test_what_is_not_asked_for_is_not_sent() -> None:
    """No system text, no schema, no limit, also for a longer answer."""
    for longer in (False, True):
        assert encoded(PLAIN, "Hi", longer=longer) == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


def test_the_echo_has_a_name_of_its_own() -> None:
    """A job may use ours."""
    schema = {"type": "object", "properties": {ECHO: {"type": "string"}, f"{ECHO}_": {"type": "string"}}}
    sent = encoded(RequestForm("m", schema=schema), "Hi")["generationConfig"]["responseJsonSchema"]
    assert list(sent["properties"]) == [f"{ECHO}__", ECHO, f"{ECHO}_"]
    assert sent["properties"][f"{ECHO}__"]["enum"] == ["run-1-1"]


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_schema_that_can_not_be_given_is_said_in_words(system: str | None) -> None:
    """Whole, in the system text; the key to echo stands at the end of the prompt. JSON is asked for all the same."""
    request = encoded(RequestForm("m", system, open_schema), "Hi")
    assert request["generationConfig"] == {"responseMimeType": "application/json"}
    said = request["systemInstruction"]["parts"][0]["text"]
    assert said.startswith("Be brief.\n\n") is (system is not None)
    schema = json.loads(said.splitlines()[-1])
    assert schema == {**open_schema, "properties": {ECHO: {"type": "string"}}, "required": [ECHO]}
    prompt, told = request["contents"][0]["parts"]
    assert (prompt["text"], told["text"]) == ("Hi", f'The value of "{ECHO}" in your answer has to be "run-1-1".')


@pytest.mark.parametrize("schema", [{"type": "array", "items": {"type": "string"}}, {"enum": ["a"]}, {}])
def test_an_answer_that_is_no_object_has_no_echo(schema: dict[str, Any]) -> None:
    """There is no place for it."""
    assert echo_of(schema) is None
    request = encoded(RequestForm("m", schema=schema), "Hi")
    assert ECHO not in json.dumps(request)
    assert json.loads(request["systemInstruction"]["parts"][0]["text"].splitlines()[-1]) == schema


TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("part", "sent"),
    [
        ({"type": "string", "minLength": 1, "pattern": "^a", "format": "email", "description": "d"},
         {"description": "d", **TEXT}),
        ({"type": "string", "format": "date-time"}, {**TEXT, "format": "date-time"}),
        ({"type": "integer", "minimum": 1, "maximum": 5, "multipleOf": 2},
         {"type": "integer", "minimum": 1, "maximum": 5}),
        ({"type": "array", "items": TEXT, "minItems": 1, "maxItems": 5},
         {"type": "array", "items": TEXT, "minItems": 1}),
        ({"type": "array", "items": TEXT, "minItems": 2}, {"type": "array", "items": TEXT}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
        ({"enum": ["a", 1, 1.5]}, {"type": ["string", "integer", "number"], "enum": ["a", 1, 1.5]}),
        ({"type": ["string", "null"], "enum": ["a", None]}, {"anyOf": [{**TEXT, "enum": ["a"]}, {"type": "null"}]}),
        ({"enum": ["a", True, False], "description": "d"},
         {"description": "d", "anyOf": [{**TEXT, "enum": ["a"]}, {"type": "boolean"}]}),
        ({"const": True}, {"type": "boolean"}),
        ({"const": None}, {"type": "null"}),
        ({"oneOf": [TEXT, {"type": "null"}]}, {"anyOf": [TEXT, {"type": "null"}]}),
    ],
    ids=str,
)  # fmt: skip
def test_a_schema_keeps_to_the_words_that_are_known(part: dict[str, Any], sent: dict[str, Any]) -> None:
    """Choices are texts and numbers; bounds that a schema can be refused for are left to the check afterwards."""
    schema = {"type": "object", "properties": {"a": part, "b": TEXT}, "required": ["b"]}
    found = encoded(RequestForm("m", schema=schema), "Hi")["generationConfig"]["responseJsonSchema"]
    assert found["properties"]["a"] == sent
    assert found["required"] == [ECHO, "b"]
    jsonschema_rs.meta.validate(found)


def test_named_parts_are_kept_unless_they_go_in_a_circle() -> None:
    """Those may stand in optional properties only."""
    named = {"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": TEXT}}
    sent = encoded(RequestForm("m", schema=named), "Hi")["generationConfig"]["responseJsonSchema"]
    assert (sent["properties"]["a"], sent["$defs"]) == ({"$ref": "#/$defs/x"}, {"x": TEXT})
    circle = {"type": "object", "properties": {"a": {"$ref": "#"}}}
    assert "responseJsonSchema" not in encoded(RequestForm("m", schema=circle), "Hi")["generationConfig"]


# --- submit


def test_a_small_batch_is_one_call(batch: EncodedBatch) -> None:
    """The model in the address, the tag as display name, the keys as metadata, the key of the API in its header."""
    with connected(CREATED) as (provider, server):
        assert provider.submit(batch, FORM) == "b1"
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", CREATE)
    assert asked.headers["x-goog-api-key"] == KEY
    assert asked.headers["content-type"] == "application/json"
    lines = [json.loads(line) for line in batch.path.read_bytes().splitlines()]
    rows = [{"request": line["request"], "metadata": {"key": line["key"]}} for line in lines]
    config = {"requests": {"requests": rows}}
    assert json.loads(asked.body) == {"batch": {"displayName": TAG, "inputConfig": config}}


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("models/gemini-3.8-flash", "/v1beta/models/gemini-3.8-flash:batchGenerateContent"),
        ("a/../b?c#d", "/v1beta/models/a%2F..%2Fb%3Fc%23d:batchGenerateContent"),
    ],
)
def test_a_model_may_be_named_in_full(model: str, path: str, batch: EncodedBatch) -> None:
    """And leads nowhere else."""
    with connected(CREATED) as (provider, server):
        provider.submit(batch, RequestForm(model))
    assert server.asked[0].path == path


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_version_is_part_of_every_path(suffix: str, batch: EncodedBatch) -> None:
    """Also where the address names it."""
    with serving(upload_at("/u?id=1"), UPLOADED, CREATED, listed(an_operation(1, tag=TAG))) as server:
        provider = Gemini(KEY, server.url + suffix, api_version="v1")
        provider.submit(larger(batch, requests=INLINE_REQUESTS + 1), FORM)
        provider.find(batch, FORM)
        provider.close()
    assert [asked.path for asked in server.asked] == [
        "/upload/v1/files", "/u", "/v1/models/gemini-2.5-flash:batchGenerateContent", "/v1/batches",
    ]  # fmt: skip


def upload_at(address: str) -> Say:
    return Say(200, {}, {"x-goog-upload-url": address, "x-goog-upload-status": "active"})


UPLOADED = Say(200, {"file": {"name": "files/f1"}}, {"x-goog-upload-status": "final"})
ADDRESS = upload_at("https://elsewhere.example/upload/v1beta/files?upload_id=u1&upload_protocol=resumable")


def assert_by_file(asked: list[Asked], batch: EncodedBatch) -> None:
    start, upload, create = asked
    assert (start.method, start.path) == ("POST", "/upload/v1beta/files")
    assert start.headers["x-goog-upload-protocol"] == "resumable"
    assert start.headers["x-goog-upload-command"] == "start"
    assert start.headers["x-goog-upload-header-content-length"] == str(batch.bytes)
    assert start.headers["x-goog-upload-header-content-type"] == "application/jsonl"
    about = {"display_name": f"batchwerk-{TAG}", "mime_type": "application/jsonl", "size_bytes": str(batch.bytes)}
    assert json.loads(start.body) == {"file": about}
    assert (upload.method, upload.path) == ("POST", "/upload/v1beta/files")
    assert upload.query == {"upload_id": "u1", "upload_protocol": "resumable"}
    assert upload.headers["x-goog-upload-command"] == "upload, finalize"
    assert upload.headers["x-goog-upload-offset"] == "0"
    assert upload.headers["content-length"] == str(batch.bytes)
    assert upload.body == batch.path.read_bytes()
    order = {"displayName": TAG, "inputConfig": {"fileName": "files/f1"}}
    assert (create.path, json.loads(create.body)) == (CREATE, {"batch": order})


def test_a_batch_of_many_requests_is_a_file_and_an_order(batch: EncodedBatch) -> None:
    """As its answers would otherwise all come with every look at it."""
    many = larger(batch, requests=INLINE_REQUESTS + 1)
    with connected(ADDRESS, UPLOADED, CREATED) as (provider, server):
        assert provider.submit(many, FORM) == "b1"
    assert_by_file(server.asked, many)
    with connected(CREATED) as (provider, server):
        assert provider.submit(larger(batch, requests=INLINE_REQUESTS), FORM) == "b1"
    assert len(server.asked) == 1


def test_a_batch_of_many_bytes_is_a_file_and_an_order(batch: EncodedBatch) -> None:
    """It is streamed from disk."""
    line = GeminiCodec(PLAIN).encode(f"{TAG}-5-1", "x" * 100_000) + b"\n"
    with batch.path.open("ab") as file:
        file.writelines([line] * (INLINE_BYTES // 100_000))
    big = larger(batch, bytes=batch.path.stat().st_size)
    with connected(ADDRESS, UPLOADED, CREATED) as (provider, server):
        tracemalloc.start()
        try:
            assert provider.submit(big, FORM) == "b1"
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert_by_file(server.asked, big)
    assert peak < 3 * INLINE_BYTES  # which the test's own server holds


def test_a_key_goes_to_no_other_host(batch: EncodedBatch) -> None:
    """The address to upload to may name one: it is called at our own."""
    with (
        serving(Say(200, {})) as other,
        connected(upload_at(f"{other.url}/somewhere?id=1"), UPLOADED, CREATED) as (provider, server),
    ):
        provider.submit(larger(batch, requests=INLINE_REQUESTS + 1), FORM)
    assert not other.asked
    assert [asked.path for asked in server.asked] == ["/upload/v1beta/files", "/somewhere", CREATE]


@pytest.mark.parametrize("trouble", [Say(500), Say(429), Say(200, b"x"), Drop(), Drop(reset=True)], ids=repr)
def test_an_upload_is_repeated(trouble: Step, batch: EncodedBatch) -> None:
    """From its start, each time the whole file; an orphaned one costs nothing."""
    many = larger(batch, requests=INLINE_REQUESTS + 1)
    with connected(ADDRESS, trouble, ADDRESS, UPLOADED, CREATED) as (provider, server):
        assert provider.submit(many, FORM) == "b1"
    assert_by_file(server.asked[2:], many)


@pytest.mark.parametrize(
    "script",
    [[Say(503)], [Drop()], [Say(200, {})], [upload_at("")], [ADDRESS, Say(200, {})], [ADDRESS, Say(200, [])],
     [ADDRESS, Say(200, {"file": None})], [ADDRESS, Say(200, {"file": {"name": 5}})]],
    ids=repr,
)  # fmt: skip
def test_an_upload_that_fails_leaves_nothing_unknown(script: list[Step], batch: EncodedBatch) -> None:
    """No batch was made: it is no question whether one was."""
    with connected(*script) as (provider, server), pytest.raises(Transient):
        provider.submit(larger(batch, requests=INLINE_REQUESTS + 1), FORM)
    assert {asked.path for asked in server.asked} == {"/upload/v1beta/files"}


@pytest.mark.parametrize("by_file", [False, True])
@pytest.mark.parametrize("trouble", [Say(500), Say(503), Say(408), Say(200, b"x"), Drop(), Drop(reset=True)], ids=repr)
def test_a_create_whose_answer_is_lost_is_never_repeated(trouble: Step, batch: EncodedBatch, *, by_file: bool) -> None:
    """The batch may run and cost."""
    before = [ADDRESS, UPLOADED] if by_file else []
    sent = larger(batch, requests=INLINE_REQUESTS + 1) if by_file else batch
    with connected(*before, trouble, CREATED) as (provider, server), pytest.raises(UnknownOutcome):
        provider.submit(sent, FORM)
    assert len(server.asked) == len(before) + 1


@pytest.mark.parametrize("said", [{}, [], None, "b", {"name": None}, {"name": ""}, {"name": "batches/"}, {"name": {}}])
def test_an_acceptance_without_a_name_is_unknown(said: Any, batch: EncodedBatch) -> None:
    """It was accepted, and nobody knows as what."""
    with connected(Say(200, said)) as (provider, server), pytest.raises(UnknownOutcome, match="no id"):
        provider.submit(batch, FORM)
    assert len(server.asked) == 1


def refusal(status: int, word: str = "", message: str = "no", *details: Any) -> Say:
    return Say(status, {"error": {"code": status, "message": message, "status": word, "details": list(details)}})


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37s"}
BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}


def test_a_throttled_create_is_made_again(batch: EncodedBatch) -> None:
    """A 429 accepted nothing."""
    with connected(refusal(429, "RESOURCE_EXHAUSTED"), CREATED) as (provider, server):
        assert provider.submit(batch, FORM) == "b1"
    assert server.asked[0].body == server.asked[1].body


def test_the_delay_that_is_asked_for_stands_in_the_body(batch: EncodedBatch) -> None:
    """Not in a header."""
    with (
        connected(refusal(429, "RESOURCE_EXHAUSTED", "no", RETRY)) as (provider, _),
        pytest.raises(Transient) as caught,
    ):
        provider.submit(batch, FORM)
    assert (caught.value.retry_after, caught.value.code) == (37, "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("37s", 37), ("1.5s", 1.5), ("0s", 0), ("37", None), ("-3s", None), ("s", None), (37, None), (None, None),
     ({"seconds": 3}, None), ("9" * 30 + "s", None), ("37s\n", None)],
)  # fmt: skip
def test_a_delay_is_a_number_of_seconds(delay: Any, seconds: float | None) -> None:
    """In the notation of protocol buffers, and in no other."""
    assert read_error({"error": {"code": 429, "details": [5, {}, {"retryDelay": delay}]}}).retry_after == seconds


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (refusal(400, "INVALID_ARGUMENT", "API key not valid.", RETRY, BAD_KEY), AuthenticationFailed),
        (refusal(403, "PERMISSION_DENIED"), AuthenticationFailed),
        (refusal(401, "UNAUTHENTICATED"), AuthenticationFailed),
        (refusal(403, "PERMISSION_DENIED", "no", {"reason": "BILLING_DISABLED"}), SpendLimitReached),
        (refusal(413), BatchTooLarge),
        (refusal(400, "INVALID_ARGUMENT"), BatchRefused),
        (refusal(400, "FAILED_PRECONDITION", "no", {"reason": ["odd"]}), BatchRefused),
        (Say(400, [{"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}]), BatchRefused),
        (refusal(404, "NOT_FOUND"), NotFound),
        (Say(404, b""), NotFound),
        (Say(400, b"<html>"), BatchRefused),
        (Say(400, {"error": "odd"}), BatchRefused),
        (Say(400, []), BatchRefused),
    ],
)  # fmt: skip
def test_a_refusal_has_its_error(said: Say, expected: type[ProviderError], batch: EncodedBatch) -> None:
    """At the file or at the batch, and not asked for again. A wrong key is a 400 here, and told as what it is."""
    many = larger(batch, requests=INLINE_REQUESTS + 1)
    for script, sent in (([said], batch), ([said], many), ([ADDRESS, said], many), ([ADDRESS, UPLOADED, said], many)):
        with connected(*script) as (provider, server), pytest.raises(ProviderError) as caught:
            provider.submit(sent, FORM)
        assert type(caught.value) is expected
        assert len(server.asked) == len(script)


def test_a_server_error_with_the_words_of_a_wrong_key_stays_unknown(batch: EncodedBatch) -> None:
    """A 5xx may hide an accepted batch, whatever it says."""
    with connected(refusal(500, "INTERNAL", "no", BAD_KEY)) as (provider, _), pytest.raises(UnknownOutcome):
        provider.submit(batch, FORM)


@pytest.mark.parametrize("shown", [KEY, "AIzaSyAnother-key_9", "AIza…1234"])
def test_no_key_is_in_an_error(shown: str) -> None:
    """Also where the service repeats it, whole or masked."""
    said = refusal(403, "PERMISSION_DENIED", f"Consumer 'api_key:{shown}' has been suspended.")
    with connected(said) as (provider, _), pytest.raises(AuthenticationFailed, match="has been suspended") as caught:
        provider.poll("b1")
    assert shown not in f"{caught.value}{caught.value!r}{caught.value.__dict__}{caught.value.__cause__}"


# --- find


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")


def an_operation(
    number: int, state: Any = "BATCH_STATE_RUNNING", *, tag: Any = None, at: float = SENT + 60, **changes: Any
) -> dict[str, Any]:
    about = {"name": f"batches/b{number}", "displayName": tag, "state": state, "createTime": stamp(at)}
    return {"name": f"batches/b{number}", "done": False, "metadata": about, **changes}


def listed(*operations: Any, following: Any = "") -> Say:
    return Say(body={"operations": list(operations), "nextPageToken": following})


def test_a_lost_batch_is_found_by_its_tag(batch: EncodedBatch) -> None:
    """Which is its display name; nothing is sent."""
    others = [an_operation(9, tag="abcd2345-8"), an_operation(8), an_operation(7, tag={}), 5]
    with connected(listed(*others, an_operation(6, tag=TAG))) as (provider, server):
        assert not provider.replays
        assert provider.find(batch, FORM) == Found("b6")
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.query) == ("GET", LIST, {"pageSize": "100"})


def test_a_list_that_is_newest_first_is_read_back_to_the_time_of_sending(batch: EncodedBatch) -> None:
    """And not further: an account may have thousands of old batches."""
    pages = [
        listed(an_operation(9, at=SENT + 90), an_operation(8), following="t1"),
        listed(an_operation(7, at=SENT + 30), an_operation(6, tag=TAG, at=SENT + 20), following="t2"),
        listed(an_operation(5, at=SENT - 90_000), following="t3"),
        listed(an_operation(4, at=SENT - 99_000), following="t4"),
    ]
    with connected(*pages) as (provider, server):
        assert provider.find(batch, FORM) == Found("b6")
    assert [asked.query.get("pageToken") for asked in server.asked] == [None, "t1", "t2"]


@pytest.mark.parametrize("ages", [[90, 80], [90, 90], [99, 95, 96]], ids=["oldest first", "all of one age", "mixed"])
def test_a_list_in_any_other_order_is_read_to_its_end(ages: list[int], batch: EncodedBatch) -> None:
    """The order is not documented: that batches are old says nothing of those that follow."""
    pages = [listed(an_operation(n, at=SENT - age * 1000), following=f"t{n}") for n, age in enumerate(ages)]
    with connected(*pages, listed(an_operation(7, tag=TAG))) as (provider, _):
        assert provider.find(batch, FORM) == Found("b7")


@pytest.mark.parametrize(
    "page", [listed(following="t"), listed(an_operation(9), following="t"), Say(body={}),
             Say(body={"operations": [5, "x"]}), listed(following={})],
)  # fmt: skip
def test_reading_a_list_always_ends(page: Say, batch: EncodedBatch) -> None:
    """Also one that promises more and brings the same; a list of nothing is an empty object."""
    with connected(page, now=SENT + 5) as (provider, server), pytest.raises(UnknownOutcome):
        provider.find(batch, FORM)
    assert len(server.asked) <= 2


@pytest.mark.parametrize("said", [None, "x", 5, [], {"operations": None}, {"operations": {}}])
def test_what_is_no_list_is_an_error(said: Any, batch: EncodedBatch) -> None:
    """Not an empty one, after which the batch would be sent again."""
    with connected(Say(body=said)) as (provider, server), pytest.raises(Transient):
        provider.find(batch, FORM)
    assert {asked.method for asked in server.asked} == {"GET"}


def test_of_two_the_oldest_stays(batch: EncodedBatch, caplog: pytest.LogCaptureFixture) -> None:
    """The other is cancelled, and told as paid for."""
    two = [an_operation(9, tag=TAG, at=SENT + 90), an_operation(7, tag=TAG, at=SENT + 80)]
    cancelled = Say(body=an_operation(9, "BATCH_STATE_CANCELLED"))
    with connected(listed(*two), Say(200, {}), cancelled) as (provider, server):
        assert provider.find(batch, FORM) == Found("b7", ("b9",))
    assert (server.asked[1].method, server.asked[1].path) == ("POST", "/v1beta/batches/b9:cancel")
    assert "b7 is kept, b9 is cancelled" in caplog.text


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "EXPIRED", "CANCELLING"])
def test_of_two_one_that_can_still_answer_stays(state: str, batch: EncodedBatch) -> None:
    """One that failed, or was cancelled the last time, is not what is waited for."""
    old = an_operation(7, f"BATCH_STATE_{state}", tag=TAG, at=SENT + 80)
    with connected(listed(old, an_operation(9, tag=TAG, at=SENT + 90)), Say(200, {}), Say(body=old)) as (provider, _):
        assert provider.find(batch, FORM) == Found("b9", ("b7",))


def test_a_batch_that_is_listed_twice_is_one(batch: EncodedBatch) -> None:
    """A list that moves while it is read shows one again; it is not cancelled."""
    pages = [listed(an_operation(7, tag=TAG), following="t"), listed(an_operation(7, tag=TAG), an_operation(6))]
    with connected(*pages) as (provider, server):
        assert provider.find(batch, FORM) == Found("b7")
    assert {asked.method for asked in server.asked} == {"GET"}


def test_an_empty_list_proves_nothing_for_a_while(batch: EncodedBatch) -> None:
    """New batches can stay invisible for minutes: nothing is sent, and it says how long."""
    with connected(listed(), now=SENT + 400) as (provider, server), pytest.raises(UnknownOutcome) as caught:
        provider.find(batch, FORM)
    assert caught.value.retry_after == 200
    assert {asked.method for asked in server.asked} == {"GET"}


def test_after_a_while_a_batch_that_is_not_there_was_never_accepted(batch: EncodedBatch) -> None:
    """Which is told; sending it again is the caller's to do."""
    with connected(listed(an_operation(9)), now=SENT + 601) as (provider, server):
        assert provider.find(batch, FORM) is None
    assert {asked.method for asked in server.asked} == {"GET"}


def test_a_large_file_may_have_taken_long(batch: EncodedBatch) -> None:
    """The batch was created after its upload: an empty list proves nothing for as long as that may have taken."""
    large = larger(batch, bytes=SLOWEST_UPLOAD * 1000)
    with connected(listed(), now=SENT + 1400) as (provider, _), pytest.raises(UnknownOutcome) as caught:
        provider.find(large, FORM)
    assert caught.value.retry_after == 200
    with connected(listed(), now=SENT + 1601) as (provider, _):
        assert provider.find(large, FORM) is None


@pytest.mark.parametrize("lost", [Drop(), Say(200, {})])
def test_the_time_runs_from_the_last_lost_answer(lost: Step, batch: EncodedBatch) -> None:
    """However long before it was noted that the batch is sent."""
    with connected(lost, listed(), now=SENT + 700) as (provider, server):
        with pytest.raises(UnknownOutcome):
            provider.submit(batch, FORM)
        with pytest.raises(UnknownOutcome, match="600 s"):
            provider.find(batch, FORM)
    assert [asked.method for asked in server.asked].count("POST") == 1


def test_without_a_time_nothing_is_sent(batch: EncodedBatch) -> None:
    """Nobody can tell how long ago it was; the way to look for it is told."""
    with connected(listed()) as (provider, server), pytest.raises(UnknownOutcome) as caught:
        provider.find(larger(batch, sent_at=0.0), FORM)
    assert TAG in caught.value.next_step
    assert {asked.method for asked in server.asked} == {"GET"}


def test_the_time_to_settle_can_be_set(batch: EncodedBatch) -> None:
    """A service that lists at once needs none."""
    with connected(listed(), now=SENT, settle=0) as (provider, _):
        assert provider.find(batch, FORM) is None


# --- poll and cancel


@pytest.mark.parametrize("prefix", ["BATCH_STATE_", "JOB_STATE_", ""])
@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ("UNSPECIFIED", BatchPhase.RUNNING),
        ("PENDING", BatchPhase.RUNNING),
        ("RUNNING", BatchPhase.RUNNING),
        ("SUCCEEDED", BatchPhase.ENDED),
        ("FAILED", BatchPhase.FAILED),
        ("CANCELLED", BatchPhase.FAILED),
        ("EXPIRED", BatchPhase.FAILED),
        ("SOMETHING_NEW", BatchPhase.RUNNING),
    ],
)
def test_each_state_is_a_phase(prefix: str, state: str, phase: BatchPhase) -> None:
    """In both spellings. From a word that we don't know nothing is concluded; one that expired has no answers."""
    said = an_operation(1, prefix + state)
    said["metadata"]["batchStats"] = {
        "requestCount": "200", "successfulRequestCount": "90", "failedRequestCount": "10", "pendingRequestCount": 100,
    }  # fmt: skip
    with connected(Say(body=said)) as (provider, server):
        status = provider.poll("b1")
    at = datetime.fromtimestamp(SENT + 60, UTC).replace(microsecond=123_456)
    obstacle = Obstacle.NO_TIME if state in {"CANCELLED", "EXPIRED"} else None
    assert status == BatchStatus("b1", phase, state, created_at=at, obstacle=obstacle)
    assert (server.asked[0].method, server.asked[0].path) == ("GET", "/v1beta/batches/b1")


ROWS = {"inlinedResponses": {"inlinedResponses": [{"metadata": {"key": "run-1-1"}}]}}
FILE = {"responsesFile": "files/r1"}


@pytest.mark.parametrize("output", [ROWS, FILE, {"inlinedResponses": [{}]}], ids=["nested", "file", "flat"])
@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "EXPIRED"])
def test_a_batch_that_ended_badly_with_something_to_read_has_ended(state: str, output: dict[str, Any]) -> None:
    """What was answered was paid."""
    said = an_operation(1, f"BATCH_STATE_{state}")
    assert read_status({**said, "response": output}).phase is BatchPhase.ENDED
    assert read_status({**said, "metadata": {**said["metadata"], "output": output}}).phase is BatchPhase.ENDED


@pytest.mark.parametrize(
    ("said", "phase"),
    [
        ({"done": True, "metadata": {"state": None}, "response": FILE}, BatchPhase.ENDED),
        ({"done": True, "metadata": {"state": "NEW"}, "error": {"code": 13}}, BatchPhase.FAILED),
        ({"done": True, "metadata": {"state": "NEW"}}, BatchPhase.RUNNING),
        ({"done": False, "metadata": {"state": "NEW"}, "response": ROWS}, BatchPhase.RUNNING),
        ({"done": False, "metadata": {"state": "NEW"}, "error": {"code": 13}}, BatchPhase.RUNNING),
        ({"done": "true", "error": {"code": 13}}, BatchPhase.RUNNING),
        ({"state": "JOB_STATE_SUCCEEDED"}, BatchPhase.ENDED),
    ],
)
def test_where_the_state_says_nothing_the_operation_does(said: dict[str, Any], phase: BatchPhase) -> None:
    """That it is done, and with what; a batch may come without its wrapping."""
    assert read_status({"name": "batches/b1", **said}).phase is phase


@pytest.mark.parametrize(
    ("error", "said", "obstacle"),
    [
        ({"code": 13, "message": "why"}, "INTERNAL: why", None),
        ({"code": 8, "message": "why"}, "RESOURCE_EXHAUSTED: why", Obstacle.QUEUE_FULL),
        ({"code": 429, "message": "why"}, "RESOURCE_EXHAUSTED: why", Obstacle.QUEUE_FULL),
        ({"code": 400, "status": "FAILED_PRECONDITION"}, "FAILED_PRECONDITION", None),
        ({"code": 418, "message": "why"}, "http_418: why", None),
        ({"message": "why"}, "why", None),
        ({"code": {}}, "no reason given", None),
        ("why", "why", None),
        ({}, None, None),
        (None, None, None),
    ],
)
def test_a_failed_batch_says_why(error: Any, said: str | None, obstacle: Obstacle | None) -> None:
    """A full queue, which passes, is told as an obstacle."""
    status = read_status(an_operation(1, "BATCH_STATE_FAILED", error=error, done=True))
    assert (status.phase, status.error, status.obstacle) == (BatchPhase.FAILED, said, obstacle)


@pytest.mark.parametrize(
    "extra",
    [
        {}, {"metadata": None}, {"metadata": []}, {"done": None}, {"metadata": {"state": 5}},
        {"metadata": {"state": {}}}, {"metadata": {"batchStats": None}},
        {"metadata": {"batchStats": {"requestCount": "x", "failedRequestCount": -1}}},
        {"metadata": {"batchStats": {"requestCount": "0"}}}, {"metadata": {"createTime": "soon", "output": 5}},
        {"metadata": {"createTime": 1e300}}, {"response": "x"}, {"response": {"inlinedResponses": {"a": 1}}},
        {"response": {"responsesFile": {}}}, {"metadata": {"batchStats": {"requestCount": "9" * 5000}}},
    ],
    ids=lambda extra: str(extra)[:60],
)  # fmt: skip
def test_a_batch_may_say_little(extra: dict[str, Any]) -> None:
    """Without a word that is known it is running."""
    status = read_status({"name": "batches/b", **extra})
    assert (status.phase, status.wording) == (BatchPhase.RUNNING, "unknown")
    assert (status.created_at, status.error) == (None, None)


@pytest.mark.parametrize("said", [{}, [], None, "running", 5, {"done": True}, {"name": None}, {"metadata": {}}])
def test_what_is_no_batch_is_an_error_of_the_provider(said: Any) -> None:
    """Not a traceback, and not a batch without answers."""
    with connected(Say(200, said)) as (provider, _):
        for call in (provider.poll, provider.cancel, lambda batch_id: list(provider.results(batch_id, FORM))):
            with pytest.raises(ProviderError) as caught:
                call("b1")
            assert caught.value.provider == "gemini"


def test_a_batch_that_is_not_known_is_not_found() -> None:
    """It may not be visible yet: that is the caller's to judge. An id leads nowhere else."""
    with connected(refusal(404, "NOT_FOUND")) as (provider, server), pytest.raises(NotFound):
        provider.poll("../x?y")
    assert server.asked[0].path == "/v1beta/batches/..%2Fx%3Fy"


def test_cancelling_is_asked_for_and_told() -> None:
    """The call itself answers nothing."""
    with connected(Say(200, {}), Say(body=an_operation(1, "BATCH_STATE_CANCELLED"))) as (provider, server):
        assert provider.cancel("b1").wording == "CANCELLED"
    assert [(asked.method, asked.path) for asked in server.asked] == [
        ("POST", "/v1beta/batches/b1:cancel"), ("GET", "/v1beta/batches/b1"),
    ]  # fmt: skip


def test_a_batch_that_ended_before_it_was_cancelled_is_told_as_it_is() -> None:
    """The service refuses; one that still runs is a refusal in earnest."""
    no = refusal(400, "FAILED_PRECONDITION")
    with connected(no, Say(body=an_operation(1, "BATCH_STATE_SUCCEEDED"))) as (provider, _):
        assert provider.cancel("b1").phase is BatchPhase.ENDED
    with connected(no, Say(body=an_operation(1))) as (provider, _), pytest.raises(BatchRefused):
        provider.cancel("b1")


def test_a_batch_is_looked_after_for_as_long_as_it_may_take() -> None:
    """Two days, and some; a portable key; batches at once, and bytes of a file."""
    with connected() as (provider, _):
        assert provider.polling == PollPlan(60, 1.5, 300, 50 * 3600)
        assert (LIMITS.max_in_flight, LIMITS.max_bytes) == (100, 2_000_000_000)
    with connected(polling=PollPlan(1)) as (provider, _):
        assert provider.polling == PollPlan(1)


# --- results


def answer_of(number: int, label: str = "x") -> str:
    return json.dumps({ECHO: f"run-{number}-1", "label": label})


def generated(*texts: Any, finish: Any = "STOP", **changes: Any) -> dict[str, Any]:
    parts = [text if isinstance(text, dict) else {"text": text} for text in texts]
    return {
        "candidates": [{"index": 0, "content": {"role": "model", "parts": parts}, "finishReason": finish}],
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10},
        "modelVersion": "gemini-2.5-flash",
        **changes,
    }


def row(number: int, response: Any = None, **changes: Any) -> dict[str, Any]:
    return {
        "key": f"run-{number}-1",
        "response": generated(answer_of(number)) if response is None else response,
        **changes,
    }


def inlined(row: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"key": row["key"]}, **{name: value for name, value in row.items() if name != "key"}}


def done(output: Any = None, response: Any = None, tag: str = "run", *, stats: Any = None) -> Say:
    said = an_operation(1, "BATCH_STATE_SUCCEEDED", tag=tag, done=True, response=response)
    return Say(body={**said, "metadata": {**said["metadata"], "output": output, "batchStats": stats}})


def nested(*rows: Any) -> dict[str, Any]:
    return {"inlinedResponses": {"inlinedResponses": list(rows)}}


def file(*rows: Any) -> Say:
    return Say(body=b"".join(json.dumps(item).encode() + b"\n" for item in rows))


LABEL_X = '{ "label": "x"}'
USAGE = Usage(7, 3)


@pytest.mark.parametrize(
    ("output", "response"),
    [(FILE, None), (None, FILE), (FILE, FILE), (nested(), FILE), (FILE, nested(inlined(row(5))))],
)
def test_answers_stand_in_a_file(output: Any, response: Any) -> None:
    """Of which the operation says the name, in either of two places."""
    with connected(done(output, response), file(row(1), row(0))) as (provider, server):
        found = list(provider.results("b1", FORM))
    assert found == [Answer(f"run-{n}-1", LABEL_X, USAGE, None) for n in (1, 0)]
    assert [(asked.path, asked.query) for asked in server.asked] == [
        ("/v1beta/batches/b1", {}), ("/v1beta/files/r1:download", {"alt": "media"}),
    ]  # fmt: skip


INLINED = [inlined(row(1)), inlined(row(0))]


@pytest.mark.parametrize(
    ("output", "response"),
    [(nested(*INLINED), nested()), (None, nested(*INLINED)), (nested(*INLINED), nested(inlined(row(5)))),
     ({"inlinedResponses": INLINED}, None), ({}, {"inlinedResponses": INLINED})],
    ids=["metadata", "response", "both", "flat", "flat response"],
)  # fmt: skip
def test_answers_stand_in_the_operation(output: Any, response: Any) -> None:
    """In either of two places, nested or not."""
    with connected(done(output, response)) as (provider, server):
        found = list(provider.results("b1", FORM))
    assert found == [Answer(f"run-{n}-1", LABEL_X, USAGE, None) for n in (1, 0)]
    assert len(server.asked) == 1


@pytest.mark.parametrize("output", [nested(), {"inlinedResponses": {}}, {"inlinedResponses": []}])
def test_a_batch_without_answers_has_none_if_it_counts_none(output: Any) -> None:
    """Where it does not say, they may still come: an empty list says nothing then."""
    stats = {"requestCount": "2", "pendingRequestCount": "2"}
    for place in ((output, None), (None, output)):
        with connected(done(*place, stats=stats)) as (provider, _):
            assert not list(provider.results("b1", FORM))
        with connected(done(*place)) as (provider, _), pytest.raises(Incomplete):
            list(provider.results("b1", FORM))


@pytest.mark.parametrize("output", [None, {}, {"@type": "x"}, {"responsesFile": ""}, []])
def test_a_batch_that_names_no_answers_has_lost_them(output: Any) -> None:
    """Taken for an empty result, all of its requests would be sent and paid again."""
    with connected(done(output, output)) as (provider, _), pytest.raises(NotFound, match="no longer has the answers"):
        list(provider.results("b1", FORM))


def test_answers_that_are_gone_are_told() -> None:
    """Not an empty result; a file's name leads nowhere else."""
    for script in ([refusal(404)], [done({"responsesFile": "files/../x?y"}), refusal(404)]):
        with connected(*script) as (provider, server), pytest.raises(NotFound):
            list(provider.results("b1", FORM))
    assert server.asked[1].path == "/v1beta/files/..%2Fx%3Fy:download"


BAD = [
    b"",
    b"  ",
    b"{secret",
    b"[]",
    b"null",
    b"5",
    b'{"key":null}',
    b'{"key":5,"metadata":[]}',
    b'{"id":"x"}',
    b"\xff",
]


def test_lines_that_can_not_be_read_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """As answers that name nobody; their content is in no log."""
    good = [json.dumps(row(n)).encode() for n in range(2)]
    with connected(done(FILE), Say(body=b"\n".join([good[0], *BAD, good[1]]))) as (provider, _):
        found = list(provider.results("b1", FORM))
    assert [answer.custom_id for answer in found if answer.custom_id] == ["run-0-1", "run-1-1"]
    assert [answer.failure for answer in found if not answer.custom_id] == [UNREADABLE] * 8
    assert "8 lines of the batch b1 name no request" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "secret" not in caplog.text


def test_memory_does_not_grow_with_the_file() -> None:
    """60 MB go through in a few chunks."""
    body = b"\n".join([json.dumps(row(1, generated(answer_of(1, "x" * 10_000)))).encode()] * 6000)
    with connected(done(FILE), Say(body=body)) as (provider, _):
        tracemalloc.start()
        try:
            assert sum(1 for _ in provider.results("b1", FORM)) == 6000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 5_000_000


# --- whose answer it is


def collected(*rows: Any, form: RequestForm = FORM, tag: str = "run") -> list[Answer]:
    stats = {"requestCount": str(len(rows)), "successfulRequestCount": str(len(rows))}
    with connected(done(nested(*rows), tag=tag, stats=stats)) as (provider, _):
        return list(provider.results("b1", form))


def test_exchanged_answers_come_to_their_own_rows(caplog: pytest.LogCaptureFixture) -> None:
    """The service may deliver them under each other's keys: what an answer says decides, and it is told once."""
    rows = [row(0), row(1, generated(answer_of(2, "two"))), row(2, generated(answer_of(1, "one")))]
    found = {answer.custom_id: answer.text for answer in collected(*map(inlined, rows))}
    assert found == {"run-0-1": LABEL_X, "run-2-1": '{ "label": "two"}', "run-1-1": '{ "label": "one"}'}
    assert [record.getMessage() for record in caplog.records] == [
        "gemini: 2 answers of b1 came under the key of another row; each was given to the row that it names"
    ]


def test_answers_in_their_places_are_not_worth_a_word(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is logged."""
    assert len(collected(*INLINED)) == 2
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ('{"batchwerk_row":"run-1-1","label":"x"}', '{"label":"x"}'),
        ('\n{ "batchwerk_row" : "run-1-1" , "label": 1.10 }', '{ "label": 1.10 }'),
        ('{"batchwerk_row":"run-1-1"}', "{}"),
        ('{"batchwerk_row": "run-1-1" }', "{}"),
        ('{"label":"x","batchwerk_row":"run-1-1"}', '{"label":"x"}'),
        ('{"batchwerk_row":"run-1-1","label":', '{"label":'),
        ('{"batchwerk_row":"run-1-1","label":12345678901234567890123}', '{"label":12345678901234567890123}'),
    ],
)
def test_the_echo_is_taken_out_of_the_answer(text: str, rest: str) -> None:
    """Wherever it stands; where it leads, as it was asked for, the rest stays as it was written."""
    answer = RowReader(FORM).read(row(1, generated(text)))
    assert answer is not None
    assert (answer.custom_id, answer.failure) == ("run-1-1", None)
    assert answer.text is not None
    assert answer.text.replace(" ", "") == rest.replace(" ", "")


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "x", "[]", "5", "null", '{"label":"x"}', '{"batchwerk_row":5,"label":"x"}', '{"batchwerk_row":null}',
        '{"batchwerk_row":"","label":"x"}', '{"batchwerk_row":"run-1-1\\n","label":"x"}',
        '{"a":{"batchwerk_row":"run-1-1"}}', '{"batchwerk_row":"run--1","label":"x"}',
        '{"batchwerk_row":"other-1-1","label":"x"}', '{"batchwerk_row":"run-2-1-1","label":"x"}',
        '{"batchwerk_row":"run","label":"x"}', '{"batchwerk_row":"1-1","label":"x"}',
        '{"label":"x","batchwerk_row":"r u n-1-1"}', '{"batchwerk_row":"run-1","label":"x"}',
        '{"batchwerk_row":"' + "run-" + "1" * 99 + '-1","label":"x"}', "[" * 5000,
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_an_answer_that_does_not_say_whose_it_is_proves_nothing(text: str) -> None:
    """It goes again, and is paid; one of another batch is nobody's."""
    assert RowReader(FORM).read(row(1, generated(text))) == Answer("run-1-1", None, USAGE, UNPROVEN)
    assert (UNPROVEN.kind, UNPROVEN.code, UNPROVEN.billed) == (FailureKind.TRANSIENT, "unproven", True)


def test_an_answer_without_a_key_may_still_say_whose_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """The service was seen to leave the keys out: the batch's own name then stands for what they begin with."""
    keyless = {"response": generated(answer_of(1))}
    assert [answer.custom_id for answer in collected(keyless, tag="run")] == ["run-1-1"]
    assert not caplog.records
    nobodys = Answer("", None, None, UNREADABLE)
    assert collected(keyless, tag="other") == [nobodys]
    assert collected(keyless, tag="") == [nobodys]
    assert collected({"response": generated("x")}, {"error": {"code": 13}}) == [nobodys, nobodys]
    assert collected(keyless, form=PLAIN) == [nobodys]
    assert "2 lines of the batch b1 name no request" in caplog.text


def test_failures_keep_their_keys() -> None:
    """A row may have failed under the key of one whose answer comes under another: whoever sent it takes the answer."""
    rows = [
        inlined(row(1, {}, error={"code": 13})),
        inlined(row(2, generated("x"))),
        inlined(row(3, generated(answer_of(1)))),
    ]
    found = collected(*rows)
    assert [(answer.custom_id, answer.failure is None) for answer in found] == [
        ("run-1-1", False), ("run-2-1", False), ("run-1-1", True),
    ]  # fmt: skip


LOOSE = {"type": "object", "properties": {"label": {}}}  # of any kind: the service takes no such schema


def test_what_a_row_says_of_another_is_not_believed_where_the_schema_is_said_in_words() -> None:
    """Its text may name any key; only where the other's answer moved away too were the two exchanged."""
    form = replace(FORM, schema=LOOSE)
    taking = [row(1, generated(answer_of(2, "mine"))), row(2, generated(answer_of(2, "its own")))]
    found = {answer.custom_id: (answer.text, answer.failure) for answer in collected(*map(inlined, taking), form=form)}
    assert found == {"run-2-1": ('{ "label": "its own"}', None), "run-1-1": (None, UNPROVEN)}
    lonely = [row(1, generated(answer_of(2))), row(2, {}, error={"code": 13})]
    failed = [answer.failure for answer in collected(*map(inlined, lonely), form=form)]
    assert None not in failed
    exchanged = [row(1, generated(answer_of(2, "two"))), row(2, generated(answer_of(1, "one")))]
    texts = {answer.custom_id: answer.text for answer in collected(*map(inlined, exchanged), form=form)}
    assert texts == {"run-2-1": '{ "label": "two"}', "run-1-1": '{ "label": "one"}'}


def test_a_job_without_a_schema_has_no_echo() -> None:
    """Its answers are taken under the key that they come with, in the order in which they come."""
    rows = [row(1, generated(answer_of(2))), row(2, {}, error={"code": 13}), row(3, generated("x"))]
    found = collected(*map(inlined, rows), form=PLAIN)
    assert [(answer.custom_id, answer.text) for answer in found] == [
        ("run-1-1", answer_of(2)), ("run-2-1", None), ("run-3-1", "x"),
    ]  # fmt: skip


@pytest.mark.parametrize("schema", [SCHEMA, open_schema, {**SCHEMA, "properties": {ECHO: TEXT}, "required": [ECHO]}])
def test_what_is_asked_for_is_what_is_looked_for(schema: dict[str, Any]) -> None:
    """Asked by the encoder, answered as asked, read by the reader: any schema with properties of its own."""
    form = RequestForm("m", schema=schema)
    name = str(echo_of(schema))
    assert name in json.dumps(encoded(form, "Hi"))
    answer = RowReader(form).read(row(1, generated(json.dumps({name: "run-1-1", "a": "b"}))))
    assert answer is not None
    assert answer.text == '{ "a": "b"}'


# --- rows


def transient(code: str, message: str) -> Failure:
    return Failure(FailureKind.TRANSIENT, code, message)


def final(code: str, message: str = "why") -> Failure:
    return Failure(FailureKind.TERMINAL, code, message)


def paid(failure: Failure) -> Failure:
    """One that an answer of the model stands behind."""
    return failure._replace(billed=True)


def failed(code: Any, **more: Any) -> dict[str, Any]:
    return {"key": "run-1-1", "error": {"code": code, "message": "why", **more}}


CUT_WORDS = "the answer, its thoughts included, was cut off at the limit of output tokens"
FILTERED = "the provider's filter stopped the answer"
MUTE = transient("no_answer", "the provider gave neither an answer nor a reason")
NO_TEXT = paid(transient("no_answer", "the answer has no text"))
THOUGHT = {"text": "hm", "thought": True}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (row(1, generated("x")), ("x", USAGE, None)),
        (row(1, generated("a", THOUGHT, "b", {"inlineData": {}}, {"text": 5})), ("ab", USAGE, None)),
        (row(1, generated("")), ("", USAGE, None)),
        (row(1, generated("x", finish=None)), ("x", USAGE, None)),
        (row(1, generated("x", finish={})), ("x", USAGE, None)),
        (row(1, generated("x", finish="FINISH_REASON_UNSPECIFIED")), ("x", USAGE, None)),
        (row(1, generated("x", finish="SOMETHING_NEW")), ("x", USAGE, None)),
        (row(1, generated("x"), error=None), ("x", USAGE, None)),
        (row(1, generated("x"), error={}), ("x", USAGE, None)),
        (row(1, generated("x"), status=""), ("x", USAGE, None)),
        (row(1, generated("x"), status={"code": 0}), ("x", USAGE, None)),
        (row(1, generated("x", promptFeedback={"safetyRatings": []})), ("x", USAGE, None)),
        (row(1, generated("x", promptFeedback={"blockReason": "BLOCK_REASON_UNSPECIFIED"})), ("x", USAGE, None)),
        (inlined(row(1, generated("x"))), ("x", USAGE, None)),
        (row(1, generated(THOUGHT)), (None, USAGE, NO_TEXT)),
        (row(1, generated(finish="SOMETHING_NEW")), (None, USAGE, NO_TEXT)),
        (row(1, generated("half", finish="MAX_TOKENS")),
         (None, USAGE, paid(Failure(FailureKind.CUT_OFF, "length", CUT_WORDS)))),
        *[(row(1, generated("half", finish=reason)),
           (None, USAGE, paid(Failure(FailureKind.FILTERED, reason, FILTERED))))
          for reason in ("SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "RECITATION", "IMAGE_SAFETY")],
        (row(1, generated("half", finish="OTHER")),
         (None, USAGE, paid(transient("OTHER", "the model failed while it answered")))),
        (row(1, {"candidates": [{"finishReason": "SAFETY", "finishMessage": "why"}]}),
         (None, None, paid(Failure(FailureKind.FILTERED, "SAFETY", "why")))),
        (row(1, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
                 "usageMetadata": {"promptTokenCount": 7, "totalTokenCount": 7}}),
         (None, Usage(7, 0), paid(Failure(FailureKind.FILTERED, "PROHIBITED_CONTENT",
                                          "the provider's filter stopped the prompt")))),
        (row(1, {"candidates": []}), (None, None, MUTE)),
        (row(1, {"candidates": [None]}), (None, None, MUTE)),
        (row(1, {"candidates": [{"content": None}]}), (None, None, NO_TEXT)),
        (row(1, {"candidates": [{"content": {"parts": [None, 5, {}]}}]}), (None, None, NO_TEXT)),
        ({"key": "run-1-1"}, (None, None, MUTE)),
        ({"key": "run-1-1", "response": "x", "error": None}, (None, None, MUTE)),
        (failed(3), (None, None, final("INVALID_ARGUMENT"))),
        (failed("3"), (None, None, final("INVALID_ARGUMENT"))),
        (failed(400), (None, None, final("INVALID_ARGUMENT"))),
        (failed(None, status="INVALID_ARGUMENT"), (None, None, final("INVALID_ARGUMENT"))),
        (failed(400, status="FAILED_PRECONDITION"), (None, None, final("FAILED_PRECONDITION"))),
        (failed(5), (None, None, final("NOT_FOUND"))),
        (failed(413), (None, None, final("http_413"))),
        *[(failed(code), (None, None, transient(name, "why"))) for code, name in (
            (8, "RESOURCE_EXHAUSTED"), (429, "RESOURCE_EXHAUSTED"), (13, "INTERNAL"), (14, "UNAVAILABLE"),
            (503, "UNAVAILABLE"), (4, "DEADLINE_EXCEEDED"), (504, "DEADLINE_EXCEEDED"), (10, "ABORTED"), (2, "UNKNOWN"),
            (99, "http_99"), (599, "http_599"), (408, "http_408"), ({}, "unknown"), (None, "unknown"), (-1, "unknown"),
        )],
        (failed(500), (None, None, transient("UNKNOWN", "why"))),
        (failed(1), (None, None, Failure(FailureKind.NOT_RUN, "CANCELLED", "why"))),
        (failed(499), (None, None, Failure(FailureKind.NOT_RUN, "CANCELLED", "why"))),
        ({"key": "run-1-1", "error": "why"}, (None, None, transient("unknown", "why"))),
        ({"key": "run-1-1", "error": [5]}, (None, None, transient("unknown", "the provider gave no reason"))),
        ({"key": "run-1-1", "status": {"code": 13}},
         (None, None, transient("INTERNAL", "the provider gave no reason"))),
        (row(1, {"error": {"code": 400, "message": "why"}}), (None, None, final("INVALID_ARGUMENT"))),
        (row(1, generated("x"), error={"code": 13, "message": "why"}), (None, USAGE, transient("INTERNAL", "why"))),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_each_row_is_an_answer(line: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """What passes goes again, what is final does not, what never ran is excused; thoughts are no answer."""
    form = RequestForm("m", max_output_tokens=9)
    assert RowReader(form).read(line) == Answer("run-1-1", *expected)


def test_an_answer_that_is_cut_off_without_a_limit_is_final() -> None:
    """It reached the model's own: a larger one there is not."""
    answer = RowReader(PLAIN).read(row(1, generated("half", finish="MAX_TOKENS")))
    assert answer is not None
    assert answer.failure == paid(final("length", CUT_WORDS))


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"promptTokenCount": 7, "candidatesTokenCount": 3}, Usage(7, 3)),
        ({"promptTokenCount": "7", "candidatesTokenCount": "3"}, Usage(7, 3)),
        ({"promptTokenCount": 7, "candidatesTokenCount": 3, "thoughtsTokenCount": 50}, Usage(7, 53)),
        ({"promptTokenCount": 7, "thoughtsTokenCount": 50, "totalTokenCount": 57}, Usage(7, 50)),
        ({"promptTokenCount": 7, "candidatesTokenCount": 3, "toolUsePromptTokenCount": 5}, Usage(12, 3)),
        ({"promptTokenCount": 7, "candidatesTokenCount": 3, "cachedContentTokenCount": 2}, Usage(7, 3, 2)),
        ({"promptTokenCount": 7, "candidatesTokenCount": 3, "cachedContentTokenCount": 9}, Usage(7, 3, 7)),
        ({"promptTokenCount": 7, "candidatesTokenCount": 3, "cachedContentTokenCount": "x"}, Usage(7, 3)),
        ({"promptTokenCount": 7, "totalTokenCount": 7}, Usage(7, 0)),
        ({"promptTokenCount": 7, "totalTokenCount": 5}, None),
        ({"promptTokenCount": 7}, None),
        ({"candidatesTokenCount": 3, "totalTokenCount": 10}, None),
        ({"promptTokenCount": -7, "candidatesTokenCount": 3}, None),
        ({"promptTokenCount": 7.5, "candidatesTokenCount": 3}, None),
        ({"promptTokenCount": 10**300, "candidatesTokenCount": 3}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
    ids=str,
)  # fmt: skip
def test_tokens_that_are_not_named_are_not_free(usage: Any, expected: Usage | None) -> None:
    """They are unknown; thoughts are paid as output, and counters may be texts."""
    answer = RowReader(PLAIN).read(row(1, {**generated("x"), "usageMetadata": usage}))
    assert answer is not None
    assert answer.usage == expected


WORDS = [
    "name", "state", "errors", "error", "metadata", "code", "message", "key", "response", "status", "candidates",
    "content", "parts", "text", "usageMetadata", "finishReason", "promptFeedback", "blockReason", "thought", "done",
    "createTime", "batchStats", "requestCount", "promptTokenCount", "candidatesTokenCount", "output", "responsesFile",
    "inlinedResponses", "details", "reason", "retryDelay", "displayName",
]  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=8,
)


@given(json_values, json_values)
def test_no_answer_is_too_strange(thing: Any, other: Any) -> None:
    """Whatever JSON comes, it is read or refused as a provider's error."""
    candidate = {"content": {"parts": [thing, {"text": other}]}, "finishReason": other}
    rows = [thing, {"key": "run-1-1", "response": thing, "error": other}, {"metadata": thing, "response": other}]
    rows += [row(1, {"candidates": [inner], "usageMetadata": other}) for inner in (thing, candidate)]
    rows += [row(1, generated(json.dumps(thing))), row(1, generated(json.dumps({"a": thing, ECHO: other})))]
    for form in (FORM, PLAIN):
        for each in rows:
            answer = RowReader(form, "run").read(each)
            assert answer is None or (answer.text is None) != (answer.failure is None)
    about = {"state": thing, "batchStats": other, "createTime": thing, "output": other}
    for operation in (thing, {"name": "b", "metadata": about, "error": other, "done": True, "response": thing}):
        with suppress(ProviderError):
            read_status(operation)
    for body in (thing, [thing], {"error": thing}, {"error": {"details": thing, "code": other, "status": thing}}):
        code, message, _ = read_error(body)
        assert {type(code), type(message)} <= {str, type(None)}


def test_nothing_there_is_a_providers_error(batch: EncodedBatch) -> None:
    """Every call, every time; nothing may be sent twice for it."""
    with connected(Drop()) as (provider, _):
        for call in (
            lambda: provider.submit(batch, FORM),
            lambda: provider.find(batch, FORM),
            lambda: provider.poll("b"),
            lambda: list(provider.results("b", FORM)),
            lambda: provider.cancel("b"),
        ):
            with pytest.raises((Transient, UnknownOutcome)) as caught:
                call()
            assert caught.value.provider == "gemini"
            assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("number", "name", "status"),
    [
        (3, "INVALID_ARGUMENT", 400),
        (5, "NOT_FOUND", 404),
        (7, "PERMISSION_DENIED", 403),
        (8, "RESOURCE_EXHAUSTED", 429),
        (13, "INTERNAL", 500),
        (16, "UNAUTHENTICATED", 401),
    ],
)
def test_a_row_has_the_number_of_an_error_where_a_call_has_its_status(number: int, name: str, status: int) -> None:
    """Both are told apart, and mean the same."""
    assert complaint_of({"code": number, "message": "why"}) == (name, status, "why")
    assert complaint_of({"status": name, "message": "why"}) == (name, status, "why")
