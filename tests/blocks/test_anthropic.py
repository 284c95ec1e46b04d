"""Anthropic's dialect over a real socket: one body up, result lines down, and lost batches known by their results."""

import json
import logging
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import formatdate
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
    BatchProvider,
    BatchStatus,
    EncodedBatch,
    Failure,
    FailureKind,
    Found,
    PollPlan,
    RequestForm,
    Usage,
)
from blocks.errors import (
    AuthenticationFailed,
    BatchRefused,
    BatchTooLarge,
    CantTell,
    NotFound,
    ProviderError,
    SpendLimitReached,
    Transient,
    UnknownOutcome,
    UsageError,
)
from blocks.providers.anthropic import ENTRY
from blocks.providers.anthropic.batches import Anthropic, _money_rule
from blocks.providers.anthropic.codec import (
    MAX_TOKENS,
    AnswerReader,
    AnthropicCodec,
    read_status,
    shortest_prefix,
    usage_of,
)
from blocks.providers.reading import UNREADABLE
from tests.blocks.contract import once_each
from tests.blocks.scripted import Drop, Say, Server, Step, serving

TEXT = {"type": "string"}
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"label": TEXT}, "required": ["label"]}
FORM = RequestForm("claude-haiku-4-5", "Be brief.", SCHEMA, 200)
KEY = "sk-ant-api03-very-secret-1234"
TAG = "abcd2345-7"
SENT = 1_795_334_400.0  # when the batch of these tests was sent
BATCHES = "/v1/messages/batches"


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Retries without waiting."""
    with stamina.set_testing(True, attempts=3):  # stamina's own
        yield


@contextmanager
def connected(*script: Step, now: float = SENT + 10_000, **options: Any) -> Iterator[tuple[Anthropic, Server]]:
    with serving(*script) as server:
        provider = Anthropic(KEY, server.url, clock=lambda: now, **options)
        try:
            yield provider, server
        finally:
            provider.close()


@pytest.fixture
def batch(tmp_path: Path) -> EncodedBatch:
    form = AnthropicCodec(FORM)
    requests = [form.encode(f"{TAG}-{n}-1", f"text {n}") for n in range(3)]
    content = form.head + form.separator.join(requests) + form.tail
    (tmp_path / "body").write_bytes(content)
    return EncodedBatch(tmp_path / "body", 3, len(content), "hash", TAG, sent_at=SENT)


def a_batch(number: int, at: float = SENT + 60, size: int = 3, **changes: Any) -> dict[str, Any]:
    """A batch that runs."""
    return {
        "id": f"msgbatch_{number}",
        "type": "message_batch",
        "processing_status": "in_progress",
        "request_counts": {"processing": size, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
        "created_at": datetime.fromtimestamp(at, UTC).isoformat(),
        "archived_at": None,
        "results_url": None,
        **changes,
    }


def ended(number: int, at: float = SENT + 60, size: int = 3, **changes: Any) -> dict[str, Any]:
    counts = {"processing": 0, "succeeded": size, "errored": 0, "canceled": 0, "expired": 0}
    url = f"https://elsewhere.example/msgbatch_{number}.jsonl"
    changes = {"processing_status": "ended", "request_counts": counts, "results_url": url, **changes}
    return a_batch(number, at, **changes)


CREATED = Say(body=a_batch(1))


def refusal(status: int, kind: str, code: str | None = None, words: str = "no", **headers: str) -> Say:
    error: dict[str, Any] = {"type": kind, "message": words}
    if code:
        error["details"] = {"error_code": code}
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Say(status, {"type": "error", "error": error, "request_id": "req_1"}, names)


def params(form: RequestForm = FORM, **options: Any) -> dict[str, Any]:
    """The params of a request."""
    found: dict[str, Any] = json.loads(AnthropicCodec(form, **options).encode("a-1-1", "Hi"))["params"]
    return found


# --- requests


@given(st.text(), st.none() | st.text(), st.none() | st.just(SCHEMA), st.booleans())
def test_an_encoded_request_is_an_item_of_the_body(
    prompt: str, system: str | None, schema: dict[str, Any] | None, longer: bool
) -> None:
    """Put together from pieces, it is what an encoder would have made of the whole."""
    form = AnthropicCodec(RequestForm("m", system, schema, 9))
    item = form.encode("run-1-1", prompt, longer=longer)
    assert b"\n" not in item
    (request,) = json.loads(form.head + item + form.tail)["requests"]
    assert list(request) == ["custom_id", "params"]
    assert request["custom_id"] == "run-1-1"
    body = request["params"]
    assert body["messages"] == [{"role": "user", "content": prompt}]
    assert body["max_tokens"] == (9 * LONGER if longer else 9)
    assert ("system" in body) == bool(system and system.rstrip())
    assert ("output_config" in body) == (schema is not None)


def test_a_body_is_as_documented(batch: EncodedBatch) -> None:
    """Model, limit, system text as a block, messages, schema; nothing else."""
    requests = json.loads(batch.path.read_bytes())["requests"]
    assert [request["custom_id"] for request in requests] == [f"{TAG}-{n}-1" for n in range(3)]
    assert requests[0]["params"] == {
        "model": "claude-haiku-4-5",
        "max_tokens": 200,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": "text 0"}],
        "output_config": {
            "format": {"type": "json_schema", "schema": {**SCHEMA, "additionalProperties": False}},
        },
    }


def test_what_is_not_asked_for_is_not_sent() -> None:
    """But for the limit, which the service requires."""
    assert params(RequestForm("m", " \n")) == {
        "model": "m",
        "max_tokens": MAX_TOKENS,
        "messages": [{"role": "user", "content": "Hi"}],
    }


def test_an_answer_without_a_limit_may_be_longer_as_well() -> None:
    """The default is multiplied."""
    request = json.loads(AnthropicCodec(RequestForm("m")).encode("a", "Hi", longer=True))
    assert request["params"]["max_tokens"] == MAX_TOKENS * LONGER


def test_a_temperature_goes_with_the_old_version_only() -> None:
    """Under the new one every row would fail, hours later."""
    warm = RequestForm("claude-haiku-4-5", temperature=0.2)
    with pytest.raises(UsageError, match="takes no temperature") as caught:
        AnthropicCodec(warm)
    assert "leave `temperature` out" in caught.value.next_step
    assert "--option version=2023-06-01" in caught.value.next_step
    assert params(warm, version="2023-06-01")["temperature"] == 0.2


@pytest.mark.parametrize("temperature", [0.0, 0.2])
@pytest.mark.parametrize(
    "model", ["claude-opus-4-7", "claude-opus-4-8", "claude-sonnet-5", "claude-haiku-5-5", "claude-fable-5-2"]
)
def test_models_from_4_7_take_no_temperature(model: str, temperature: float) -> None:
    """Under no version; the default value does no harm under the old one."""
    with pytest.raises(UsageError, match=f"{model} takes no temperature"):
        AnthropicCodec(RequestForm(model, temperature=temperature), version="2023-06-01")
    assert params(RequestForm(model, temperature=1), version="2023-06-01")["temperature"] == 1


@pytest.mark.parametrize(
    "model",
    ["claude-sonnet-4-6", "claude-haiku-4-5-20251001", "claude-opus-4-20250514", "claude-3-5-haiku-latest", "other"],
)
def test_older_models_take_a_temperature(model: str) -> None:
    """From 0 to 1; dates in a name are no version."""
    assert params(RequestForm(model, temperature=0), version="2023-06-01")["temperature"] == 0
    with pytest.raises(UsageError, match="from 0 to 1"):
        AnthropicCodec(RequestForm(model, temperature=1.5), version="2023-06-01")


def test_how_much_to_think_is_said_where_it_is_asked_for() -> None:
    """Alone or beside the schema."""
    assert params(RequestForm("m"), effort="low")["output_config"] == {"effort": "low"}
    assert set(params(effort="low")["output_config"]) == {"effort", "format"}
    assert "effort" not in params()["output_config"]


# --- the prompt cache


def cache_mark(system: str, model: str = "claude-sonnet-4-5", schema: Any = None, **options: Any) -> Any:
    (block,) = params(RequestForm(model, system, schema), **options)["system"]
    assert block["text"].startswith(system)
    return block.get("cache_control")


def test_a_long_system_text_is_marked_for_the_cache() -> None:
    """In the same words in every request, for as long as the option says."""
    long = "word " * 1000
    assert cache_mark(long.rstrip()) == {"type": "ephemeral", "ttl": "5m"}
    assert cache_mark(long.rstrip(), cache="1h") == {"type": "ephemeral", "ttl": "1h"}
    assert cache_mark(long.rstrip(), cache="off") is None


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("claude-opus-5", 512),
        ("claude-opus-5-5", 512),
        ("claude-fable-5-2", 512),
        ("claude-haiku-5-5", 512),
        ("claude-sonnet-5-5", 512),
        ("claude-opus-4-8", 1024),
        ("claude-sonnet-5", 1024),
        ("claude-sonnet-4-6", 1024),
        ("claude-sonnet-4-5-20250929", 1024),
        ("claude-opus-4-7", 2048),
        ("claude-haiku-4-5-20251001", 4096),
        ("claude-opus-4-6", 4096),
        ("claude-opus-4-5", 4096),
        ("something-else", 4096),
    ],
)
def test_a_text_that_is_too_short_for_the_models_cache_is_not_marked(model: str, tokens: int) -> None:
    """Four bytes count as a token; the schema that structured output takes is not counted."""
    assert shortest_prefix(model) == tokens
    assert cache_mark("x" * (4 * tokens), model) is not None
    assert cache_mark("x" * (4 * tokens - 1), model) is None
    assert cache_mark("ü" * (2 * tokens), model) is not None
    large = {"type": "object", "properties": {f"p{n}": {**TEXT, "description": "x" * 500} for n in range(20)}}
    assert cache_mark("Be brief.", model, {**large, "required": list(large["properties"])}) is None


def test_a_schema_in_the_system_text_is_part_of_what_is_cached() -> None:
    """There it is a part of the prefix."""
    large = {"type": "object", "properties": {"a": {"description": "x" * 5000}}}
    assert cache_mark("Be brief.", schema=large) is not None


# --- schemas


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def sent_schema(schema: dict[str, Any]) -> Any:
    return params(RequestForm("m", schema=schema))["output_config"]["format"]["schema"]


@pytest.mark.parametrize(
    ("part", "narrow"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 5, "multipleOf": 2}, {"type": "integer"}),
        ({"type": "string", "minLength": 1, "maxLength": 9, "pattern": "^a+$"}, TEXT),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        ({"type": "string", "format": "uri"}, {"type": "string", "format": "uri"}),
        ({"type": "string", "format": "iri"}, TEXT),
        ({"type": "array", "items": TEXT, "minItems": 1, "maxItems": 3, "uniqueItems": True},
         {"type": "array", "items": TEXT, "minItems": 1}),
        ({"type": "array", "items": TEXT, "minItems": 2}, {"type": "array", "items": TEXT}),
        ({"enum": ["x", "y"]}, {"type": "string", "enum": ["x", "y"]}),
        ({"type": ["string", "null"], "description": "d"}, {"type": ["string", "null"], "description": "d"}),
        ({"oneOf": [TEXT, {"type": "null"}]}, {"anyOf": [TEXT, {"type": "null"}]}),
        ({"type": "object", "properties": {"b": TEXT, "c": TEXT}, "required": ["b"]},
         {**closed(b=TEXT, c=TEXT), "required": ["b"]}),
    ],
)  # fmt: skip
def test_a_schema_is_narrowed_to_what_structured_output_takes(part: dict[str, Any], narrow: dict[str, Any]) -> None:
    """Objects closed, optional properties left optional; what it has no words for is left out."""
    schema = {"type": "object", "properties": {"a": part}, "required": ["a"]}
    assert sent_schema(schema) == closed(a=narrow)
    jsonschema_rs.meta.validate(sent_schema(schema))


def many(number: int, part: dict[str, Any], *, required: bool) -> dict[str, Any]:
    names = [f"p{n}" for n in range(number)]
    return {"type": "object", "properties": dict.fromkeys(names, part), "required": names if required else []}


NODE = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": TEXT}}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/node"}}, "$defs": {"node": NODE}},
        many(25, TEXT, required=False),
        many(17, {"type": ["string", "null"]}, required=True),
    ],
    ids=lambda schema: str(schema)[:60],
)
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_schema_without_words_for_it_is_an_instruction(schema: dict[str, Any], system: str | None) -> None:
    """Whole, after the system text; the answer is checked against it in any case."""
    body = params(RequestForm("m", system, schema))
    assert "output_config" not in body
    (block,) = body["system"]
    assert block["text"].startswith(system or "Answer with one JSON object and nothing else.")
    assert json.loads(block["text"].splitlines()[-1]) == schema


@pytest.mark.parametrize(
    "schema", [many(24, TEXT, required=False), many(16, {"type": ["string", "null"]}, required=True)]
)
def test_as_much_as_is_taken_is_sent(schema: dict[str, Any]) -> None:
    """24 optional properties, 16 unions."""
    assert len(sent_schema(schema)["properties"]) == len(schema["properties"])


# --- submit


@pytest.mark.parametrize("version", ["2026-10-21", "2023-06-01"])
@pytest.mark.parametrize("auth", ["x-api-key", "bearer"])
def test_a_batch_is_one_body(version: str, auth: str, batch: EncodedBatch) -> None:
    """Every byte of the file with its length, the key in one of two headers, the version in its own."""
    with connected(CREATED, version=version, auth=auth) as (provider, server):
        assert provider.submit(batch, FORM) == "msgbatch_1"
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.body) == ("POST", BATCHES, batch.path.read_bytes())
    assert asked.headers["content-length"] == str(batch.bytes)
    assert "transfer-encoding" not in asked.headers
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["anthropic-version"] == version
    shown = (None, f"Bearer {KEY}") if auth == "bearer" else (KEY, None)
    assert (asked.headers.get("x-api-key"), asked.headers.get("authorization")) == shown


def test_an_address_may_end_in_v1(batch: EncodedBatch) -> None:
    """As those of other services do."""
    for ending in ("/", "/v1", "/v1/"):
        with serving(CREATED) as server:
            provider = Anthropic(KEY, server.url + ending)
            assert provider.submit(batch, FORM) == "msgbatch_1"
            provider.close()
        assert server.asked[0].path == BATCHES


@pytest.mark.parametrize("auth", ["x-api-key", "bearer"])
@pytest.mark.parametrize("key", ["", "key\n", "kéy"])
def test_a_key_that_can_not_be_one_is_refused(key: str, auth: str) -> None:
    """Before it is sent, and without being shown."""
    with pytest.raises(UsageError, match="key for anthropic"):
        Anthropic(key, auth=auth)


def test_it_is_a_provider() -> None:
    """With a lookup that can be trusted, and the limits of a new account."""
    provider: BatchProvider = Anthropic(KEY)
    assert (provider.name, provider.replays) == ("anthropic", False)
    assert (ENTRY.limits.max_requests, ENTRY.limits.submissions_at_once) == (100_000, 1)
    assert provider.polling == PollPlan(60, 1.5, 300, 26 * 3600)
    assert ENTRY.codec_for(FORM, {}).encode("a-1-1", "Hi") == AnthropicCodec(FORM).encode("a-1-1", "Hi")
    provider.close()


def test_a_provider_encodes_as_its_options_say() -> None:
    """Version, cache and effort."""
    options = {"version": "2023-06-01", "cache": "1h", "effort": "low"}
    form = RequestForm("claude-sonnet-4-5", "x" * 5000, temperature=0.5)
    body = json.loads(ENTRY.codec_for(form, options).encode("a", "Hi"))["params"]
    assert (body["temperature"], body["output_config"]) == (0.5, {"effort": "low"})
    assert body["system"][0]["cache_control"]["ttl"] == "1h"


@pytest.mark.parametrize(
    "trouble",
    [Say(500), Say(503), Say(504), Say(529), Say(408), Say(200, b"x"), Drop(), Drop(reset=True)],
    ids=repr,
)
def test_a_create_whose_answer_is_lost_is_never_repeated(trouble: Step, batch: EncodedBatch) -> None:
    """The batch may run and cost."""
    with connected(trouble, CREATED) as (provider, server), pytest.raises(UnknownOutcome):
        provider.submit(batch, FORM)
    assert len(server.asked) == 1


@pytest.mark.parametrize("said", [{}, [], None, "b", {"id": None}, {"id": ""}, {"id": {}}])
def test_an_acceptance_without_an_id_is_unknown(said: Any, batch: EncodedBatch) -> None:
    """It was accepted, and nobody knows as what."""
    with connected(Say(200, said)) as (provider, server), pytest.raises(UnknownOutcome, match="no id"):
        provider.submit(batch, FORM)
    assert len(server.asked) == 1


@pytest.mark.parametrize("header", ["retry_after", "retry_after_ms"])
def test_a_throttled_create_is_made_again(header: str, batch: EncodedBatch) -> None:
    """A 429 that names a time accepted nothing and will pass."""
    throttled = refusal(429, "rate_limit_error", **{header: "0"})
    with connected(throttled, CREATED) as (provider, server):
        assert provider.submit(batch, FORM) == "msgbatch_1"
    assert len(server.asked) == 2
    assert server.asked[1].body == batch.path.read_bytes()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (refusal(401, "authentication_error"), AuthenticationFailed),
        (refusal(403, "permission_error"), AuthenticationFailed),
        (refusal(402, "billing_error"), SpendLimitReached),
        (refusal(429, "rate_limit_error", "enforced_spend_limit_reached", retry_after="9"), SpendLimitReached),
        (refusal(400, "invalid_request_error", "contract_spend_limit_reached"), SpendLimitReached),
        (refusal(413, "request_too_large"), BatchTooLarge),
        (Say(413, b"<html>too large"), BatchTooLarge),
        (refusal(400, "invalid_request_error", words="requests.12.custom_id: String should match"), BatchRefused),
        (refusal(404, "not_found_error"), NotFound),
        (refusal(409, "conflict_error"), BatchRefused),
        (Say(400, b"<html>"), BatchRefused),
        (Say(400, {"error": "no"}), BatchRefused),
        (Say(400, []), BatchRefused),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_refusal_has_its_error(said: Say, expected: type[ProviderError], batch: EncodedBatch) -> None:
    """And is not asked for again."""
    with connected(said) as (provider, server), pytest.raises(ProviderError) as caught:
        provider.submit(batch, FORM)
    assert type(caught.value) is expected
    assert len(server.asked) == 1


@pytest.mark.parametrize("said", [refusal(429, "rate_limit_error"), Say(429, b"<html>")], ids=["error", "page"])
def test_a_gateway_that_names_no_time_to_wait_has_not_run_out_of_money(said: Say, batch: EncodedBatch) -> None:
    """Anthropic's own monthly limit is told by a 429 without a time; a proxy of somebody else may just be busy."""
    with connected(said, said, CREATED) as (provider, server):
        assert provider.submit(batch, FORM) == "msgbatch_1"
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("url", "spent"),
    [("https://api.anthropic.com", True), ("https://API.anthropic.com/v1", True), ("https://gateway.example", False)],
)
def test_the_monthly_limit_is_told_by_anthropic_alone(url: str, spent: bool) -> None:
    """By a refusal that names no time; one that names a time will pass."""
    rule = _money_rule(url)
    assert rule(429, "rate_limit_error", None) is spent
    assert rule(429, "rate_limit_error", 5.0) is False
    assert rule(429, "enforced_spend_limit_reached", 5.0) is True


