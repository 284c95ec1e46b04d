"""Google's own Python SDK finds in the emulator the service that it was written for."""

import asyncio
import inspect
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from blocks.emulator import EmulatorOptions, running_emulator
from tests.blocks.emulator.client import SCHEMA, wait_until
from tests.blocks.emulator.dialects.gemini_client import MODEL, Json, rows_for
from tests.blocks.emulator.dialects.openai_client import jsonl
from tests.blocks.emulator.sdks import Sdk

genai = Sdk("google.genai")
types = Sdk("google.genai.types")
errors = Sdk("google.genai.errors")

pytestmark = pytest.mark.xdist_group("gemini sdk")

Start = Callable[..., Any]
VERSIONS = ("v1", "v1beta")


@contextmanager
def started(version: str = "v1beta", **options: Any) -> Iterator[Any]:
    with running_emulator(EmulatorOptions(dialect="gemini", **options)) as emulator:
        sdk = connected(emulator.base_url, version)
        try:
            yield sdk
        finally:
            sdk.close()


def connected(base_url: str, version: str = "v1beta", **options: Any) -> Any:
    http = types.HttpOptions(base_url=base_url, api_version=version, **options)
    return genai.Client(api_key="test-key", http_options=http)


@pytest.fixture(scope="module", params=VERSIONS)
def plain(request: pytest.FixtureRequest) -> Iterator[Any]:
    with started(version=request.param, latency=0.0) as sdk:
        yield sdk


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(started(**options))


def inlined(count: int, **config: Any) -> list[Any]:
    """Requests as the SDK builds them."""
    wanted = types.GenerateContentConfig(
        system_instruction="You label reviews.",
        response_mime_type="application/json",
        response_json_schema=SCHEMA,
        **config,
    )
    return [
        types.InlinedRequest(
            contents=f"Review {number}: the sound is great", config=wanted, metadata={"key": f"testrun0-{number}-1"}
        )
        for number in range(count)
    ]


def upload(sdk: Any, rows: list[Json]) -> Any:
    return sdk.files.upload(file=io.BytesIO(jsonl(rows)), config={"mime_type": "application/jsonl"})


def submit(sdk: Any, count: int = 3, name: str = "run1-1") -> Any:
    return sdk.batches.create(model=MODEL, src=inlined(count), config={"display_name": name})


def state(sdk: Any, name: str) -> str:
    return str(sdk.batches.get(name=name).state.value)


def test_inlined_batch_is_created_polled_and_read(plain: Any) -> None:
    """The provider's own client finds each answer beside the metadata that it sent."""
    job = submit(plain, 20)
    assert (job.state.value, job.display_name, job.model) == ("JOB_STATE_PENDING", "run1-1", f"models/{MODEL}")
    job = plain.batches.get(name=job.name)
    assert (job.state.value, job.done, job.end_time >= job.create_time) == ("JOB_STATE_SUCCEEDED", True, True)
    responses = job.dest.inlined_responses
    assert {each.metadata["key"] for each in responses} == {f"testrun0-{number}-1" for number in range(20)}
    for each in responses:
        assert orjson.loads(each.response.text)["sentiment"] == "positive"
        usage = each.response.usage_metadata
        written = usage.candidates_token_count + (usage.thoughts_token_count or 0)
        assert usage.total_token_count == usage.prompt_token_count + written


