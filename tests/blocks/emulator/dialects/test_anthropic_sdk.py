"""Anthropic's own Python SDK, with its strictest validation, finds in the emulator the service it was written for."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import orjson
import pytest

from blocks.emulator import EmulatorOptions, running_emulator
from tests.blocks.emulator.client import wait_until
from tests.blocks.emulator.dialects.anthropic_client import MODEL, Json, one, params_for, rows_for
from tests.blocks.emulator.sdks import Sdk

anthropic = Sdk("anthropic")

pytestmark = pytest.mark.xdist_group("anthropic sdk")

Start = Callable[..., Any]


@contextmanager
def started(**options: Any) -> Iterator[Any]:
    with (
        running_emulator(EmulatorOptions(dialect="anthropic", **options)) as emulator,
        connected(emulator.base_url) as sdk,
    ):
        yield sdk


def connected(base_url: str, kind: str = "Anthropic", **key: Any) -> Any:
    return getattr(anthropic, kind)(
        **(key or {"api_key": "test-key"}), base_url=base_url, max_retries=0, _strict_response_validation=True
    )


@pytest.fixture(autouse=True)
def without_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK takes keys and more from there."""
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "ANTHROPIC_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def plain() -> Iterator[Any]:
    with started(latency=0.0) as sdk:
        yield sdk


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(started(**options))


def results_of(sdk: Any, requests: list[Json]) -> dict[str, Any]:
    """Results of a batch, each checked against the SDK's model: it reads lines without checking them."""
    batch = sdk.messages.batches.create(requests=requests)
    lines = [line.model_dump(mode="json") for line in sdk.messages.batches.results(batch.id)]
    model = anthropic.types.messages.MessageBatchIndividualResponse
    return {line["custom_id"]: model.model_validate(line).result for line in lines}


def test_batch_is_created_polled_and_read(plain: Any) -> None:
    """The provider's own client understands a batch from its creation to its last line."""
    batches = plain.messages.batches
    created = batches.create(requests=rows_for(20))
    assert (created.processing_status, created.request_counts.processing) == ("in_progress", 20)
    assert (created.expires_at - created.created_at).total_seconds() == 86400
    batch = batches.retrieve(created.id)
    assert (batch.processing_status, batch.request_counts.succeeded) == ("ended", 20)
    lines = list(batches.results(batch.id))
    assert {line.custom_id for line in lines} == {row["custom_id"] for row in rows_for(20)}
    for line in lines:
        assert orjson.loads(line.result.message.content[0].text)["sentiment"] == "positive"
        assert line.result.message.usage.service_tier == "batch"


def test_results_of_every_kind_are_what_the_models_of_the_sdk_say(start: Start) -> None:
    """Strict models of the SDK accept every result that faults can cause."""
    cached = [{"type": "text", "text": "x" * 20_000, "cache_control": {"type": "ephemeral"}}]
    rows = [
        *rows_for(40, system=cached),
        *one("wrong", max_tokens=0),
    ]
    faults = {
        "failure_rate": 0.2,
        "timeout_rate": 0.1,
        "refusal_rate": 0.1,
        "length_rate": 0.2,
        "unexplained_rate": 0.1,
    }
    results = results_of(start(latency=0.0, **faults), rows)
    assert {result.type for result in results.values()} == {"succeeded", "errored"}
    reasons = {result.message.stop_reason for result in results.values() if result.type == "succeeded"}
    assert {"end_turn", "max_tokens", "refusal"} <= reasons
    assert results["wrong"].error.error.type == "invalid_request_error"
    expired = results_of(start(latency=0.0, expire_every=1), rows_for(4))
    assert {result.type for result in expired.values()} == {"succeeded", "expired"}