def test_an_edge_that_refuses_a_large_body_while_it_is_sent_is_understood(batch: EncodedBatch) -> None:
    """It need not read it to the end, nor answer in JSON."""
    batch.path.write_bytes(b" " * 8_000_000)
    large = replace(batch, bytes=8_000_000)
    with connected(Say(413, b"<html>", unread=True)) as (provider, _), pytest.raises(BatchTooLarge):
        provider.submit(large, FORM)


def test_a_server_error_with_the_words_of_an_empty_account_stays_unknown(batch: EncodedBatch) -> None:
    """A 5xx may hide an accepted batch, whatever it says."""
    with connected(refusal(500, "billing_error")) as (provider, _), pytest.raises(UnknownOutcome):
        provider.submit(batch, FORM)


@pytest.mark.parametrize("code", [None, "enforced_spend_limit_reached"])
def test_an_error_is_told_by_its_code(code: str | None, batch: EncodedBatch) -> None:
    """Or by its type where it has none."""
    with connected(refusal(402, "billing_error", code)) as (provider, _), pytest.raises(SpendLimitReached) as caught:
        provider.submit(batch, FORM)
    assert caught.value.code == (code or "billing_error")


@pytest.mark.parametrize("shown", [KEY, "sk-ant-api03-*****-1234", "sk-ant-other-key-9"])
def test_no_key_is_in_an_error(shown: str, batch: EncodedBatch) -> None:
    """Also where a gateway repeats it, whole or masked, in any shape of error."""
    words = f"Incorrect API key provided: {shown}. Find yours at …"
    for said in (refusal(401, "authentication_error", words=words), Say(401, {"error": words})):
        with connected(said) as (provider, _), pytest.raises(AuthenticationFailed, match="Incorrect API key") as caught:
            provider.submit(batch, FORM)
        assert shown not in f"{caught.value}{caught.value!r}{caught.value.__dict__}{caught.value.__cause__}"