def test_batch_of_a_file_is_created_polled_and_downloaded(plain: Any, tmp_path: Path) -> None:
    """The SDK uploads, creates, polls and downloads without special treatment."""
    path = tmp_path / "batch.jsonl"
    path.write_bytes(jsonl(rows_for(20)))
    file = plain.files.upload(file=path, config={"display_name": "run1", "mime_type": "application/jsonl"})
    assert (file.display_name, file.size_bytes, file.state.value) == ("run1", path.stat().st_size, "ACTIVE")
    job = plain.batches.create(model=MODEL, src=file.name, config={"display_name": "run1-1"})
    job = plain.batches.get(name=job.name)
    content = plain.files.download(file=job.dest.file_name)
    keys = set()
    for line in map(orjson.loads, content.splitlines()):
        keys.add(line["key"])
        answer = types.GenerateContentResponse.model_validate(line["response"])
        assert orjson.loads(answer.text)["sentiment"] == "positive"
    assert keys == {row["key"] for row in rows_for(20)}
    plain.files.download(file=job.dest.file_name, destination=tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == content
    with pytest.raises(ValueError, match="can't be downloaded"):
        plain.files.download(file=file)


@pytest.mark.parametrize("fault", ["refusal_rate", "length_rate", "invalid_rate", "failure_rate", "unexplained_rate"])
def test_answers_that_went_wrong_are_what_the_models_of_the_sdk_say(start: Start, fault: str) -> None:
    """Errors, refusals and cut-off answers parse into the SDK's types."""
    sdk = start(latency=0.0, **{fault: 1.0})
    responses = sdk.batches.get(name=submit(sdk, 10).name).dest.inlined_responses
    assert len(responses) == 10
    for each in responses:
        failed = fault in ("failure_rate", "unexplained_rate")
        assert (each.response is None, each.error is not None) == (failed, failed)
        if fault == "refusal_rate":
            assert each.response.text is None
    codes = {"failure_rate": {500}, "unexplained_rate": {None}}
    assert {each.error.code for each in responses if each.error} == codes.get(fault, set())


def test_output_tokens_are_limited(plain: Any) -> None:
    """The SDK's `max_output_tokens` arrives and shows as MAX_TOKENS."""
    job = plain.batches.create(model=MODEL, src=inlined(20, max_output_tokens=4))
    responses = plain.batches.get(name=job.name).dest.inlined_responses
    assert {each.response.candidates[0].finish_reason.value for each in responses} == {"MAX_TOKENS"}


def test_batches_are_listed_to_their_end(start: Start) -> None:
    """The SDK's iterator walks all pages, newest first."""
    sdk = start(latency=0.0)
    assert list(sdk.batches.list()) == []
    names = [submit(sdk, name=f"run-{number}").name for number in range(5)]
    assert [job.name for job in sdk.batches.list(config={"page_size": 2})] == names[::-1]
    assert {job.state.value for job in sdk.batches.list()} == {"JOB_STATE_SUCCEEDED"}


@pytest.mark.parametrize("prefix", ["BATCH_STATE", "JOB_STATE"])
@pytest.mark.parametrize(
    ("option", "expected"),
    [("expire_every", "JOB_STATE_EXPIRED"), ("fail_batch_every", "JOB_STATE_FAILED")],
)
def test_batch_without_results_is_done(start: Start, option: str, expected: str, prefix: str) -> None:
    """Failed and expired batches have a state and no destination, in either spelling."""
    sdk = start(latency=0.0, state_prefix=prefix, **{option: 1})
    job = sdk.batches.get(name=submit(sdk).name)
    assert (job.state.value, job.dest) == (expected, None)


def test_batch_is_cancelled(start: Start) -> None:
    """The SDK sees it cancelled; an unknown name is its ClientError."""
    sdk = start(latency=10.0)
    job = submit(sdk)
    sdk.batches.cancel(name=job.name)
    wait_until(lambda: state(sdk, job.name) == "JOB_STATE_CANCELLED")
    with pytest.raises(errors.ClientError) as raised:
        sdk.batches.get(name="batches/none")
    assert raised.value.code == 404


def test_errors_are_those_that_the_sdk_knows(start: Start) -> None:
    """Rate limit, overload and wrong key are raised as the SDK's classes."""
    with pytest.raises(errors.ClientError) as limited:
        submit(start(rate_limit_every=1, retry_after=37))
    assert (limited.value.code, limited.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert limited.value.details["error"]["details"][0]["retryDelay"] == "37s"
    with pytest.raises(errors.ServerError):
        submit(start(error_rate=1.0))
    with pytest.raises(errors.ClientError, match="API key not valid"):
        submit(start(key="other"))


def test_refused_create_is_repeated_by_the_sdk_if_it_is_told_so(start: Start) -> None:
    """Its retries pass a rate limit without a second batch."""
    with running_emulator(EmulatorOptions(dialect="gemini", rate_limit_every=2)) as emulator:
        retry = types.HttpRetryOptions(attempts=3, initial_delay=0.01, max_delay=0.02)
        sdk = connected(emulator.base_url, retry_options=retry)
        for _ in range(3):
            submit(sdk)
        assert len(list(sdk.batches.list())) == 3
        sdk.close()


def test_asynchronous_client_finds_the_same(plain: Any) -> None:
    """The SDK's async client uploads, polls and downloads as well."""

    async def run() -> int:
        file = await plain.aio.files.upload(
            file=io.BytesIO(jsonl(rows_for(5))), config={"mime_type": "application/jsonl"}
        )
        job = await plain.aio.batches.create(model=MODEL, src=file.name)
        job = await plain.aio.batches.get(name=job.name)
        content = await plain.aio.files.download(file=job.dest.file_name)
        await plain.aio.aclose()
        return len(content.splitlines())

    assert asyncio.run(run()) == 5


def test_every_method_of_files_and_batches_was_thought_of(plain: Any) -> None:
    """A new method in a new version of the SDK shows here. Only what a batch's way through needs is spoken."""

    def methods(resource: Any) -> set[str]:
        return {name for name, _ in inspect.getmembers(type(resource), inspect.isfunction) if not name.startswith("_")}

    assert methods(plain.batches) == {"create", "create_embeddings", "get", "list", "cancel", "delete"}
    assert methods(plain.files) == {"upload", "list", "get", "delete", "download", "register_files"}
