"""Mistral's own Python SDK finds in the emulator the service that it was written for."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from blocks.emulator import EmulatorOptions, running_emulator
from tests.blocks.emulator.client import wait_until
from tests.blocks.emulator.dialects.mistral_client import CHAT, MODEL, Json, rows_for
from tests.blocks.emulator.dialects.openai_client import jsonl
from tests.blocks.emulator.sdks import Sdk

sdk_module = Sdk("mistralai.client")
errors = Sdk("mistralai.client.errors")
models = Sdk("mistralai.client.models")

pytestmark = pytest.mark.xdist_group("mistral sdk")

Start = Callable[..., Any]


@contextmanager
def started(**options: Any) -> Iterator[Any]:
    with (
        running_emulator(EmulatorOptions(dialect="mistral", **options)) as emulator,
        sdk_module.Mistral(api_key="test-key", server_url=emulator.base_url) as sdk,
    ):
        yield sdk


@pytest.fixture(scope="module")
def plain() -> Iterator[Any]:
    with started(latency=0.0) as sdk:
        yield sdk


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(started(**options))


def upload(sdk: Any, content: bytes) -> Any:
    return sdk.files.upload(file={"file_name": "batch.jsonl", "content": content}, purpose="batch")


def submit(sdk: Any, rows: list[Json], **fields: Any) -> Any:
    file = upload(sdk, jsonl(rows))
    return sdk.batch.jobs.create(endpoint=CHAT, input_files=[file.id], model=MODEL, **fields)


def lines(sdk: Any, file_id: str) -> list[Json]:
    return [orjson.loads(line) for line in sdk.files.download(file_id=file_id).read().splitlines()]


def test_job_is_created_polled_and_read(plain: Any) -> None:
    """The provider's own client understands a job from its upload to its last line."""
    file = upload(plain, jsonl(rows_for(20)))
    assert (file.sample_type, file.source, file.purpose) == ("batch_request", "upload", "batch")
    job = plain.batch.jobs.create(
        endpoint=CHAT, input_files=[file.id], model=MODEL, metadata={"tag": "run1-1"}, timeout_hours=48
    )
    assert (job.status, job.total_requests, job.completed_requests, job.metadata) == (
        "QUEUED",
        20,
        0,
        {"tag": "run1-1"},
    )
    job = plain.batch.jobs.get(job_id=job.id)
    assert (job.status, job.succeeded_requests, job.failed_requests, job.error_file) == ("SUCCESS", 20, 0, None)
    for line in lines(plain, job.output_file):
        answer = models.ChatCompletionResponse.model_validate(line["response"]["body"])
        assert orjson.loads(answer.choices[0].message.content)["sentiment"] == "positive"


def test_inline_requests_come_back_as_outputs(plain: Any) -> None:
    """The SDK reads them from the job, without a file."""
    job = plain.batch.jobs.create(endpoint=CHAT, requests=rows_for(5), model=MODEL)
    assert job.input_files == []
    outputs = plain.batch.jobs.get(job_id=job.id, inline=True).outputs
    assert {output["custom_id"] for output in outputs} == {row["custom_id"] for row in rows_for(5)}


def test_jobs_are_listed_by_time_and_metadata(start: Start) -> None:
    """The SDK's filters and pages all work."""
    sdk = start(latency=0.0)
    ids = [submit(sdk, rows_for(1), metadata={"run": f"r{number}", "all": "yes"}).id for number in range(3)]
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    listed = sdk.batch.jobs.list
    assert [job.id for job in listed().data] == ids[::-1]
    assert [job.id for job in listed(page_size=2, page=1).data] == [ids[0]]
    assert [job.id for job in listed(metadata={"run": "r1", "all": "yes"}).data] == [ids[1]]
    assert listed(metadata={"all": "yes"}, created_after=hour_ago, created_by_me=True).total == 3
    assert listed(created_after=datetime.now(UTC) + timedelta(hours=1)).total == 0


def test_errors_of_a_failed_job_are_read(plain: Any) -> None:
    """The SDK shows the message and how often it occurred."""
    job = plain.batch.jobs.create(endpoint=CHAT, input_files=[upload(plain, b"{nonsense\n").id], model=MODEL)
    (error,) = plain.batch.jobs.get(job_id=job.id).errors
    assert error.count == 1


def test_timed_out_job_keeps_what_was_done(start: Start) -> None:
    """The SDK finds half the answers in two files."""
    sdk = start(latency=0.0, expire_every=1, failure_rate=0.5)
    job = sdk.batch.jobs.get(job_id=submit(sdk, rows_for(40)).id)
    assert (job.status, job.completed_requests) == ("TIMEOUT_EXCEEDED", 20)
    failed = lines(sdk, job.error_file)
    assert len(lines(sdk, job.output_file)) + len(failed) == 20
    assert {line["response"]["status_code"] for line in failed} == {500}