def test_a_key_of_any_form_is_in_no_error() -> None:
    """Gateways have keys of other forms."""
    with serving(refusal(401, "authentication_error", words="no such key: gw_v1_abc")) as server:
        provider = Anthropic("gw_v1_abc", server.url)
        with pytest.raises(AuthenticationFailed, match="no such key: …"):
            provider.poll("msgbatch_1")
        provider.close()


def test_creates_under_one_key_go_one_after_another(batch: EncodedBatch) -> None:
    """Over all clients of the process; those of another key do not wait."""
    with serving(Say(body=a_batch(1), pause=0.3)) as server:
        providers = [Anthropic(key, server.url) for key in (KEY, KEY, "sk-ant-another")]
        threads = [threading.Thread(target=provider.submit, args=(batch, FORM)) for provider in providers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for provider in providers:
            provider.close()
    first, second = [asked.at for asked in server.asked if asked.headers["x-api-key"] == KEY]
    (other,) = [asked.at for asked in server.asked if asked.headers["x-api-key"] != KEY]
    assert second - first >= 0.3
    assert other < second


def test_a_create_that_failed_lets_the_next_one_go(batch: EncodedBatch) -> None:
    """Whatever its error was."""
    with connected(Drop(), refusal(400, "invalid_request_error"), CREATED) as (provider, _):
        with pytest.raises(UnknownOutcome):
            provider.submit(batch, FORM)
        with pytest.raises(BatchRefused):
            provider.submit(batch, FORM)
        assert provider.submit(batch, FORM) == "msgbatch_1"


# --- find


def listed(*items: Any, more: bool = False) -> Say:
    ids = [item["id"] for item in items if isinstance(item, dict)]
    first_and_last = {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
    return Say(body={"data": list(items), "has_more": more, **first_and_last})


def lines(*rows: Any, end: bytes = b"\n") -> Say:
    said = b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)
    return Say(body=said.removesuffix(b"\n") + end, headers={"content-type": "application/x-jsonl"})


def row(custom_id: Any = f"{TAG}-1-1", **result: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "result": result or {"type": "canceled"}}


OURS, THEIRS = lines(row(f"{TAG}-2-1"), row()), lines(row("abcd2345-70-1-1"))


def paths(server: Server) -> list[str]:
    """What was asked for, without what all paths begin with."""
    return [asked.path.removeprefix(f"{BATCHES}").removeprefix("/msgbatch_") for asked in server.asked]


def test_a_lost_batch_is_found_by_its_results(batch: EncodedBatch) -> None:
    """The ids of its requests begin with its tag; nothing is sent."""
    page = listed(ended(9), ended(8), ended(7, size=4))
    with connected(page, THEIRS, OURS) as (provider, server):
        assert provider.find(batch, FORM) == Found("msgbatch_8")
    assert paths(server) == ["", "9/results", "8/results"]
    assert {asked.method for asked in server.asked} == {"GET"}
    assert server.asked[0].query == {"limit": "1000"}


@pytest.mark.parametrize(
    "item",
    [
        ended(7, size=4),
        ended(7, size=2),
        ended(7, at=SENT - 3700),
        ended(5),
        {**ended(7), "id": None},
        "x",
    ],
    ids=["larger", "smaller", "older", "of another intent", "nameless", "no batch"],
)
def test_a_batch_that_can_not_be_it_is_not_looked_into(item: Any, batch: EncodedBatch) -> None:
    """By its size, its age, or because it is known to be another."""
    known = replace(batch, others=frozenset({"msgbatch_5"}))
    with connected(listed(item)) as (provider, server):
        assert provider.find(known, FORM) is None
    assert paths(server) == [""]


@pytest.mark.parametrize(
    "changes",
    [
        {"request_counts": None},
        {"request_counts": {}},
        {"request_counts": {"processing": "3"}},
        {"request_counts": {"processing": 0, "succeeded": 3, "total": 3}},
        {"created_at": None},
        {"created_at": "soon"},
    ],
    ids=str,
)
def test_a_batch_that_says_too_little_may_be_it(changes: dict[str, Any], batch: EncodedBatch) -> None:
    """Its results tell; it is not sent again for a field that can't be read."""
    with connected(listed(ended(7, **changes)), OURS) as (provider, _):
        assert provider.find(batch, FORM) == Found("msgbatch_7")


def test_a_batch_before_the_clock_of_ours_may_be_it(batch: EncodedBatch) -> None:
    """The provider's clock and ours may differ: what time it is there, its answers say."""
    behind = {"date": formatdate(time.time() - 3500, usegmt=True)}
    page = replace(listed(ended(7, at=SENT - 3500)), headers=behind)
    with connected(page, replace(OURS, headers=behind)) as (provider, _):
        assert provider.find(batch, FORM) == Found("msgbatch_7")


@pytest.mark.parametrize("at", [SENT - 1000, SENT + 2000])
def test_a_batch_of_another_time_is_not_waited_for(at: float, batch: EncodedBatch) -> None:
    """It may run for ever; the lost one was made when it was sent, give or take the time to settle."""
    with connected(listed(a_batch(7, at=at)), now=SENT + 3000) as (provider, server):
        assert provider.find(batch, FORM) is None
    assert paths(server) == [""]


@pytest.mark.parametrize("status", ["in_progress", "canceling"])
def test_a_batch_that_has_not_ended_can_not_be_told_yet(status: str, batch: EncodedBatch) -> None:
    """Nothing is sent while it runs, however long that is; the sentence names it."""
    page = listed(a_batch(9, processing_status=status), a_batch(8, processing_status=status))
    with connected(page) as (provider, server), pytest.raises(UnknownOutcome) as caught:
        provider.find(batch, FORM)
    assert "it may be msgbatch_8 or msgbatch_9" in caught.value.message
    assert TAG in caught.value.message
    assert caught.value.retry_after == 60
    assert paths(server) == [""]


def test_a_batch_in_a_state_that_is_not_known_is_told_by_its_results(batch: EncodedBatch) -> None:
    """Where it has some: a state that stays as it is would be waited for without end."""
    with connected(listed(a_batch(9, processing_status="something new")), OURS) as (provider, _):
        assert provider.find(batch, FORM) == Found("msgbatch_9")


def test_a_batch_in_a_state_that_is_not_known_is_not_waited_for_if_it_is_anothers(batch: EncodedBatch) -> None:
    """The lost one was never accepted then."""
    with connected(listed(a_batch(9, processing_status="something new")), THEIRS) as (provider, _):
        assert provider.find(batch, FORM) is None


def test_a_batch_that_runs_is_asked_after_as_it_would_be_polled(batch: EncodedBatch) -> None:
    """In growing pauses."""
    pauses = []
    with connected(listed(a_batch(9))) as (provider, _):
        for _ in range(6):
            with pytest.raises(UnknownOutcome) as caught:
                provider.find(batch, FORM)
            pauses.append(caught.value.retry_after)
    assert pauses == [60, 90, 135, 202.5, 300, 300]


def test_results_of_others_are_read_once(batch: EncodedBatch) -> None:
    """For all lost batches; one of them may be theirs."""
    script = [listed(a_batch(9), ended(8)), THEIRS, listed(ended(9), ended(8)), OURS, listed(ended(9), ended(8))]
    with connected(*script) as (provider, server):
        with pytest.raises(UnknownOutcome):
            provider.find(batch, FORM)
        assert provider.find(batch, FORM) == Found("msgbatch_9")
        assert provider.find(replace(batch, tag="abcd2345-70"), FORM) == Found("msgbatch_8")
    assert paths(server) == ["", "8/results", "", "9/results", ""]


def test_one_that_is_ours_is_enough(batch: EncodedBatch) -> None:
    """Another that still runs is most likely another's."""
    with connected(listed(a_batch(9), ended(8)), OURS) as (provider, _):
        assert provider.find(batch, FORM) == Found("msgbatch_8")


def test_results_are_looked_into_and_left(batch: EncodedBatch) -> None:
    """Only the beginning is read, past what can't be."""
    body = b"\n".join([b"broken", b"[]", b'{"custom_id":null}', *[json.dumps(row()).encode()] * 300_000])
    with connected(listed(ended(7)), Say(body=body)) as (provider, _):
        tracemalloc.start()
        try:
            assert provider.find(batch, FORM) == Found("msgbatch_7")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 3_000_000


@pytest.mark.parametrize(
    "said",
    [refusal(404, "not_found_error"), refusal(400, "invalid_request_error"), lines(end=b""), lines(b"broken")],
    ids=str,
)
def test_results_that_are_not_there_yet_tell_nothing(said: Say, batch: EncodedBatch) -> None:
    """They are asked for again."""
    page = listed(ended(7))
    with connected(page, said, page, OURS) as (provider, _):
        with pytest.raises(UnknownOutcome, match="msgbatch_7"):
            provider.find(batch, FORM)
        assert provider.find(batch, FORM) == Found("msgbatch_7")


def test_results_that_are_gone_tell_nothing_any_more(batch: EncodedBatch) -> None:
    """The batch may have been paid: the user decides. Another that is ours is found all the same."""
    archived = ended(7, archived_at="2026-12-22T08:00:00Z")
    with connected(listed(archived)) as (provider, server), pytest.raises(CantTell, match="msgbatch_7") as caught:
        provider.find(batch, FORM)
    assert caught.value.next_step == "look for it at the provider: it has 3 requests"
    assert paths(server) == [""]
    with connected(listed(archived, ended(8)), OURS) as (provider, _):
        assert provider.find(batch, FORM) == Found("msgbatch_8")


def test_of_two_the_oldest_stays(batch: EncodedBatch, caplog: pytest.LogCaptureFixture) -> None:
    """The other is a copy, which is paid as well."""
    page = listed(ended(9, SENT + 90), ended(7, SENT + 80))
    with connected(page, OURS, OURS) as (provider, server):
        assert provider.find(batch, FORM) == Found("msgbatch_7", ("msgbatch_9",))
    assert {asked.method for asked in server.asked} == {"GET"}
    assert "msgbatch_7 is kept" in caplog.text


def test_lists_are_read_page_by_page_back_to_the_time_of_sending(batch: EncodedBatch) -> None:
    """And not further: an account may have thousands of old batches."""
    pages = [
        listed(ended(9, size=5), ended(8, size=5), more=True),
        listed(ended(7, size=5), ended(6), more=True),
        listed(ended(5, SENT - 90_000), more=True),
    ]
    with connected(*pages, OURS) as (provider, server):
        assert provider.find(batch, FORM) == Found("msgbatch_6")
    assert [asked.query.get("after_id") for asked in server.asked] == [None, "msgbatch_8", "msgbatch_6", None]


def test_a_batch_that_is_listed_twice_is_one(batch: EncodedBatch) -> None:
    """A list that moves while it is read shows one again."""
    with connected(listed(ended(7), more=True), listed(ended(7), ended(6, size=9)), OURS) as (provider, server):
        assert provider.find(batch, FORM) == Found("msgbatch_7")
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "page", [listed(more=True), listed(ended(9, size=5), more=True), Say(body={"data": [5, "x"], "has_more": True})]
)
def test_a_list_that_breaks_off_is_an_error(page: Say, batch: EncodedBatch) -> None:
    """One that promises more and brings the same, or nothing: it does not show that a batch is not there."""
    with connected(page) as (provider, server), pytest.raises(CantTell, match="breaks off"):
        provider.find(batch, FORM)
    assert len(server.asked) <= 2


