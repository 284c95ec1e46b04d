"""OpenAI's own Python SDK, with its strictest validation, finds in the emulator the service that it was written for."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from blocks.emulator import EmulatorOptions, running_emulator
from tests.blocks.emulator.client import wait_until
from tests.blocks.emulator.dialects.openai_client import CHAT, RESPONSES, Json, jsonl, response_body, row, rows_for
from tests.blocks.emulator.sdks import Sdk

openai = Sdk("openai")

pytestmark = pytest.mark.xdist_group("openai sdk")

Start = Callable[..., Any]


@contextmanager
def started(**options: Any) -> Iterator[Any]:
    with (
        running_emulator(EmulatorOptions(dialect="openai", **options)) as emulator,
        connected(emulator.base_url) as sdk,
    ):
        yield sdk


def connected(base_url: str, kind: str = "OpenAI", retries: int = 0) -> Any:
    return getattr(openai, kind)(
        api_key="test-key", base_url=base_url, max_retries=retries, _strict_response_validation=True
    )


@pytest.fixture(scope="module")
def plain() -> Iterator[Any]:
    with started(latency=0.0) as sdk:
        yield sdk


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(started(**options))


def submit(sdk: Any, rows: list[Json], endpoint: str = CHAT, **fields: Any) -> Any:
    file = sdk.files.create(file=("batch.jsonl", jsonl(rows)), purpose="batch")
    return sdk.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **fields)


def lines(sdk: Any, file_id: str) -> list[Json]:
    return [orjson.loads(line) for line in sdk.files.content(file_id).text.splitlines()]


def test_batch_is_created_polled_and_read(plain: Any, tmp_path: Path) -> None:
    """The provider's own client understands a batch from its upload to its last line."""
    path = tmp_path / "batch.jsonl"
    path.write_bytes(jsonl(rows_for(20)))
    file = plain.files.create(file=path, purpose="batch")
    batch = plain.batches.create(
        input_file_id=file.id,
        endpoint=CHAT,
        completion_window="24h",
        metadata={"tag": "run1-1"},
    )
    month = file.expires_at - file.created_at
    assert (file.filename, month, batch.status) == ("batch.jsonl", 30 * 86400, "validating")
    batch = plain.batches.retrieve(batch.id)
    assert (batch.status, batch.metadata, batch.request_counts.completed) == ("completed", {"tag": "run1-1"}, 20)
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens
    assert len(lines(plain, batch.output_file_id)) == 20


def test_answers_are_what_the_models_of_the_sdk_say(plain: Any) -> None:
    """Completions and responses validate against the SDK's types."""
    chat = plain.batches.retrieve(submit(plain, rows_for(3)).id)
    rows = [row("a", response_body("Review: the sound is great"), RESPONSES)]
    response = plain.batches.retrieve(submit(plain, rows, RESPONSES).id)
    for line in lines(plain, chat.output_file_id):
        answer = openai.types.chat.ChatCompletion.model_validate(line["response"]["body"])
        assert orjson.loads(answer.choices[0].message.content)["sentiment"] == "positive"
    (line,) = lines(plain, response.output_file_id)
    answer = openai.types.responses.Response.model_validate(line["response"]["body"])
    assert orjson.loads(answer.output_text)["sentiment"] == "positive"


@pytest.mark.parametrize("fault", ["refusal_rate", "length_rate", "invalid_rate"])
def test_answers_that_went_wrong_are_so_as_well(start: Start, fault: str) -> None:
    """Faulty answers validate too, in either endpoint."""
    sdk = start(latency=0.0, **{fault: 1.0})
    batch = sdk.batches.retrieve(submit(sdk, rows_for(3)).id)
    answers = lines(sdk, batch.output_file_id)
    assert len(answers) == 3
    for line in answers:
        openai.types.chat.ChatCompletion.model_validate(line["response"]["body"])
    batch = sdk.batches.retrieve(submit(sdk, [row("a", response_body("x"), RESPONSES)], RESPONSES).id)
    (line,) = lines(sdk, batch.output_file_id)
    openai.types.responses.Response.model_validate(line["response"]["body"])


def test_lists_are_paged_to_their_end(start: Start) -> None:
    """The SDK's iterator walks all pages of batches and files."""
    sdk = start(latency=0.0)
    assert list(sdk.batches.list()) == list(sdk.files.list()) == []
    ids = [submit(sdk, rows_for(1)).id for _ in range(5)]
    assert [batch.id for batch in sdk.batches.list(limit=2)] == ids[::-1]
    uploads = [file.id for file in sdk.files.list(purpose="batch", order="desc", limit=2)]
    assert uploads == [sdk.batches.retrieve(batch_id).input_file_id for batch_id in ids[::-1]]