def test_cache_is_written_and_read(plain: Any) -> None:
    """The SDK sees tokens written for an hour and tokens read."""
    cached = [{"type": "text", "text": "x" * 20_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    usages = [result.message.usage for result in results_of(plain, rows_for(20, system=cached)).values()]
    assert {usage.cache_read_input_tokens for usage in usages} == {0, 5000}
    assert {usage.cache_creation.ephemeral_1h_input_tokens for usage in usages} == {0, 5000}


def test_lists_are_paged_to_their_end(start: Start) -> None:
    """The SDK's iterator walks all pages, also from the middle."""
    batches = start(latency=0.0).messages.batches
    assert list(batches.list()) == []
    ids = [batches.create(requests=one()).id for _ in range(5)][::-1]
    assert [batch.id for batch in batches.list(limit=2)] == ids
    assert [batch.id for batch in batches.list(limit=2, after_id=ids[1])] == ids[2:]


def test_batch_is_cancelled(start: Start) -> None:
    """The SDK sees it canceling, then ended; cancelling again is its BadRequestError."""
    batches = start(latency=10.0).messages.batches
    batch = batches.create(requests=rows_for(10))
    cancelled = batches.cancel(batch.id)
    assert (cancelled.processing_status, cancelled.request_counts.processing) == ("canceling", 10)
    wait_until(lambda: batches.retrieve(batch.id).processing_status == "ended")
    assert {line.result.type for line in batches.results(batch.id)} <= {"canceled", "succeeded"}
    with pytest.raises(anthropic.BadRequestError):
        batches.cancel(batch.id)


def test_results_asked_for_too_early_are_missed(start: Start) -> None:
    """Without an address of results the SDK raises before it calls."""
    batches = start(latency=60.0).messages.batches
    batch = batches.create(requests=one())
    with pytest.raises(anthropic.AnthropicError, match="results_url"):
        batches.results(batch.id)


@pytest.mark.parametrize("key", [{"api_key": "s3cret"}, {"auth_token": "s3cret"}])
def test_either_way_of_saying_the_key_is_understood(start: Start, key: dict[str, str]) -> None:
    """API key and auth token both work, with the older version as well."""
    address = str(start(key="s3cret", latency=0.0).base_url)
    with connected(address, **key) as sdk:
        assert sdk.messages.batches.create(requests=one()).type == "message_batch"
        older = sdk.with_options(default_headers={"anthropic-version": "2023-06-01", "X-Api-Key": "s3cret"})
        assert len(older.messages.batches.list().data) == 1


def test_errors_are_those_that_the_sdk_knows(start: Start) -> None:
    """Each status is raised as the SDK's exception for it, with the request's id."""
    sdk = start(rate_limit_every=2, quota_every=3, retry_after=7, key="test-key")
    create = sdk.messages.batches.create
    with pytest.raises(anthropic.BadRequestError, match="String should match pattern") as refused:
        create(requests=one("a b"))
    assert refused.value.request_id == refused.value.body["request_id"]
    with pytest.raises(anthropic.RateLimitError) as limited:
        create(requests=one())
    assert limited.value.response.headers["retry-after"] == "7"
    with pytest.raises(anthropic.RateLimitError) as spent:
        create(requests=one())
    assert spent.value.body["error"]["details"]["error_code"] == "enforced_spend_limit_reached"
    assert "retry-after" not in spent.value.response.headers
    with pytest.raises(anthropic.NotFoundError):
        sdk.messages.batches.retrieve("none")
    with pytest.raises(anthropic.AuthenticationError), connected(str(sdk.base_url), api_key="wrong") as other:
        other.messages.batches.list()


@pytest.mark.parametrize(
    ("options", "error"), [({"error_rate": 1.0}, "OverloadedError"), ({"max_bytes": 9}, "ContentTooLargeError")]
)
def test_errors_by_status_are_too(start: Start, options: dict[str, Any], error: str) -> None:
    """Overload and too large a body are raised as classes of their own."""
    with pytest.raises(getattr(anthropic, error)):
        start(**options).messages.batches.create(requests=one())


def test_refused_create_is_repeated_by_the_sdk_itself_unless_told_not_to(start: Start) -> None:
    """It obeys `retry-after-ms` and `x-should-retry`, and no batch is made twice."""
    options = {"rate_limit_every": 2, "retry_after": 0.01, "retry_header": "retry-after-ms"}
    willing = start(**options).with_options(max_retries=2)
    ids = {willing.messages.batches.create(requests=one()).id for _ in range(3)}
    assert len(ids) == len(list(willing.messages.batches.list())) == 3
    told = start(**options, should_retry="false").with_options(max_retries=2)
    told.messages.batches.create(requests=one())
    with pytest.raises(anthropic.RateLimitError):
        told.messages.batches.create(requests=one())


def test_asynchronous_client_finds_the_same(plain: Any) -> None:
    """The SDK's async client reads as many results."""

    async def run() -> int:
        async with connected(str(plain.base_url), "AsyncAnthropic") as sdk:
            batch = await sdk.messages.batches.create(requests=rows_for(5))
            return len([line async for line in await sdk.messages.batches.results(batch.id)])

    assert asyncio.run(run()) == 5


def test_older_version_is_still_spoken(plain: Any) -> None:
    """The SDK may send the older version, which accepts a temperature."""
    older = plain.with_options(default_headers={"anthropic-version": "2023-06-01"})
    rows = [{"custom_id": "a", "params": params_for(temperature=0.5)}]
    assert results_of(older, rows)["a"].message.model.startswith(MODEL)
    assert results_of(plain, rows)["a"].error.error.type == "invalid_request_error"


def test_every_method_of_batches_was_thought_of(plain: Any) -> None:
    """A new method in a new version of the SDK shows here. Deleting is not spoken: our client never does."""
    found = inspect.getmembers(type(plain.messages.batches), inspect.isfunction)
    methods = {name for name, _ in found if not name.startswith(("_", "with_"))}
    assert methods == {"create", "retrieve", "list", "cancel", "delete", "results"}