@pytest.mark.parametrize("said", [{}, None, "x", 5, [], {"data": None}, {"data": {}}])
def test_what_is_no_list_is_an_error(said: Any, batch: EncodedBatch) -> None:
    """Not an empty one, after which the batch would be sent again."""
    with connected(Say(body=said)) as (provider, server), pytest.raises(Transient):
        provider.find(batch, FORM)
    assert {asked.method for asked in server.asked} == {"GET"}


def test_an_empty_list_proves_nothing_for_a_while(batch: EncodedBatch) -> None:
    """New batches can stay invisible for minutes: nothing is sent, and it says how long."""
    with connected(listed(), now=SENT + 400) as (provider, server), pytest.raises(UnknownOutcome) as caught:
        provider.find(batch, FORM)
    assert caught.value.retry_after == 200
    assert {asked.method for asked in server.asked} == {"GET"}


def test_after_a_while_a_batch_that_is_not_there_was_never_accepted(batch: EncodedBatch) -> None:
    """Nothing is sent here: sending its requests again is a batch of its own."""
    with connected(listed(), now=SENT + 601) as (provider, server):
        assert provider.find(batch, FORM) is None
    assert {asked.method for asked in server.asked} == {"GET"}


def test_the_time_runs_from_the_lost_answer(batch: EncodedBatch) -> None:
    """Which may be long after the intent."""
    with connected(Drop(), listed(), now=SENT + 700) as (provider, server):
        with pytest.raises(UnknownOutcome, match="broke"):
            provider.submit(batch, FORM)
        with pytest.raises(UnknownOutcome, match="600 s"):
            provider.find(batch, FORM)
    assert [asked.method for asked in server.asked].count("POST") == 1