def test_job_is_cancelled(start: Start) -> None:
    """The SDK sees the request and the end; an unknown id is its error 404."""
    sdk = start(latency=10.0)
    job = submit(sdk, rows_for(10))
    assert sdk.batch.jobs.cancel(job_id=job.id).status == "CANCELLATION_REQUESTED"
    wait_until(lambda: sdk.batch.jobs.get(job_id=job.id).status == "CANCELLED")
    with pytest.raises(errors.MistralError) as raised:
        sdk.batch.jobs.get(job_id="none")
    assert raised.value.status_code == 404


def test_status_that_the_sdk_does_not_know_is_read(start: Start) -> None:
    """It does not break the SDK's model of a job."""
    sdk = start(latency=0.0, unknown_status_every=1)
    assert sdk.batch.jobs.get(job_id=submit(sdk, rows_for(1)).id).status == "PREEMPTED"


def test_files_are_listed_and_downloaded(plain: Any) -> None:
    """The SDK finds a file by part of its name and reads it back."""
    file = plain.files.upload(file={"file_name": "a.jsonl", "content": b"some bytes"}, purpose="batch")
    assert (file.size_bytes, file.visibility) == (10, "workspace")
    listed = plain.files.list(page=0, page_size=1, include_total=True, search="a.json", purpose="batch")
    assert ([each.id for each in listed.data], listed.total) == ([file.id], 1)
    assert plain.files.download(file_id=file.id).read() == b"some bytes"


def test_errors_are_those_that_the_sdk_knows(start: Start) -> None:
    """Each status is raised as the SDK's exception, with body and headers."""
    sdk = start(quota_every=1, key="other")
    with pytest.raises(errors.MistralError) as refused:
        sdk.batch.jobs.list()
    assert refused.value.status_code == 401
    sdk = start(rate_limit_every=1, retry_after=3)
    with pytest.raises(errors.MistralError) as limited:
        sdk.batch.jobs.create(endpoint=CHAT, requests=rows_for(1), model=MODEL)
    assert (limited.value.status_code, limited.value.headers["retry-after"]) == (429, "3")
    with pytest.raises(errors.MistralError) as unsound:
        start().batch.jobs.create(endpoint="/v1/embeddings", requests=rows_for(1), model=MODEL)
    assert unsound.value.status_code == 422
    assert orjson.loads(unsound.value.body)["detail"][0]["loc"] == ["body", "endpoint"]


def test_refused_create_is_repeated_by_the_sdk_if_it_is_told_so(start: Start) -> None:
    """Its own retries pass a rate limit without a second job."""
    utils = Sdk("mistralai.client.utils")
    sdk = start(rate_limit_every=2, retry_after=0.01, retry_header="retry-after-ms")
    retries = utils.RetryConfig("backoff", utils.BackoffStrategy(10, 100, 1.5, 5000), retry_connection_errors=False)
    for number in range(3):
        sdk.batch.jobs.create(endpoint=CHAT, requests=rows_for(1, first=number), model=MODEL, retries=retries)
    assert sdk.batch.jobs.list().total == 3


def test_asynchronous_methods_find_the_same(plain: Any) -> None:
    """The SDK's async methods upload, create, poll and download as well."""

    async def run(server_url: str) -> int:
        async with sdk_module.Mistral(api_key="test-key", server_url=server_url) as sdk:
            content = jsonl(rows_for(5))
            file = await sdk.files.upload_async(file={"file_name": "a.jsonl", "content": content}, purpose="batch")
            job = await sdk.batch.jobs.create_async(endpoint=CHAT, input_files=[file.id], model=MODEL)
            job = await sdk.batch.jobs.get_async(job_id=job.id)
            answer = await sdk.files.download_async(file_id=job.output_file)
            return len((await answer.aread()).splitlines())

    assert asyncio.run(run(plain.sdk_configuration.get_server_details()[0])) == 5


def test_every_method_of_files_and_jobs_was_thought_of(plain: Any) -> None:
    """A new method in a new version of the SDK shows here. Only what a job's way through needs is spoken."""

    def methods(resource: Any) -> set[str]:
        found = inspect.getmembers(type(resource), inspect.isfunction)
        base = {name for name, _ in inspect.getmembers(type(resource).__mro__[1], inspect.isfunction)}
        return {name.removesuffix("_async") for name, _ in found if not name.startswith("_") and name not in base}

    assert methods(plain.batch.jobs) == {"create", "list", "get", "cancel", "delete"}
    assert methods(plain.files) == {"upload", "list", "retrieve", "delete", "download", "get_signed_url"}
