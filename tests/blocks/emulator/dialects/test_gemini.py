"""The Gemini dialect over a real socket."""

import os
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import orjson
import pytest

from blocks.emulator import EmulatorOptions, running_emulator
from tests.blocks.emulator.client import SCHEMA, peak_memory, wait_until
from tests.blocks.emulator.dialects.gemini_client import MODEL, Gemini, Json, inlined, request, row, rows_for
from tests.blocks.emulator.dialects.openai_client import jsonl

Start = Callable[..., Gemini]
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
STATE = "BATCH_STATE_"


@contextmanager
def started(version: str = "v1beta", **options: Any) -> Iterator[Gemini]:
    with (
        running_emulator(EmulatorOptions(dialect="gemini", **options)) as emulator,
        Gemini(emulator, version=version) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def plain() -> Iterator[Gemini]:
    """An emulator without faults, whose batches end at the first look; shared by the tests of this module."""
    with started(latency=0.0) as client:
        yield client


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(started(**options))


def error_of(response: httpx.Response) -> Json:
    """The error; checks its shape."""
    error = dict(response.json()["error"])
    assert error.keys() - {"details"} == {"code", "message", "status"}
    assert error["code"] == response.status_code
    return error


def status_of(response: httpx.Response) -> tuple[int, str]:
    error = error_of(response)
    return error["code"], error["status"]


def text_of(line: Json) -> str:
    (part,) = line["response"]["candidates"][0]["content"]["parts"]
    return str(part["text"])


def key_of(line: Json) -> str:
    return str(line["key"] if "key" in line else line["metadata"]["key"])


def is_valid(text: str) -> bool:
    try:
        return bool(jsonschema_rs.is_valid(SCHEMA, orjson.loads(text)))
    except orjson.JSONDecodeError:
        return False


class TestFiles:
    @pytest.mark.parametrize("size", [1, 262_144, 5_000_001])
    def test_upload_answers_the_file(self, plain: Gemini, size: int) -> None:
        """Name, size, type and hash are those of what was sent."""
        content = os.urandom(size)
        file = plain.upload(content, display_name="run-1", mimeType="application/jsonl")
        assert file["name"].startswith("files/")
        assert (file["displayName"], file["sizeBytes"], file["state"]) == ("run-1", str(size), "ACTIVE")
        assert (file["source"], file["mimeType"]) == ("UPLOADED", "application/jsonl")
        assert b64decode(file["sha256Hash"]).decode() == sha256(content).hexdigest()
        assert file["expirationTime"] > file["createTime"]

    def test_upload_may_be_sent_again_until_it_is_whole(self, plain: Gemini) -> None:
        """A body of the wrong length changes nothing; after success the address is used up."""
        url = plain.begin_upload(1 << 20).headers["x-goog-upload-url"]
        whole = b"x" * (1 << 20)
        assert status_of(plain.send(url, whole[1:]))[0] == 400
        last = plain.send(url, whole)
        assert (last.headers["x-goog-upload-status"], last.json()["file"]["sizeBytes"]) == ("final", str(1 << 20))
        assert status_of(plain.send(url, whole)) == (404, "NOT_FOUND")

    def test_unsound_upload_is_refused(self, start: Start) -> None:
        """Without the protocol's headers, above the limit, or shorter than announced."""
        client = start(max_bytes=1000)
        assert status_of(client.http.post("/upload/v1beta/files", content=b"x"))[0] == 400
        assert status_of(client.begin_upload(1001)) == (400, "INVALID_ARGUMENT")
        url = client.begin_upload().headers["x-goog-upload-url"]
        assert status_of(client.send(url, b"x" * 2_000_000)) == (400, "INVALID_ARGUMENT")
        url = client.begin_upload(10).headers["x-goog-upload-url"]
        assert "announced" in error_of(client.send(url, b"123"))["message"]
        assert client.ledger()["files"] == 0
        url = client.begin_upload(10).headers["x-goog-upload-url"]
        for offset, command in ((0, "upload"), (0, "query"), (0, ""), (1, "upload, finalize")):
            answer = client.send(url, b"0123456789", offset, command)
            assert "in one piece" in error_of(answer)["message"]

    def test_uploaded_files_can_not_be_downloaded_but_results_can(self, plain: Gemini) -> None:
        """Only generated files have content, and only with `alt=media`."""
        name = plain.upload(jsonl(rows_for(2)))["name"]
        assert status_of(plain.download(name)) == (400, "FAILED_PRECONDITION")
        result = plain.batch(plain.submit(name))["response"]["responsesFile"]
        whole = plain.download(result).content
        assert whole.count(b"\n") == 2
        assert plain.http.get(f"/v1/{result}:download", params={"alt": "media"}).content == whole
        assert status_of(plain.http.get(f"/v1beta/{result}:download"))[0] == 400


class TestBatches:
    def test_create_answers_an_operation(self, plain: Gemini) -> None:
        """A long-running operation whose metadata show the batch as pending."""
        operation = plain.create(rows_for(3)).json()
        metadata = operation["metadata"]
        assert operation.keys() == {"name", "metadata"}
        assert operation["name"].startswith("batches/")
        created = metadata.pop("createTime")
        assert created <= metadata.pop("updateTime")
        assert metadata == {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "model": f"models/{MODEL}",
            "displayName": "run1-1",
            "batchStats": {"requestCount": "3", "pendingRequestCount": "3"},
            "state": "BATCH_STATE_PENDING",
            "name": operation["name"],
        }

    @pytest.mark.parametrize("version", ["v1", "v1beta"])
    def test_inlined_results_come_with_the_operation(self, start: Start, version: str) -> None:
        """In either version of the API, under their metadata, as soon as it is done."""
        client = start(latency=0.0, version=version)
        operation = client.batch(client.submit(rows_for(20)))
        metadata = operation["metadata"]
        assert (operation["done"], metadata["state"]) == (True, "BATCH_STATE_SUCCEEDED")
        assert metadata["batchStats"] == {"requestCount": "20", "successfulRequestCount": "20"}
        assert metadata["endTime"] >= metadata["createTime"]
        rows = metadata["output"]["inlinedResponses"]["inlinedResponses"]
        assert operation["response"]["inlinedResponses"]["inlinedResponses"] == rows
        assert {key_of(each) for each in rows} == {each["key"] for each in rows_for(20)}
        assert [key_of(each) for each in rows] != [each["key"] for each in rows_for(20)]

    def test_results_of_a_file_come_in_a_file(self, plain: Gemini) -> None:
        """The operation names it, and it has a line for each key."""
        name = plain.submit_file(rows_for(20))
        operation = plain.batch(name)
        output = {"responsesFile": f"files/batch-{name.removeprefix('batches/')}"}
        assert operation["metadata"]["output"] == output
        assert operation["response"].items() >= output.items()
        assert operation["metadata"]["inputConfig"]["fileName"].startswith("files/")
        assert {key_of(each) for each in plain.results(name)} == {each["key"] for each in rows_for(20)}

    def test_answer_has_the_shape_of_a_generated_content(self, plain: Gemini) -> None:
        """One candidate with text, usage and the version of the model."""
        (line,) = plain.results(plain.submit([row("c7", request("Review: the sound is great"))]))
        response = line["response"]
        (candidate,) = response["candidates"]
        assert line.keys() == {"metadata", "response"}
        assert (candidate["finishReason"], candidate["index"], candidate["content"]["role"]) == ("STOP", 0, "model")
        assert orjson.loads(text_of(line)) == {"sentiment": "positive", "topics": ["sound"]}
        assert response["modelVersion"] == MODEL
        assert response["usageMetadata"]["promptTokenCount"] > 0

    def test_metadata_comes_back_as_it_was(self, plain: Gemini) -> None:
        """Any object or none: the emulator does not look into it."""
        metadata: list[Any] = [{"key": "a", "more": "b"}, {"other": "c"}, None]
        items = [{"request": request(f"x {at}"), "metadata": each} for at, each in enumerate(metadata)]
        del items[2]["metadata"]
        wanted = {"batch": {"inputConfig": {"requests": {"requests": items}}}}
        created = plain.http.post(f"/v1/models/{MODEL}:batchGenerateContent", json=wanted).json()
        rows = plain.results(created["name"])
        assert len(rows) == 3
        assert all(each.get("metadata") in metadata for each in rows)

    def test_row_key_in_the_schema_is_echoed(self, plain: Gemini) -> None:
        """A constant of the schema comes back with the answer that it belongs to."""

        def with_key(key: Json) -> Json:
            return {**SCHEMA, "properties": {**SCHEMA["properties"], "row": key}, "required": ["row", "sentiment"]}

        rows = [row(f"e{at}", request("Review: good or bad", with_key({"enum": [f"row {at}"]}))) for at in range(20)]
        rows += [row(f"c{at}", request("Review: good or bad", with_key({"const": at}))) for at in range(20)]
        echoed = {key_of(line): orjson.loads(text_of(line))["row"] for line in plain.results(plain.submit_file(rows))}
        expected = {f"e{at}": f"row {at}" for at in range(20)} | {f"c{at}": at for at in range(20)}
        assert echoed == expected

    def test_prompt_that_is_asked_again_is_the_same_though_its_key_is_to_be_echoed(self, start: Start) -> None:
        """The ledger sees one prompt, paid twice, although its key differs."""
        client = start(latency=0.0)
        for attempt in (1, 2):
            key = f"testrun0-7-{attempt}"
            schema = {**SCHEMA, "properties": {**SCHEMA["properties"], "row": {"const": key}}}
            client.results(client.submit([row(key, request(f"Review: great. Its row is {key}.", schema))]))
        ledger = client.ledger()
        assert (ledger["billed_items"], ledger["distinct_prompts"], ledger["paid_twice"]) == (2, 1, 1)

    def test_thinking_is_billed_beside_the_candidates(self, start: Start) -> None:
        """Thoughts are counted apart, some answers have none, and the ledger bills both."""
        client = start(latency=0.0, cached_share=0.5)
        usages = [line["response"]["usageMetadata"] for line in client.results(client.submit(rows_for(100)))]
        thoughts = [usage.get("thoughtsTokenCount", 0) for usage in usages]
        assert 0 in thoughts
        assert max(thoughts) > 20
        for usage in usages:
            assert usage["cachedContentTokenCount"] == usage["promptTokenCount"] // 2
            written = usage["candidatesTokenCount"] + usage.get("thoughtsTokenCount", 0)
            assert usage["totalTokenCount"] == usage["promptTokenCount"] + written
        ledger = client.ledger()
        assert ledger["input_tokens"] == sum(usage["promptTokenCount"] for usage in usages)
        assert ledger["output_tokens"] == sum(usage["candidatesTokenCount"] for usage in usages) + sum(thoughts)

    def test_output_tokens_are_limited_and_thinking_counts(self, plain: Gemini) -> None:
        """Thoughts and text together never exceed `maxOutputTokens`."""
        rows = [row(str(at), request(f"Review {at}: great sound", maxOutputTokens=20)) for at in range(50)]
        lines = plain.results(plain.submit(rows))
        cut = [line["response"] for line in lines if line["response"]["candidates"][0]["finishReason"] == "MAX_TOKENS"]
        assert 10 < len(cut) < 50
        for response in cut:
            usage = response["usageMetadata"]
            assert usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0) == 20
        assert any("parts" not in response["candidates"][0]["content"] for response in cut)

    def test_batches_are_listed_newest_first_page_by_page_without_inlined_results(self, start: Start) -> None:
        """A list shows metadata alone, as large results would not fit."""
        client = start(latency=0.0)
        assert client.listed() == {}
        names = [client.submit(rows_for(1), f"run-{number}") for number in range(5)]
        page = client.listed(pageSize=2)
        assert [each["name"] for each in page["operations"]] == [names[4], names[3]]
        rest = client.listed(pageToken=page["nextPageToken"])
        assert [each["metadata"]["displayName"] for each in rest["operations"]] == ["run-2", "run-1", "run-0"]
        assert "output" not in rest["operations"][0]["metadata"]
        assert rest["operations"][0]["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
        assert status_of(client.http.get("/v1/batches?pageToken=nonsense")) == (400, "INVALID_ARGUMENT")

    @pytest.mark.parametrize(
        "wanted",
        [
            [],
            {},
            {"batch": {}},
            {"batch": {"inputConfig": {"requests": {"requests": []}}}},
            {"batch": {"inputConfig": {"fileName": "files/x", "requests": {"requests": inlined(rows_for(1))}}}},
            {"batch": {"inputConfig": {"fileName": "files/x"}, "color": "red"}},
            {"batch": {"inputConfig": {"fileName": "files/x"}, "displayName": 1}},
            {"batch": {"inputConfig": {"requests": {"requests": [{"contents": []}]}}}},
        ],
    )
    def test_unsound_create_is_refused(self, plain: Gemini, wanted: object) -> None:
        """Each mistake in the envelope is a 400 INVALID_ARGUMENT."""
        response = plain.http.post(f"/v1/models/{MODEL}:batchGenerateContent", json=wanted)
        assert status_of(response) == (400, "INVALID_ARGUMENT")

    @pytest.mark.parametrize(
        "wanted",
        [
            {},
            {"contents": []},
            {"contents": [{"role": "user"}]},
            {**request("x"), "color": "red"},
            request("x", maxOutputTokens=0),
            request("x", temperatur=1),
            request("x", responseSchema=SCHEMA),
            request("x", None, responseJsonSchema=SCHEMA),
            request("x", None, responseMimeType="application/json", responseJsonSchema="text"),
        ],
    )
    def test_unsound_request_refuses_an_inlined_batch_and_fails_its_row_in_a_file(
        self, plain: Gemini, wanted: Json
    ) -> None:
        """Inline requests are checked at once, lines of a file when they run."""
        rows = [row("good", request("x")), row("bad", wanted)]
        error = error_of(plain.create(rows))
        assert (error["status"], "requests[1]" in error["message"]) == ("INVALID_ARGUMENT", True)
        name = plain.submit_file(rows)
        lines = {line["key"]: line for line in plain.results(name)}
        assert "response" in lines["good"]
        assert lines["bad"]["error"].keys() == {"code", "message"}
        assert lines["bad"]["error"]["code"] == 400
        stats = plain.batch(name)["metadata"]["batchStats"]
        assert stats == {"requestCount": "2", "successfulRequestCount": "1", "failedRequestCount": "1"}

    def test_file_that_can_not_be_read_fails_the_batch(self, plain: Gemini) -> None:
        """A line that is no JSON or an empty file fails all of it; an unknown file is a 404."""
        for content in (jsonl(rows_for(2)) + b"{nonsense\n", b"\n"):
            operation = plain.batch(plain.submit_file(content))
            assert (operation["metadata"]["state"], operation["error"]["code"]) == ("BATCH_STATE_FAILED", 3)
            assert "response" not in operation
        assert status_of(plain.create("files/none")) == (404, "NOT_FOUND")

    def test_inlined_batch_above_20_mb_is_refused(self, plain: Gemini) -> None:
        """The payload limit is exact enough that 19 MB pass."""
        error = error_of(plain.create([row("a", request("x" * (20 << 20)))]))
        assert (error["code"], "payload size" in error["message"]) == (400, True)
        assert plain.create([row("a", request("x" * (19 << 20)))]).status_code == 200

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what a process had in memory")
    def test_large_file_is_never_in_memory(self, start: Start) -> None:
        """A batch of 50 MB is taken in, answered and downloaded in little more memory."""
        client = start(latency=0.0)
        client.results(client.submit_file(rows_for(1)))
        content = jsonl([row(f"{at}", request("Review: the sound is great. " + "x" * 8000)) for at in range(6000)])
        before = peak_memory(client.emulator)
        name = client.submit_file(content)
        result = client.batch(name)["response"]["responsesFile"]
        assert client.download(result).content.count(b"\n") == 6000
        assert peak_memory(client.emulator) - before < 36_000_000


class TestFaults:
    def test_failures_are_errors_and_pass_on_the_next_attempt(self, start: Start) -> None:
        """Inline and in files they are counted as failed and not billed."""
        client = start(latency=0.0, failure_rate=0.3)
        for submit in (client.submit, client.submit_file):
            name = submit(rows_for(300))
            errors = [line["error"] for line in client.results(name) if "error" in line]
            assert 50 < len(errors) < 130
            assert {error["code"] for error in errors} == {500}
            assert client.batch(name)["metadata"]["batchStats"]["failedRequestCount"] == str(len(errors))
        again = client.batch(client.submit(rows_for(300, attempt=2)))["metadata"]["batchStats"]
        assert again == {"requestCount": "300", "successfulRequestCount": "300"}

    def test_missing_unexplained_and_late_rows(self, start: Start) -> None:
        """A row is absent, has an error without a code, or one that says it took too long."""
        client = start(latency=0.0, missing_rate=0.3, unexplained_rate=0.3, timeout_rate=0.4)
        lines = client.results(client.submit(rows_for(100)))
        assert 50 < len(lines) < 90
        assert {line["error"].get("code") for line in lines} == {None, 504}

    def test_answers_that_are_all_absent_leave_an_empty_list_or_file(self, start: Start) -> None:
        """The batch still succeeds."""
        client = start(latency=0.0, missing_rate=1.0)
        inline, by_file = client.submit(rows_for(3)), client.submit_file(rows_for(3))
        assert client.batch(inline)["metadata"]["output"] == {"inlinedResponses": {"inlinedResponses": []}}
        assert client.download(client.batch(by_file)["metadata"]["output"]["responsesFile"]).content == b""

    def test_refusals_have_several_shapes_and_are_billed_their_input(self, start: Start) -> None:
        """A blocked prompt has no candidate, a blocked answer has one without content."""
        client = start(latency=0.0, refusal_rate=1.0)
        responses = [line["response"] for line in client.results(client.submit(rows_for(60)))]
        blocked = [each for each in responses if "candidates" not in each]
        reasons = {each["candidates"][0]["finishReason"] for each in responses if "candidates" in each}
        assert reasons == {"SAFETY", "PROHIBITED_CONTENT"}
        assert not any("content" in each["candidates"][0] for each in responses if "candidates" in each)
        assert {each["promptFeedback"]["blockReason"] for each in blocked} == {"PROHIBITED_CONTENT"}
        ledger = client.ledger()
        assert (ledger["billed_items"], ledger["output_tokens"]) == (60, 0)
        assert ledger["input_tokens"] == sum(each["usageMetadata"]["totalTokenCount"] for each in responses)

    @pytest.mark.parametrize("fault", ["invalid_rate", "length_rate"])
    def test_answers_that_went_wrong_are_billed(self, start: Start, fault: str) -> None:
        """Cut off or invalid, they break the schema and cost money all the same."""
        client = start(latency=0.0, **{fault: 1.0})
        lines = client.results(client.submit(rows_for(20)))
        assert not any(is_valid(text_of(line)) for line in lines)
        reasons = {line["response"]["candidates"][0]["finishReason"] for line in lines}
        assert reasons == {"MAX_TOKENS" if fault == "length_rate" else "STOP"}
        assert client.ledger()["billed_invalid"] == 20

    def test_answers_come_under_each_others_key(self, start: Start) -> None:
        """With swapped keys every answer is there, but some under another's name."""

        def echoes(client: Gemini, rows: list[Json], *, as_file: bool) -> dict[str, str]:
            name = client.submit_file(rows) if as_file else client.submit(rows)
            lines = client.results(name)
            assert len(lines) == len(rows)
            return {key_of(line): orjson.loads(text_of(line))["row"] for line in lines}

        def rows(attempt: int) -> list[Json]:
            schemas = [{"type": "object", "properties": {"row": {"const": f"{at}"}}} for at in range(200)]
            return [row(f"testrun0-{at}-{attempt}", request("x", schema)) for at, schema in enumerate(schemas)]

        client = start(latency=0.0, swapped_rate=0.2)
        for as_file in (True, False):
            swapped = {
                key: value for key, value in echoes(client, rows(1), as_file=as_file).items() if f"-{value}-" not in key
            }
            assert 20 < len(swapped) < 60
            assert len(swapped) % 2 == 0
            for key, value in swapped.items():
                assert f"-{swapped[f'testrun0-{value}-1']}-" in key
            assert all(f"-{value}-" in key for key, value in echoes(client, rows(2), as_file=as_file).items())

    def test_expired_batch_has_no_results_and_bills_nothing(self, start: Start) -> None:
        """Unlike elsewhere, all of its requests stay pending."""
        client = start(latency=0.0, expire_every=1)
        for name in (client.submit(rows_for(10)), client.submit_file(rows_for(10))):
            operation = client.batch(name)
            assert (operation["done"], operation["metadata"]["state"]) == (True, "BATCH_STATE_EXPIRED")
            assert operation["metadata"]["batchStats"] == {"requestCount": "10", "pendingRequestCount": "10"}
            assert "output" not in operation["metadata"]
            assert "response" not in operation
        assert client.ledger()["billed_items"] == 0

    def test_batch_may_fail_as_a_whole_by_switch(self, start: Start) -> None:
        """The operation has an error, and nothing is billed."""
        client = start(latency=0.0, fail_batch_every=1)
        operation = client.batch(client.submit(rows_for(3)))
        assert (operation["metadata"]["state"], operation["error"]["code"]) == ("BATCH_STATE_FAILED", 13)
        assert client.ledger()["billed_items"] == 0

    def test_rate_limit_says_in_the_body_how_long_to_wait(self, start: Start) -> None:
        """`RetryInfo` among the details, no `retry-after` header."""
        response = start(rate_limit_every=1, retry_after=37).create(rows_for(1))
        error = error_of(response)
        assert (error["status"], error["details"]) == (
            "RESOURCE_EXHAUSTED",
            [{"@type": RETRY_INFO, "retryDelay": "37s"}],
        )
        assert "retry-after" not in response.headers
        assert "details" not in error_of(start(rate_limit_every=1, retry_header="none").create(rows_for(1)))

    def test_used_up_quota_names_no_time(self, start: Start) -> None:
        """The same status as a rate limit, but without `RetryInfo`."""
        error = error_of(start(quota_every=1).create(rows_for(1)))
        assert (error["status"], "billing" in error["message"]) == ("RESOURCE_EXHAUSTED", True)
        assert not any(detail["@type"] == RETRY_INFO for detail in error["details"])

    def test_queued_tokens_and_open_batches_are_limited(self, start: Start) -> None:
        """Ended batches make room again; the hundred-and-first open one is refused."""
        client = start(latency=1.0, max_queued_tokens=200)
        first = client.submit(rows_for(10))
        assert "enqueued tokens" in error_of(client.create(rows_for(20)))["message"]
        client.wait_for(first)
        assert client.create(rows_for(10)).status_code == 200
        client = start(latency=100.0)
        names = [client.submit(rows_for(1)) for _ in range(100)]
        assert status_of(client.create(rows_for(1))) == (429, "RESOURCE_EXHAUSTED")
        client.http.post(f"/v1beta/{names[0]}:cancel")
        assert client.create(rows_for(1)).status_code == 200

    def test_overload_is_a_503(self, start: Start) -> None:
        """A create is answered UNAVAILABLE."""
        assert status_of(start(error_rate=1.0).create(rows_for(1))) == (503, "UNAVAILABLE")

    def test_dropped_create_is_found_again_by_its_display_name(self, start: Start) -> None:
        """The connection broke after acceptance: the list has the batch under its name."""
        client = start(latency=0.0, drop_every=1)
        with pytest.raises(httpx.RemoteProtocolError):
            client.create(rows_for(2), "run1-7")
        (found,) = client.listed()["operations"]
        assert (found["metadata"]["displayName"], found["done"]) == ("run1-7", True)

    def test_fresh_batch_is_not_visible_at_first(self, start: Start) -> None:
        """Neither by name nor in the list, for a while."""
        client = start(latency=0.0, visible_after=1.0)
        name = client.submit(rows_for(1))
        assert status_of(client.http.get(f"/v1beta/{name}")) == (404, "NOT_FOUND")
        assert client.listed() == {}
        wait_until(lambda: client.http.get(f"/v1beta/{name}").status_code == 200)

    def test_download_breaks_off_and_may_be_repeated(self, start: Start) -> None:
        """Every second download ends early; the next one is whole and the same."""
        client = start(latency=0.0, cut_every=2)
        result = client.batch(client.submit_file(rows_for(2000)))["response"]["responsesFile"]
        whole = client.download(result).content
        with pytest.raises(httpx.RemoteProtocolError):
            client.download(result)
        assert client.download(result).content == whole

    def test_states_have_another_spelling_or_are_unknown(self, start: Start) -> None:
        """Vertex's prefix, and a state that clients meet once before the real one."""
        client = start(latency=0.0, state_prefix="JOB_STATE", unknown_status_every=2)
        assert client.state(client.submit(rows_for(1))) == "JOB_STATE_SUCCEEDED"
        name = client.submit(rows_for(1))
        assert [client.state(name), client.state(name)] == ["JOB_STATE_PAUSED", "JOB_STATE_SUCCEEDED"]

    def test_lines_come_twice_and_usage_is_missing_or_huge(self, start: Start) -> None:
        """Each of these faults is visible in the results alone."""
        client = start(latency=0.0, duplicate_rate=1.0, unmetered_rate=1.0)
        lines = client.results(client.submit_file(rows_for(5)))
        assert len(lines) == 10
        assert not any("usageMetadata" in line["response"] for line in lines)
        client = start(latency=0.0, huge_usage_rate=1.0)
        usages = [line["response"]["usageMetadata"] for line in client.results(client.submit(rows_for(5)))]
        assert all(usage["candidatesTokenCount"] > 1 << 24 for usage in usages)
        assert sum(usage["totalTokenCount"] for usage in usages) == sum(
            client.ledger()[name] for name in ("input_tokens", "output_tokens")
        )

    def test_results_are_gone_after_a_while(self, start: Start) -> None:
        """Files answer 404, inline results become an empty list."""
        client = start(latency=0.0, gone_after=0.5)
        inline, in_file = client.submit(rows_for(1)), client.submit_file(rows_for(1))
        assert client.results(inline)
        result = client.batch(in_file)["response"]["responsesFile"]
        wait_until(lambda: client.download(result).status_code == 404)
        assert client.results(inline) == []


def test_only_known_spellings_of_states_are_chosen() -> None:
    """A mistake in `state_prefix` is a ValueError that lists the choices."""
    with pytest.raises(ValueError, match="state_prefix must be one of"):
        EmulatorOptions(state_prefix="STATE")


class TestEnding:
    @pytest.mark.parametrize("as_file", [True, False])
    def test_cancelled_batch_goes_on_for_a_moment_and_keeps_what_was_done(self, start: Start, as_file: bool) -> None:
        """It is still running when cancel returns; what was answered is there and billed."""
        client = start(latency=10.0)
        name = client.submit_file(rows_for(400)) if as_file else client.submit(rows_for(400))
        assert client.state(name) == "BATCH_STATE_PENDING"
        wait_until(lambda: int(client.batch(name)["metadata"]["batchStats"].get("successfulRequestCount", 0)) >= 40)
        assert client.http.post(f"/v1beta/{name}:cancel", json={}).json() == {}
        assert client.state(name) == "BATCH_STATE_RUNNING"
        operation = client.wait_for(name, "BATCH_STATE_CANCELLED")
        done = len(client.results(name))
        assert 40 <= done == client.ledger()["billed_items"] < 400
        assert operation["metadata"]["batchStats"] == {
            "requestCount": "400",
            "successfulRequestCount": str(done),
            "pendingRequestCount": str(400 - done),
        }

    def test_ended_batch_stays_as_it_is_when_cancelled(self, plain: Gemini) -> None:
        """The call succeeds and changes nothing."""
        name = plain.submit(rows_for(2))
        before = plain.batch(name)
        assert plain.http.post(f"/v1beta/{name}:cancel").json() == {}
        assert plain.batch(name) == before


class TestAccess:
    def test_calls_without_the_right_key_are_refused(self, start: Start) -> None:
        """Uploads, creates, cancels and downloads all check it."""
        client = start(key="s3cret")
        calls = [
            ("GET", "/v1/batches"),
            ("POST", "/upload/v1beta/files"),
            ("POST", f"/v1beta/models/{MODEL}:batchGenerateContent"),
            ("POST", "/v1beta/batches/x:cancel"),
            ("GET", "/v1beta/files/x:download?alt=media"),
        ]
        for method, path in calls:
            bare = httpx.request(method, client.emulator.url + path)
            wrong = error_of(client.http.request(method, path))
            assert status_of(bare) == (403, "PERMISSION_DENIED")
            assert (wrong["code"], wrong["details"][0]["reason"]) == (400, "API_KEY_INVALID")
        assert httpx.get(f"{client.emulator.url}/v1/batches?key=s3cret").json() == {}

    def test_base_url_has_no_version(self, plain: Gemini) -> None:
        """Clients choose it themselves; a version that does not exist is a 404."""
        assert plain.emulator.base_url == plain.emulator.url
        for path in ("/v1/batches/none", "/v2/batches", f"/v1/models/{MODEL}:asyncBatchEmbedContent"):
            assert status_of(plain.http.get(path)) == (404, "NOT_FOUND")


def test_batches_and_results_survive_kill_9(tmp_path: Path) -> None:
    """A restarted emulator shows inline batches and batches of files as they were."""
    state = tmp_path / "state.sqlite"
    with started(state=state, latency=0.0, failure_rate=0.2) as client:
        names = [client.submit(rows_for(50)), client.submit_file(rows_for(50, first=50))]
        before = [client.batch(name) for name in names], [client.results(name) for name in names]
        os.kill(client.emulator.pid, 9)
    with started(state=state, latency=0.0, failure_rate=0.2) as client:
        assert ([client.batch(name) for name in names], [client.results(name) for name in names]) == before
        assert client.ledger()["paid_twice"] == 0