def test_without_a_time_nothing_is_sent(batch: EncodedBatch) -> None:
    """Nobody can tell how long ago it was."""
    with connected(listed()) as (provider, server), pytest.raises(UnknownOutcome, match="not known"):
        provider.find(replace(batch, sent_at=0.0), FORM)
    assert {asked.method for asked in server.asked} == {"GET"}


def test_the_time_to_settle_can_be_set(batch: EncodedBatch) -> None:
    """A gateway that lists at once needs none."""
    with connected(listed(), now=SENT, settle=0) as (provider, _):
        assert provider.find(batch, FORM) is None


# --- poll and cancel


@pytest.mark.parametrize(
    ("wording", "phase"),
    [
        ("in_progress", BatchPhase.RUNNING),
        ("canceling", BatchPhase.RUNNING),
        ("ended", BatchPhase.ENDED),
        ("something new", BatchPhase.RUNNING),
        ("", BatchPhase.RUNNING),
        (None, BatchPhase.RUNNING),
    ],
)
def test_each_state_is_a_phase(wording: str | None, phase: BatchPhase) -> None:
    """From a word that we don't know nothing is concluded."""
    counts = {"processing": 50, "succeeded": 100, "errored": 30, "canceled": 15, "expired": 5}
    with connected(Say(body=a_batch(1, processing_status=wording, request_counts=counts))) as (provider, server):
        status = provider.poll("msgbatch_1")
    created_at = datetime.fromtimestamp(SENT + 60, UTC)
    assert status == BatchStatus("msgbatch_1", phase, wording or "unknown", created_at=created_at)
    assert (server.asked[0].method, server.asked[0].path) == ("GET", f"{BATCHES}/msgbatch_1")