def test_files_are_retrieved_downloaded_and_deleted(plain: Any) -> None:
    """Afterwards the SDK raises its NotFoundError."""
    file = plain.files.create(file=("a.jsonl", b"some bytes"), purpose="batch")
    assert plain.files.wait_for_processing(file.id).bytes == 10
    assert plain.files.retrieve(file.id) == file
    assert plain.files.content(file.id).read() == b"some bytes"
    assert plain.files.delete(file.id).deleted is True
    with pytest.raises(openai.NotFoundError) as raised:
        plain.files.retrieve(file.id)
    assert raised.value.request_id.startswith("req_")
    assert raised.value.type == "invalid_request_error"


def test_batch_is_cancelled(start: Start) -> None:
    """The SDK sees it cancelling, then cancelled; once more is its ConflictError."""
    sdk = start(latency=10.0)
    batch = submit(sdk, rows_for(10))
    assert sdk.batches.cancel(batch.id).status == "cancelling"
    wait_until(lambda: sdk.batches.retrieve(batch.id).status == "cancelled")
    with pytest.raises(openai.ConflictError):
        sdk.batches.cancel(batch.id)


def test_errors_of_a_failed_batch_are_read(plain: Any) -> None:
    """The SDK shows code and line."""
    file = plain.files.create(file=("a.jsonl", b"{nonsense\n"), purpose="batch")
    batch = plain.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    (error,) = plain.batches.retrieve(batch.id).errors.data
    assert (error.code, error.line) == ("invalid_json_line", 1)


def test_expired_batch_has_both_files(start: Start) -> None:
    """Half the requests are in either of them."""
    sdk = start(latency=0.0, expire_every=1)
    batch = sdk.batches.retrieve(submit(sdk, rows_for(10)).id)
    assert batch.status == "expired"
    assert len(lines(sdk, batch.output_file_id)) == len(lines(sdk, batch.error_file_id)) == 5


def test_errors_are_those_that_the_sdk_knows(start: Start) -> None:
    """Each status is raised as the SDK's exception, with the parameter at fault."""
    sdk = start(quota_every=2, key="test-key")
    with pytest.raises(openai.BadRequestError, match=r"Must be \.jsonl"):
        sdk.files.create(file=("a.txt", b"x"), purpose="batch")
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.batches.create(input_file_id="file-x", endpoint=CHAT, completion_window="24h")
    assert refused.value.param == "input_file_id"
    with pytest.raises(openai.RateLimitError) as limited:
        submit(sdk, rows_for(1))
    assert limited.value.code == "insufficient_quota"
    with pytest.raises(openai.AuthenticationError):
        sdk.with_options(api_key="wrong").batches.list()


def test_refused_create_is_repeated_by_the_sdk_itself(start: Start) -> None:
    """It obeys `retry-after-ms`, and no batch is made twice."""
    sdk = start(rate_limit_every=2, retry_after=0.01, retry_header="retry-after-ms").with_options(max_retries=2)
    ids = {submit(sdk, rows_for(1)).id for _ in range(3)}
    assert len(ids) == len(list(sdk.batches.list())) == 3


def test_asynchronous_client_finds_the_same(plain: Any) -> None:
    """The SDK's async client uploads, polls and downloads as well."""

    async def run() -> int:
        async with connected(str(plain.base_url), "AsyncOpenAI") as sdk:
            file = await sdk.files.create(file=("a.jsonl", jsonl(rows_for(5))), purpose="batch")
            batch = await sdk.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
            batch = await sdk.batches.retrieve(batch.id)
            content = await sdk.files.content(batch.output_file_id)
            return len(content.text.splitlines())

    assert asyncio.run(run()) == 5


def test_every_method_of_files_and_batches_was_thought_of(plain: Any) -> None:
    """A new method in a new version of the SDK shows here."""

    def methods(resource: Any) -> set[str]:
        found = inspect.getmembers(type(resource), inspect.isfunction)
        return {name for name, _ in found if not name.startswith(("_", "with_"))}

    assert methods(plain.batches) == {"create", "retrieve", "list", "cancel"}
    assert methods(plain.files) == {
        "create",
        "retrieve",
        "list",
        "delete",
        "content",
        "retrieve_content",
        "wait_for_processing",
    }