@pytest.mark.parametrize(
    "extra",
    [
        {}, {"processing_status": 5}, {"processing_status": {}}, {"request_counts": None}, {"request_counts": {}},
        {"request_counts": {"succeeded": "5", "errored": -1, "expired": None}}, {"request_counts": [1]},
        {"created_at": "soon"}, {"created_at": {}},
    ],
    ids=str,
)  # fmt: skip
def test_a_batch_may_say_little(extra: dict[str, Any]) -> None:
    """Without a word that is known it is running."""
    status = read_status({"id": "b", **extra})
    assert (status.phase, status.error) == (BatchPhase.RUNNING, None)
    assert status.created_at is None


@pytest.mark.parametrize("said", [{}, [], None, "running", 5, {"processing_status": "ended"}, {"id": None}])
def test_what_is_no_batch_is_an_error_of_the_provider(said: Any) -> None:
    """Not a traceback, and not a batch without answers."""
    with connected(Say(200, said)) as (provider, _):
        for call in (provider.poll, provider.cancel, lambda batch_id: list(provider.results(batch_id, FORM))):
            with pytest.raises(ProviderError) as caught:
                call("msgbatch_1")
            assert caught.value.provider == "anthropic"


def test_a_batch_that_is_not_known_is_not_found() -> None:
    """It may not be visible yet: that is the caller's to judge."""
    with connected(refusal(404, "not_found_error")) as (provider, server), pytest.raises(NotFound):
        provider.poll("msgbatch_1")
    assert len(server.asked) == 1


@pytest.mark.parametrize("trouble", [Say(529), Say(500), Say(429, headers={"retry-after": "0"}), Drop()], ids=repr)
def test_looking_after_a_batch_is_repeated(trouble: Step) -> None:
    """It does no harm."""
    with connected(trouble, Say(body=a_batch(1))) as (provider, _):
        assert provider.poll("msgbatch_1").wording == "in_progress"


def test_what_is_of_no_use_to_repeat_is_not_repeated() -> None:
    """The provider says so."""
    with connected(Say(529, headers={"x-should-retry": "false"})) as (provider, server), pytest.raises(Transient):
        provider.poll("msgbatch_1")
    assert len(server.asked) == 1


def test_cancelling_is_asked_for_and_told() -> None:
    """With an empty body; the batch's own word for it."""
    with connected(Say(body=a_batch(1, processing_status="canceling"))) as (provider, server):
        assert provider.cancel("msgbatch_1").wording == "canceling"
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.body) == ("POST", f"{BATCHES}/msgbatch_1/cancel", b"")


def test_a_batch_that_ended_before_it_was_cancelled_is_told_as_it_is() -> None:
    """The service may refuse; one that still runs is a refusal in earnest."""
    for refused in (refusal(409, "conflict_error"), refusal(400, "invalid_request_error")):
        with connected(refused, Say(body=ended(1))) as (provider, _):
            assert provider.cancel("msgbatch_1").phase is BatchPhase.ENDED
        with connected(refused, Say(body=a_batch(1))) as (provider, _), pytest.raises(BatchRefused):
            provider.cancel("msgbatch_1")


# --- results


def message(*content: Any, stop: Any = "end_turn", **changes: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 5,
        "output_tokens": 3,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 2,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "service_tier": "batch",
    }
    said = {"type": "message", "role": "assistant", "content": list(content), "stop_reason": stop, "usage": usage}
    return {"type": "succeeded", "message": {**said, **changes}}


def text(said: Any) -> dict[str, Any]:
    return {"type": "text", "text": said}


X = text("x")


def answered(number: int, said: str = "x") -> dict[str, Any]:
    return {"custom_id": f"{TAG}-{number}-1", "result": message(text(said))}


def read(result: Any, form: RequestForm = FORM, **options: Any) -> Answer:
    line = json.dumps({"custom_id": f"{TAG}-1-1", "result": result}).encode()
    answer = AnswerReader(form, **options).read(json.loads(line))
    assert answer is not None
    return answer


def test_results_are_read_at_our_own_address() -> None:
    """The batch names another: a key goes to no other host."""
    with connected(Say(body=ended(1, size=2)), lines(answered(2), answered(0, "ü"))) as (provider, server):
        found = list(provider.results("msgbatch_1", FORM))
    assert [(answer.custom_id, answer.text) for answer in found] == [(f"{TAG}-2-1", "x"), (f"{TAG}-0-1", "ü")]
    assert paths(server) == ["1", "1/results"]
    assert {asked.headers["x-api-key"] for asked in server.asked} == {KEY}


def test_an_address_that_leads_elsewhere_is_not_followed() -> None:
    """Nor is it an empty result."""
    moved = Say(302, headers={"location": "https://elsewhere.example/x"})
    with connected(Say(body=ended(1)), moved) as (provider, _), pytest.raises(BatchRefused):
        list(provider.results("msgbatch_1", FORM))


def test_results_that_are_not_there_are_told() -> None:
    """Archived or not known: not an empty result."""
    archived = Say(body=ended(1, archived_at="2026-12-22T08:00:00Z"))
    with connected(archived) as (provider, server), pytest.raises(NotFound, match="29 days"):
        list(provider.results("msgbatch_1", FORM))
    assert len(server.asked) == 1
    with connected(Say(body=ended(1)), refusal(404, "not_found_error")) as (provider, _), pytest.raises(NotFound):
        list(provider.results("msgbatch_1", FORM))


def test_lines_that_can_not_be_read_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """As answers that name nobody; their content is in no log."""
    bad = [
        b"", b"  ", b"{secret", b"[]", b"null", b"5", b'{"custom_id":null}', b'{"custom_id":5}', b'{"custom_id":""}',
        b'{"type":"error","error":{"type":"overloaded_error"}}', b"\xff",
    ]  # fmt: skip
    with connected(Say(body=ended(1)), lines(answered(0), *bad, answered(1), end=b"")) as (provider, _):
        found = list(provider.results("msgbatch_1", FORM))
    assert [answer.custom_id for answer in found if answer.custom_id] == [f"{TAG}-0-1", f"{TAG}-1-1"]
    assert [answer.failure for answer in found if not answer.custom_id] == [UNREADABLE] * 9
    assert "9 lines of the batch msgbatch_1 name no request" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "secret" not in caplog.text


LINES = [json.dumps(answered(n, "ü" * n)).encode() for n in range(200)]
BODY = b"\r\n".join(LINES)  # the last without an end


@pytest.mark.parametrize("cut", [0, 1, 100, len(BODY) // 2, len(BODY) - 1])
@pytest.mark.parametrize("reset", [False, True])
def test_a_stream_that_breaks_is_read_anew(cut: int, monkeypatch: pytest.MonkeyPatch, *, reset: bool) -> None:
    """From its start: the second time it may have another order, and two halves are never joined."""
    monkeypatch.setattr("blocks.transport.DOWNLOAD_CHUNK", 1000)
    part = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY[:cut]
    again = Say(body=b"\r\n".join(reversed(LINES)))
    script: list[Step] = [Say(body=ended(1)), Drop(after=part, reset=reset), Say(529), again]
    with connected(*script) as (provider, server):
        found = {answer.custom_id: answer.text for answer in once_each(provider.results("msgbatch_1", FORM)).values()}
    assert found == {f"{TAG}-{n}-1": "ü" * n for n in range(200)}
    assert len(server.asked) == 4


USAGE = Usage(7, 3, 2)
CUT = Failure(FailureKind.CUT_OFF, "length", "the answer was cut off at the limit of output tokens", billed=True)
FULL = Failure(
    FailureKind.TERMINAL,
    "model_context_window_exceeded",
    "prompt and answer do not fit into the model's context window",
    billed=True,
)
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}
CALLED = {"type": "tool_use", "id": "t", "name": "answer", "input": {"a": [1, "ü"]}}


def transient(code: str, said: str = "the provider gave neither an answer nor a reason") -> Failure:
    return Failure(FailureKind.TRANSIENT, code, said)


def refused(said: str) -> Failure:
    return Failure(FailureKind.REFUSED, "refusal", said, billed=True)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (message(X), ("x", USAGE, None)),
        (message(text("a"), text("b")), ("ab", USAGE, None)),
        (message(THOUGHT, X, text(None), 5, {"type": "new", "text": "n"}), ("x", USAGE, None)),
        (message(), ("", USAGE, None)),
        (message(X, stop="stop_sequence"), ("x", USAGE, None)),
        (message(X, stop=None), ("x", USAGE, None)),
        (message(X, stop={}), ("x", USAGE, None)),
        (message(X, stop="pause_turn"), ("x", USAGE, None)),
        (message(X, stop="something new"), ("x", USAGE, None)),
        (message(X, CALLED, stop="tool_use"), ('{"a":[1,"ü"]}', USAGE, None)),
        (message(X, stop="tool_use"), ("x", USAGE, None)),
        (message(text("ha"), stop="max_tokens"), (None, USAGE, CUT)),
        (message(text("ha"), stop="model_context_window_exceeded"), (None, USAGE, FULL)),
        (message(text("I"), stop="refusal"), (None, USAGE, refused("the model declined to answer"))),
        (message(stop="refusal", stop_details={"category": "bio", "explanation": None}),
         (None, USAGE, refused("bio"))),
        (message(stop="refusal", stop_details={"category": "bio", "explanation": "why"}),
         (None, USAGE, refused("why"))),
        (message(content=None),
         (None, USAGE, transient("no_answer", "the answer has no content")._replace(billed=True))),
        ({"type": "succeeded"}, (None, None, transient("no_answer", "the answer has no content"))),
        ({"type": "canceled"},
         (None, None, Failure(FailureKind.NOT_RUN, "canceled", "the batch was cancelled before the request ran"))),
        ({"type": "expired"},
         (None, None, Failure(FailureKind.NOT_RUN, "expired", "the batch expired before the request ran"))),
        ({"type": "postponed"}, (None, None, transient("postponed"))),
        ({"type": 5}, (None, None, transient("no_answer"))),
        ({}, (None, None, transient("no_answer"))),
        (None, (None, None, transient("no_answer"))),
    ],
    ids=lambda value: str(value)[:70],
)  # fmt: skip
def test_each_result_is_an_answer(result: Any, expected: tuple[Any, ...]) -> None:
    """What passes goes again, what is final does not, what never ran is excused; what was cut off is billed."""
    assert read(result) == Answer(f"{TAG}-1-1", *expected)


def test_an_answer_of_the_default_length_is_cut_off_as_well() -> None:
    """The next one may be longer."""
    assert read(message(X, stop="max_tokens"), RequestForm("m")).failure == CUT


def error(kind: Any, code: str | None = None, words: Any = "why") -> dict[str, Any]:
    found = {"type": kind, "message": words}
    return {**found, "details": {"error_code": code}} if code else {**found, "details": None}


@pytest.mark.parametrize(
    ("inner", "meaning", "code"),
    [
        (error("invalid_request_error"), FailureKind.TERMINAL, "invalid_request_error"),
        (error("invalid_request_error", "new_code"), FailureKind.TERMINAL, "new_code"),
        (error("not_found_error"), FailureKind.TERMINAL, "not_found_error"),
        (error("permission_error"), FailureKind.TERMINAL, "permission_error"),
        (error("request_too_large"), FailureKind.TERMINAL, "request_too_large"),
        (error("api_error"), FailureKind.TRANSIENT, "api_error"),
        (error("overloaded_error", words="invalid_request_error"), FailureKind.TRANSIENT, "overloaded_error"),
        (error("timeout_error"), FailureKind.TRANSIENT, "timeout_error"),
        (error("rate_limit_error", "ramp_limit_exceeded"), FailureKind.TRANSIENT, "ramp_limit_exceeded"),
        (error("authentication_error"), FailureKind.TRANSIENT, "authentication_error"),
        (error("invalid_request_error", "cmek_key_disabled"), FailureKind.TRANSIENT, "cmek_key_disabled"),
        (error("something_new"), FailureKind.TRANSIENT, "something_new"),
        (error("billing_error"), FailureKind.NOT_RUN, "billing_error"),
        (error("rate_limit_error", "enforced_spend_limit_reached"), FailureKind.NOT_RUN,
         "enforced_spend_limit_reached"),
    ],
    ids=lambda value: str(value)[:70],
)  # fmt: skip
def test_an_error_is_judged_by_its_type_and_code(inner: dict[str, Any], meaning: FailureKind, code: str) -> None:
    """Nested twice, as the service does, or once; never by its words. It costs nothing."""
    twice = {"type": "errored", "error": {"type": "error", "error": inner, "request_id": "req_1"}}
    for result in (twice, {"type": "errored", "error": inner}):
        assert read(result) == Answer(f"{TAG}-1-1", None, None, Failure(meaning, code, inner["message"]))


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, "unknown", "the provider gave no reason"),
        ({}, "unknown", "the provider gave no reason"),
        ("broken", "unknown", "broken"),
        ({"type": "error", "error": "broken"}, "error", "broken"),
        ({"type": "error", "error": {"type": None, "message": 5}}, "unknown", "the provider gave no reason"),
        ({"error": {"type": "x", "message": f"bad {KEY}"}}, "x", "bad sk-…"),
    ],
    ids=str,
)
def test_an_error_may_say_little(error: Any, code: str, said: str) -> None:
    """It may pass; no key is in it."""
    assert read({"type": "errored", "error": error}).failure == transient(code, said)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 7, "output_tokens": 3}, Usage(7, 3)),
        ({"input_tokens": 0, "output_tokens": 0}, Usage(0, 0)),
        ({"input_tokens": 7, "output_tokens": 3, "cache_read_input_tokens": 100}, Usage(107, 3, 100)),
        ({"input_tokens": 7, "output_tokens": 3, "cache_read_input_tokens": None,
          "cache_creation_input_tokens": None, "cache_creation": None}, Usage(7, 3)),
        ({"input_tokens": 7, "output_tokens": 3, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 50,
          "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 40}},
         Usage(77, 3, 20, 10, 40)),
        ({"input_tokens": 7, "output_tokens": 3,
          "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 40}},
         Usage(57, 3, 0, 10, 40)),
        ({"input_tokens": 7, "output_tokens": 3, "cache_creation_input_tokens": -5}, Usage(7, 3)),
        ({"input_tokens": 7, "output_tokens": 3, "output_tokens_details": {"thinking_tokens": 2}}, Usage(7, 3)),
        ({"input_tokens": 7}, None),
        ({"output_tokens": 7}, None),
        ({"input_tokens": "7", "output_tokens": 3}, None),
        ({"input_tokens": -7, "output_tokens": 3}, None),
        ({"input_tokens": 10**300, "output_tokens": 3}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
    ids=str,
)  # fmt: skip
def test_tokens_that_are_not_named_are_not_free(usage: Any, expected: Usage | None) -> None:
    """They are unknown. The input is the total, those read from and written to a cache included."""
    assert read(message(X, usage=usage)).usage == expected


@pytest.mark.parametrize(("cache", "expected"), [("1h", (10, 90)), ("5m", (60, 40)), ("off", (60, 40))])
def test_what_was_written_to_some_cache_was_written_to_the_one_asked_for(cache: str, expected: tuple[int, int]) -> None:
    """Where the answer does not say it, in whole or in part."""
    told = {"input_tokens": 7, "output_tokens": 3, "cache_creation_input_tokens": 100}
    known = {"cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 40}}
    assert read(message(X, usage={**told, **known}), cache=cache).usage == Usage(107, 3, 0, *expected)
    whole = Usage(107, 3, 0, 0, 100) if cache == "1h" else Usage(107, 3, 0, 100)
    assert read(message(X, usage=told), cache=cache).usage == whole
    assert usage_of(told) == Usage(107, 3, 0, 100)


# --- the capitals of choices


def schema_of(part: Any) -> RequestForm:
    return RequestForm("m", schema={"type": "object", "properties": {"a": part}})


MOOD = {"type": "string", "enum": ["Positive", "negative"]}


@pytest.mark.parametrize(
    ("part", "said", "meant"),
    [
        (MOOD, "positive", "Positive"),
        (MOOD, "NEGATIVE", "negative"),
        ({"enum": ["Positive", None]}, "POSITIVE", "Positive"),
        ({"const": "Yes"}, "yes", "Yes"),
        ({"anyOf": [MOOD, {"type": "null"}]}, "positive", "Positive"),
        ({"type": "array", "items": MOOD}, ["negative", "positive", "Negative"], ["negative", "Positive", "negative"]),
        ({"type": "object", "properties": {"b": MOOD, "c": MOOD}}, {"b": "positive", "c": "NEGATIVE", "d": "positive"},
         {"b": "Positive", "c": "negative", "d": "positive"}),
    ],
    ids=str,
)  # fmt: skip
def test_the_capitals_of_a_choice_are_put_right(part: Any, said: Any, meant: Any) -> None:
    """The service does not promise them."""
    answer = read(message(text(json.dumps({"a": said, "x": "POSITIVE"}))), schema_of(part))
    assert json.loads(answer.text or "") == {"a": meant, "x": "POSITIVE"}


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (MOOD, "Positive"),
        (MOOD, "posit"),
        (MOOD, 5),
        (MOOD, None),
        (MOOD, ["positive"]),
        ({"enum": ["US", "us", "Us"]}, "uS"),
        ({"enum": [1, 2]}, "one"),
        ({"enum": 5}, "x"),
        ({"anyOf": [MOOD, TEXT]}, "positive"),
        ({"anyOf": []}, "positive"),
        (TEXT, "positive"),
        (True, "positive"),
        ({"type": "array", "items": MOOD}, "positive"),
        ({"type": "object", "properties": {"b": MOOD}}, ["positive"]),
    ],
    ids=str,
)
def test_what_is_right_or_can_not_be_told_stays_as_it_was(part: Any, said: Any) -> None:
    """To the byte: the check that follows judges it."""
    words = f'{{ "a":{json.dumps(said)}}}\n'
    assert read(message(text(words)), schema_of(part)).text == words


@pytest.mark.parametrize("words", ["", "no JSON: positive", '"positive"', '{"a": "positive"', "[" * 600 + "]" * 600])
def test_what_is_no_json_object_stays_as_it_was(words: str) -> None:
    """The check that follows judges it."""
    assert read(message(text(words)), schema_of(MOOD)).text == words


# --- whatever comes

WORDS = [
    "id", "type", "error", "details", "error_code", "message", "custom_id", "result", "content", "text", "input",
    "usage", "stop_reason", "stop_details", "input_tokens", "output_tokens", "cache_creation", "request_counts",
    "processing", "succeeded", "processing_status", "created_at", "archived_at", "data", "has_more",
]  # fmt: skip
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(["succeeded", "errored", "tool_use", "refusal"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=8,
)


@given(json_values, json_values)
def test_no_answer_is_too_strange(thing: Any, other: Any) -> None:
    """Whatever JSON comes, it is read or refused as a provider's error."""
    reader = AnswerReader(schema_of(MOOD))
    messages = [thing, {"content": thing, "usage": other}, {"content": [thing], "stop_reason": other}]
    messages += [{"content": [{"type": "tool_use", "input": thing}], "stop_reason": "tool_use", "usage": other}]
    messages += [{"content": [], "stop_reason": "refusal", "stop_details": thing}]
    results = [thing, {"type": "errored", "error": thing}, {"type": "errored", "error": {"error": thing}}]
    results += [{"type": "succeeded", "message": said} for said in messages]
    for line in [thing, *({"custom_id": "a", "result": result} for result in results)]:
        answer = reader.read(line)
        assert answer is None or (answer.text is None) != (answer.failure is None)
    for found in (thing, {"id": "b", "processing_status": thing, "request_counts": other, "created_at": thing}):
        with suppress(ProviderError):
            read_status(found)


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
            with pytest.raises((Transient, UnknownOutcome)) as caught:
                call()
            assert caught.value.provider == "anthropic"
            assert KEY not in str(caught.value)
