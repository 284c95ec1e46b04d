"""The OpenAI dialect over a real socket."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import orjson
import pytest

from blocks.emulator import EmulatorOptions, running_emulator
from blocks.emulator.dialects.openai.dialect import Dialect
from blocks.emulator.service.batch import NewBatch, Request
from blocks.emulator.service.service import Service
from blocks.emulator.service.store import Store
from tests.blocks.emulator.client import SCHEMA, peak_memory, wait_until
from tests.blocks.emulator.dialects.openai_client import (
    CHAT,
    MODEL,
    RESPONSES,
    Json,
    OpenAi,
    chat_body,
    jsonl,
    response_body,
    row,
    rows_for,
)
from tests.blocks.emulator.service.test_service import Clock

Start = Callable[..., OpenAi]


@contextmanager
def started(**options: Any) -> Iterator[OpenAi]:
    with running_emulator(EmulatorOptions(dialect="openai", **options)) as emulator, OpenAi(emulator) as client:
        yield client


@pytest.fixture(scope="module")
def plain() -> Iterator[OpenAi]:
    """An emulator without faults, whose batches end at the first look; shared by the tests of a module."""
    with started(latency=0.0) as client:
        yield client


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts emulators of a test's own."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(started(**options))


def error_of(response: httpx.Response) -> Json:
    """The error; checks its shape."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"].startswith("req_")
    assert response.json().keys() == {"error"}
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return {"status": response.status_code, **error}


def content_of(line: Json) -> str:
    return str(line["response"]["body"]["choices"][0]["message"]["content"])


def is_valid(text: str) -> bool:
    try:
        return bool(jsonschema_rs.is_valid(SCHEMA, orjson.loads(text)))
    except orjson.JSONDecodeError:
        return False


def codes(lines: list[Json]) -> Counter[str]:
    return Counter(line["error"]["code"] if line["error"] else str(line["response"]["status_code"]) for line in lines)


class TestFiles:
    def test_upload_answers_the_file(self, plain: OpenAi) -> None:
        """All documented fields, with an expiry after thirty days."""
        content = jsonl(rows_for(2))
        before = int(time.time())
        file = plain.send(content, "run-1.jsonl").json()
        created = file["created_at"]
        assert file.pop("id").startswith("file-")
        assert before <= created <= time.time()
        assert file == {
            "object": "file",
            "purpose": "batch",
            "filename": "run-1.jsonl",
            "bytes": len(content),
            "created_at": created,
            "expires_at": created + 30 * 86400,
            "status": "processed",
            "status_details": None,
        }

    @pytest.mark.parametrize("size", [0, 1, 262_144, 5_000_001])
    def test_content_comes_back_byte_by_byte(self, plain: OpenAi, size: int) -> None:
        """Whatever its size, as bytes without a type."""
        content = os.urandom(size)
        file_id = plain.upload(content, "ä 1.jsonl")
        response = plain.http.get(f"/files/{file_id}/content", headers={"accept": "application/binary"})
        assert response.content == content
        assert response.headers["content-type"] == "application/octet-stream"
        assert plain.http.get(f"/files/{file_id}").json()["bytes"] == size

    @pytest.mark.parametrize(
        ("name", "fields", "param"),
        [
            ("a.json", {}, None),
            ("a.jsonl", {"purpose": "nonsense"}, "purpose"),
            ("a.jsonl", {"color": "red"}, "color"),
            ("a.jsonl", {"purpose": "user_data"}, "purpose"),
            ("a.jsonl", {"expires_after[anchor]": "created_at"}, "expires_after[anchor]"),
        ],
    )
    def test_unsound_upload_is_refused(self, plain: OpenAi, name: str, fields: dict[str, str], param: str) -> None:
        """The error points at the field of the form."""
        error = error_of(plain.send(b"{}\n", name, **fields))
        assert (error["status"], error["type"], error["param"]) == (400, "invalid_request_error", param)

    def test_file_that_is_not_jsonl_is_refused_in_the_service_own_words(self, plain: OpenAi) -> None:
        """Clients and users search for the real message."""
        assert error_of(plain.send(b"{}", "a.txt"))["message"] == "Invalid file format for Batch API. Must be .jsonl"

    @pytest.mark.parametrize("body", [b"", b"--x", b"--x\r\n\r\n\r\n--x--", b"x" * 2_000_000])
    def test_body_that_is_no_form_is_refused(self, plain: OpenAi, body: bytes) -> None:
        """Nonsense and cut-off forms under any content type are a 400."""
        for kind in ("multipart/form-data; boundary=x", "multipart/form-data", "application/json"):
            response = plain.http.post("/files", content=body, headers={"content-type": kind})
            assert error_of(response)["status"] == 400

    def test_form_without_file_or_purpose_is_refused(self, plain: OpenAi) -> None:
        """The error names the part that is missing."""
        without_file = plain.http.post("/files", files={"purpose": (None, b"batch")})
        without_purpose = plain.http.post("/files", files={"file": ("a.jsonl", b"{}")})
        assert (error_of(without_file)["param"], error_of(without_purpose)["param"]) == ("file", "purpose")

    def test_file_above_the_limit_is_refused(self, start: Start) -> None:
        """A 413, however far above, and nothing of it is kept."""
        client = start(max_bytes=1000)
        assert client.send(b"x" * 1000).status_code == 200
        assert error_of(client.send(b"x" * 1001))["status"] == 413
        assert error_of(client.send(b"x" * 5_000_000))["status"] == 413
        assert client.ledger()["files"] == 1

    def test_files_are_listed_by_purpose_page_by_page(self, start: Start) -> None:
        """Newest first by default, from an id on, in either order."""
        client = start(latency=0.0)
        ids = [client.upload(b"x", f"{number}.jsonl") for number in range(5)]
        listed = client.http.get("/files", params={"purpose": "batch"}).json()
        assert [file["id"] for file in listed["data"]] == ids[::-1]
        assert (listed["object"], listed["first_id"], listed["last_id"]) == ("list", ids[4], ids[0])
        assert listed["has_more"] is False
        page = client.http.get("/files", params={"limit": 2, "order": "desc", "after": ids[3]}).json()
        assert [file["id"] for file in page["data"]] == [ids[2], ids[1]]
        assert page["has_more"] is True
        assert client.http.get("/files", params={"purpose": "batch_output"}).json()["data"] == []
        assert error_of(client.http.get("/files", params={"order": "up"}))["param"] == "order"

    def test_deleted_file_is_gone(self, plain: OpenAi) -> None:
        """It can't be read, deleted again or made a batch of."""
        file_id = plain.upload(b"x")
        deleted = plain.http.delete(f"/files/{file_id}")
        assert deleted.json() == {"object": "file", "id": file_id, "deleted": True}
        for path in (f"/files/{file_id}", f"/files/{file_id}/content"):
            assert error_of(plain.http.get(path))["status"] == 404
        assert error_of(plain.http.delete(f"/files/{file_id}"))["status"] == 404
        assert error_of(plain.create(file_id))["param"] == "input_file_id"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what a process had in memory")
def test_large_file_is_never_in_memory(start: Start) -> None:
    """A batch of 50 MB is taken in, answered and downloaded in little more memory."""
    client = start(latency=0.0)
    client.batch(client.submit(rows_for(1)))
    before = peak_memory(client.emulator)
    prompt = "Review: the sound is great. " + "x" * 8000
    batch_id = client.submit([row(f"{number}", chat_body(prompt)) for number in range(6000)])
    batch = client.batch(batch_id)
    assert batch["request_counts"]["completed"] == 6000
    assert client.http.get(f"/files/{batch['input_file_id']}").json()["bytes"] > 48_000_000
    assert client.content(batch["output_file_id"]).count(b"\n") == 6000
    assert peak_memory(client.emulator) - before < 36_000_000


class TestBatches:
    def test_create_answers_a_batch_that_is_validated(self, plain: OpenAi) -> None:
        """The fields that have a value yet, with an expiry after a day."""
        file_id = plain.upload(jsonl(rows_for(3)))
        batch = plain.create(file_id, metadata={"tag": "run1-1"}).json()
        created = batch["created_at"]
        assert batch.pop("id").startswith("batch_")
        assert {name: value for name, value in batch.items() if value is not None} == {
            "object": "batch",
            "endpoint": CHAT,
            "model": "gpt-4.1-mini-2025-04-14",
            "input_file_id": file_id,
            "completion_window": "24h",
            "status": "validating",
            "created_at": created,
            "expires_at": created + 86400,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": {"tag": "run1-1"},
        }

    def test_batch_is_open_at_first_and_then_completed(self, start: Start) -> None:
        """Output, usage and time of completion appear together at the end."""
        client = start(latency=1.0)
        batch_id = client.submit(rows_for(100))
        seen = []
        while (batch := client.batch(batch_id))["status"] != "completed":
            seen.append(batch["status"])
            assert batch["completed_at"] is batch["output_file_id"] is batch["usage"] is None
        assert seen
        assert set(seen) <= {"validating", "in_progress", "finalizing"}
        assert batch["created_at"] <= batch["in_progress_at"] <= batch["finalizing_at"] <= batch["completed_at"]
        assert batch["request_counts"] == {"total": 100, "completed": 100, "failed": 0}
        assert batch["error_file_id"] is None

    def test_answer_has_the_shape_of_a_chat_completion(self, plain: OpenAi) -> None:
        """A line with id, status and a completion by the dated model."""
        (line,), errors = plain.results(plain.submit([row("c7-000", chat_body("Review: the sound is great"))]))
        body = line["response"]["body"]
        assert errors == []
        assert (line["custom_id"], line["error"], line["response"]["status_code"]) == ("c7-000", None, 200)
        assert line["id"].startswith("batch_req_")
        assert (body["object"], body["model"]) == ("chat.completion", "gpt-4.1-mini-2025-04-14")
        assert body["choices"][0]["finish_reason"] == "stop"
        assert orjson.loads(content_of(line)) == {"sentiment": "positive", "topics": ["sound"]}
        usage = body["usage"]
        assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == 0
        assert usage["completion_tokens_details"]["reasoning_tokens"] == 0

    def test_answer_has_the_shape_of_a_response(self, plain: OpenAi) -> None:
        """The newer endpoint answers with typed parts of output."""
        sent = [row("a", response_body("Review: the sound is great"), RESPONSES)]
        (line,), _ = plain.results(plain.submit(sent, endpoint=RESPONSES))
        body = line["response"]["body"]
        assert (body["object"], body["status"], body["incomplete_details"]) == ("response", "completed", None)
        (part,) = body["output"][0]["content"]
        assert part["type"] == "output_text"
        assert orjson.loads(part["text"]) == {"sentiment": "positive", "topics": ["sound"]}
        assert body["usage"]["input_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": 0}

    def test_messages_in_parts_and_without_a_schema_are_understood(self, plain: OpenAi) -> None:
        """Text parts are read in both endpoints, and images are passed over."""
        parts = [{"type": "text", "text": "Review: the sound is great"}, {"type": "image_url", "image_url": {}}]
        body = {"model": MODEL, "messages": [{"role": "user", "content": parts}]}
        given = [{"role": "user", "content": [{"type": "input_text", "text": "Review: the sound is great"}]}]
        (chat,), _ = plain.results(plain.submit([row("a", body)]))
        sent = [row("a", {"model": MODEL, "input": given}, RESPONSES)]
        (response,), _ = plain.results(plain.submit(sent, endpoint=RESPONSES))
        assert content_of(chat) == "The text sounds positive. It is about: sound."
        assert response["response"]["body"]["output"][0]["content"][0]["text"] == content_of(chat)

    def test_usage_of_the_batch_is_the_sum_of_its_lines(self, start: Start) -> None:
        """Cached tokens included, and equal to the emulator's ledger."""
        client = start(latency=0.0, cached_share=0.5)
        batch_id = client.submit(rows_for(50))
        lines, _ = client.results(batch_id)
        usages = [line["response"]["body"]["usage"] for line in lines]
        usage, ledger = client.batch(batch_id)["usage"], client.ledger()
        cached = sum(each["prompt_tokens_details"]["cached_tokens"] for each in usages)
        assert usage["input_tokens_details"]["cached_tokens"] == cached > 0
        assert usage["input_tokens"] == sum(each["prompt_tokens"] for each in usages) == ledger["input_tokens"]
        assert usage["output_tokens"] == sum(each["completion_tokens"] for each in usages) == ledger["output_tokens"]
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]

    def test_results_are_shuffled_and_each_is_there_once(self, plain: OpenAi) -> None:
        """Lines can be matched by their id alone."""
        sent = [each["custom_id"] for each in rows_for(200)]
        lines, _ = plain.results(plain.submit(rows_for(200)))
        listed = [line["custom_id"] for line in lines]
        assert listed != sent
        assert sorted(listed) == sorted(sent)
        assert len({line["id"] for line in lines}) == 200

    def test_output_files_are_files_like_others(self, start: Start) -> None:
        """They are listed under a purpose of their own, with their size."""
        client = start(latency=0.0, failure_rate=0.5)
        batch_id = client.submit(rows_for(20))
        listed = client.http.get("/files", params={"purpose": "batch_output"}).json()["data"]
        batch = client.batch(batch_id)
        assert {file["id"] for file in listed} == {batch["output_file_id"], batch["error_file_id"]}
        for file in listed:
            assert file["bytes"] == len(client.content(file["id"]))
            assert file["expires_at"] is None
        assert client.http.delete(f"/files/{batch['output_file_id']}").status_code == 200
        assert client.http.get(f"/files/{batch['output_file_id']}/content").status_code == 404
        assert client.batch(batch_id) == batch

    def test_batches_are_listed_newest_first_page_by_page(self, start: Start) -> None:
        """From an id on, until nothing is left."""
        client = start(latency=0.0)
        assert client.http.get("/batches").json()["data"] == []
        ids = [client.submit(rows_for(1)) for _ in range(5)]
        first = client.http.get("/batches", params={"limit": 2}).json()
        assert [batch["id"] for batch in first["data"]] == [ids[4], ids[3]]
        assert (first["object"], first["first_id"], first["last_id"], first["has_more"]) == (
            "list",
            ids[4],
            ids[3],
            True,
        )
        rest = client.http.get("/batches", params={"limit": 3, "after": ids[3]}).json()
        assert [batch["id"] for batch in rest["data"]] == [ids[2], ids[1], ids[0]]
        assert rest["has_more"] is False
        assert rest["data"][0] == client.batch(ids[2])
        for limit in ("0", "101", "x"):
            assert error_of(client.http.get("/batches", params={"limit": limit}))["status"] == 400

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"endpoint": "/v1/nonsense"}, "endpoint"),
            ({"endpoint": "/v1/embeddings"}, "endpoint"),
            ({"endpoint": None}, "endpoint"),
            ({"completion_window": "48h"}, "completion_window"),
            ({"input_file_id": "file-none"}, "input_file_id"),
            ({"model": "gpt-4.1"}, "model"),
            ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
            ({"metadata": {"k" * 65: ""}}, "metadata"),
            ({"metadata": {"k": "v" * 513}}, "metadata.k"),
            ({"metadata": {"k": 1}}, "metadata.k"),
            ({"metadata": []}, "metadata"),
            ({"output_expires_after": {"anchor": "created_at", "seconds": 3600}}, "output_expires_after"),
        ],
    )
    def test_unsound_create_is_refused(self, plain: OpenAi, fields: Json, param: str) -> None:
        """The error points at the field."""
        error = error_of(plain.create(plain.upload(jsonl(rows_for(1))), **fields))
        assert (error["status"], error["type"], error["param"]) == (400, "invalid_request_error", param)

    def test_metadata_up_to_its_limits_is_accepted(self, plain: OpenAi) -> None:
        """Sixteen pairs of 64 and 512 characters come back as they were."""
        metadata = {f"{number:064}": "v" * 512 for number in range(16)}
        assert plain.batch(plain.submit(rows_for(1), metadata=metadata))["metadata"] == metadata

    def test_file_for_another_purpose_makes_no_batch(self, plain: OpenAi) -> None:
        """An output file is no input."""
        output = plain.batch(plain.submit(rows_for(1)))["output_file_id"]
        assert error_of(plain.create(output))["param"] == "input_file_id"

    def test_one_file_may_serve_two_batches(self, plain: OpenAi) -> None:
        """Each create is a batch of its own: this API knows no idempotency key."""
        file_id = plain.upload(jsonl(rows_for(1)))
        assert plain.create(file_id).json()["id"] != plain.create(file_id).json()["id"]

    def test_large_batch_is_taken_in_and_served(self, start: Start) -> None:
        """Ten thousand requests each get an answer or an error."""
        client = start(latency=0.0, failure_rate=0.1)
        rows = rows_for(10_000)
        output, errors = client.results(client.submit(rows))
        assert {line["custom_id"] for line in [*output, *errors]} == {each["custom_id"] for each in rows}

    def test_batch_is_billed_once_however_many_look_at_its_end(self, start: Start) -> None:
        """Simultaneous polls make one output file and one bill."""
        client = start(latency=0.3)
        batch_id = client.submit(rows_for(1000))
        with ThreadPoolExecutor(8) as pool:
            ended = list(pool.map(lambda _: client.wait_for(batch_id), range(8)))
        assert len({batch["output_file_id"] for batch in ended}) == 1
        assert (client.ledger()["billed_items"], client.ledger()["files"]) == (1000, 2)


class TestStates:
    """By a clock that the test turns; a batch of 100 rows takes 20 s."""

    def look(self, dialect: Dialect, service: Service, batch_id: str) -> Json:
        batch = service.batch(batch_id)
        assert batch is not None
        return dialect.batch_json(batch)

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = Store(tmp_path / "state.sqlite")
        yield store
        store.close()

    def accept(self, service: Service, errors: list[Json] | None = None) -> str:
        details = {"endpoint": CHAT, "input_file_id": "file-1", "metadata": None, "tokens": 1}
        written = orjson.dumps({**details, "errors": errors or []}).decode()
        requests = [] if errors else [Request(str(number), "x", MODEL) for number in range(100)]
        return service.accept(NewBatch(MODEL, requests, b"", None, written, bool(errors))).batch.id

    @pytest.mark.parametrize(
        ("option", "states", "stamp"),
        [
            ({}, ["validating", "in_progress", "in_progress", "finalizing", "completed"], "completed_at"),
            ({"expire_every": 1}, ["validating", *["in_progress"] * 3, "expired"], "expired_at"),
            ({"fail_batch_every": 1}, [*["validating"] * 4, "failed"], "failed_at"),
        ],
    )
    def test_batch_goes_through_its_states(
        self, store: Store, clock: Clock, option: Json, states: list[str], stamp: str
    ) -> None:
        """Validating, in progress, finalizing and one of the final states, by the clock."""
        service = Service(EmulatorOptions(latency=20.0, **option), store, clock)
        dialect = Dialect(service)
        batch_id = self.accept(service)
        seen = []
        for clock.now in (1000.5, 1001.0, 1010.0, 1019.0, 1020.0):
            seen.append(self.look(dialect, service, batch_id))
        assert [batch["status"] for batch in seen] == states
        assert [batch[stamp] for batch in seen] == [None] * 4 + [1020]
        finalizing = [None, None, None, 1019, 1019] if not option else [None] * 5
        assert [batch["finalizing_at"] for batch in seen] == finalizing
        failed = "fail_batch_every" in option
        assert [batch["in_progress_at"] for batch in seen] == [None] * 5 if failed else [None, *[1001] * 4]
        assert [batch["request_counts"]["total"] for batch in seen] == [0] * 5 if failed else [0, *[100] * 4]
        assert {batch["expires_at"] for batch in seen} == {1000 + 86400}

    def test_progress_is_counted(self, store: Store, clock: Clock) -> None:
        """Halfway through its time half of its requests are completed."""
        service = Service(EmulatorOptions(latency=20.0), store, clock)
        dialect = Dialect(service)
        batch_id = self.accept(service)
        clock.now = 1010.0
        counts = self.look(dialect, service, batch_id)["request_counts"]
        assert counts == {"total": 100, "completed": 50, "failed": 0}

    def test_rejected_batch_fails_after_a_moment(self, store: Store, clock: Clock) -> None:
        """It is validating first and has no errors until it has failed."""
        service = Service(EmulatorOptions(latency=20.0), store, clock)
        dialect = Dialect(service)
        batch_id = self.accept(service, [{"code": "invalid_json_line"}])
        clock.now = 1000.5
        assert self.look(dialect, service, batch_id)["status"] == "validating"
        assert self.look(dialect, service, batch_id)["errors"] is None
        clock.now = 1001.0
        failed = self.look(dialect, service, batch_id)
        assert (failed["status"], failed["failed_at"]) == ("failed", 1001)
        assert failed["errors"] == {"object": "list", "data": [{"code": "invalid_json_line"}]}

    def test_cancelled_batch_is_cancelling_for_a_moment(self, store: Store, clock: Clock) -> None:
        """What had been done by then is what stays."""
        service = Service(EmulatorOptions(latency=20.0), store, clock)
        dialect = Dialect(service)
        batch_id = self.accept(service)
        clock.now = 1010.0
        batch = service.batch(batch_id)
        assert batch is not None
        service.cancel(batch)
        cancelling = self.look(dialect, service, batch_id)
        clock.now = 1011.0
        cancelled = self.look(dialect, service, batch_id)
        assert (cancelling["status"], cancelling["cancelling_at"], cancelling["cancelled_at"]) == (
            "cancelling",
            1010,
            None,
        )
        assert cancelling["output_file_id"] is cancelling["usage"] is None
        assert (cancelled["status"], cancelled["cancelling_at"], cancelled["cancelled_at"]) == ("cancelled", 1010, 1011)
        assert cancelled["output_file_id"] is not None
        assert cancelled["request_counts"] == {"total": 100, "completed": 50, "failed": 50}


class TestValidation:
    """What is wrong with a file shows after the create, as a batch that failed."""

    @pytest.mark.parametrize(
        ("line", "code"),
        [
            (b"{nonsense", "invalid_json_line"),
            (b"[]", "invalid_json_line"),
            (b"", "invalid_json_line"),
            (b"\xff", "invalid_json_line"),
            (jsonl(rows_for(1)), "duplicate_custom_id"),
            (jsonl([row("a", chat_body("x"), RESPONSES)]), "url_mismatch"),
            (jsonl([row("a", chat_body("x", model="gpt-5"))]), "mismatched_model"),
            (jsonl([{**row("a", chat_body("x")), "method": "GET"}]), "invalid_method"),
            (jsonl([{"custom_id": "a", "method": "POST", "url": CHAT}]), "missing_required_parameter"),
            (jsonl([row("", chat_body("x"))]), "missing_required_parameter"),
            (jsonl([row("a", {"model": MODEL})]), "missing_required_parameter"),
            (jsonl([row("a", {"model": MODEL, "messages": ["x"]})]), "invalid_request"),
        ],
    )
    def test_unsound_line_fails_the_batch_and_is_named(self, plain: OpenAi, line: bytes, code: str) -> None:
        """One bad line fails all of it, with code and number of the line."""
        batch = plain.batch(plain.submit(jsonl(rows_for(2)) + line.rstrip(b"\n") + b"\n" + jsonl(rows_for(1, first=5))))
        (error,) = batch["errors"]["data"]
        assert (batch["status"], batch["errors"]["object"]) == ("failed", "list")
        assert (error["code"], error["line"]) == (code, 3)
        assert error.keys() == {"code", "message", "param", "line"}
        assert batch["failed_at"] is not None
        assert batch["in_progress_at"] is batch["output_file_id"] is batch["error_file_id"] is None
        assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}

    def test_empty_file_fails(self, plain: OpenAi) -> None:
        """With a code of its own and no line."""
        (error,) = plain.batch(plain.submit(b""))["errors"]["data"]
        assert (error["code"], error["line"]) == ("empty_file", None)

    def test_too_many_requests_fail(self, start: Start) -> None:
        """The batch fails, and nothing of it is billed."""
        client = start(latency=0.0, max_requests=3)
        assert client.batch(client.submit(rows_for(3)))["status"] == "completed"
        (error,) = client.batch(client.submit(rows_for(4)))["errors"]["data"]
        assert error["code"] == "too_many_tasks"
        assert client.ledger()["billed_items"] == 3

    def test_limit_is_that_of_the_service_where_none_is_chosen(self, plain: OpenAi) -> None:
        """Fifty thousand requests."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
        (error,) = plain.batch(plain.submit([row(str(number), body) for number in range(50_001)]))["errors"]["data"]
        assert (error["code"], "50000" in error["message"]) == ("too_many_tasks", True)

    def test_errors_of_several_lines_are_all_told(self, plain: OpenAi) -> None:
        """Up to a hundred of them."""
        batch = plain.batch(plain.submit(b"x\n" * 500))
        assert [error["line"] for error in batch["errors"]["data"]] == list(range(1, 101))

    def test_last_line_needs_no_end(self, plain: OpenAi) -> None:
        """It counts like the others."""
        batch = plain.batch(plain.submit(jsonl(rows_for(3)).rstrip(b"\n")))
        assert batch["request_counts"] == {"total": 3, "completed": 3, "failed": 0}

    def test_queued_token_limit_passes_when_other_batches_have_finished(self, start: Start) -> None:
        """The limit is counted by model, and a failed batch may be sent again."""
        content = jsonl(rows_for(20))
        client = start(latency=2.0, max_queued_tokens=len(content) // 4 * 3 // 2)
        first, second = client.submit(content), client.submit(content)
        other = client.submit([row("a", chat_body("x" * 4000, model="gpt-5"))])
        (error,) = client.wait_for(second, "failed")["errors"]["data"]
        assert error["code"] == "token_limit_exceeded"
        assert "Enqueued token limit reached for gpt-4.1-mini" in error["message"]
        client.wait_for(first)
        client.wait_for(client.submit(content))
        client.wait_for(other)


class TestFaults:
    def test_failures_are_500s_in_the_error_file_and_pass_on_the_next_attempt(self, start: Start) -> None:
        """They are counted as failed and are not billed."""
        client = start(latency=0.0, failure_rate=0.3)
        batch_id = client.submit(rows_for(300))
        output, errors = client.results(batch_id)
        assert codes(errors) == {"500": 300 - len(output)}
        assert 50 < len(errors) < 130
        assert errors[0]["response"]["body"]["error"].keys() == {"message", "type", "param", "code"}
        assert client.batch(batch_id)["request_counts"] == {
            "total": 300,
            "completed": len(output),
            "failed": len(errors),
        }
        again = client.batch(client.submit(rows_for(300, attempt=2)))
        assert (again["error_file_id"], again["request_counts"]["completed"]) == (None, 300)
        assert client.ledger()["billed_items"] == 300 + len(output)

    def test_id_without_an_attempt_counts_how_often_its_prompt_was_asked(self, start: Start) -> None:
        """Foreign ids get faults on the first attempt as well."""
        client = start(latency=0.0, failure_rate=1.0)
        outcomes = [client.results(client.submit([row(name, chat_body("hello"))])) for name in ("a", "b")]
        assert [(len(output), len(errors)) for output, errors in outcomes] == [(0, 1), (1, 0)]

    def test_batch_of_failures_is_completed_with_an_error_file_only(self, start: Start) -> None:
        """It has no output file."""
        client = start(latency=0.0, failure_rate=1.0)
        batch = client.batch(client.submit(rows_for(10)))
        assert (batch["status"], batch["output_file_id"]) == ("completed", None)
        assert len(client.lines(batch["error_file_id"])) == 10

    def test_missing_rows_are_in_neither_file_and_in_no_counter(self, start: Start) -> None:
        """Nobody ran them, and nothing is billed."""
        client = start(latency=0.0, missing_rate=0.3)
        batch_id = client.submit(rows_for(100))
        output, errors = client.results(batch_id)
        assert errors == []
        assert 50 < len(output) < 90
        assert client.batch(batch_id)["request_counts"]["completed"] == len(output)
        assert client.ledger()["billed_items"] == len(output)

    def test_unexplained_rows_have_status_0_and_are_not_counted_as_failed(self, start: Start) -> None:
        """Neither their body nor the counters say what happened."""
        client = start(latency=0.0, unexplained_rate=1.0)
        batch_id = client.submit(rows_for(10))
        output, errors = client.results(batch_id)
        assert output == []
        assert errors[0]["response"] == {"status_code": 0, "request_id": "", "body": {}}
        assert errors[0]["error"] is None
        assert client.batch(batch_id)["request_counts"] == {"total": 10, "completed": 0, "failed": 0}
        assert client.ledger()["billed_items"] == 0

    def test_rows_that_took_too_long_stand_in_the_error_file(self, start: Start) -> None:
        """They have a code of their own, are counted as failed and not billed."""
        client = start(latency=0.0, timeout_rate=1.0)
        batch_id = client.submit(rows_for(10))
        output, errors = client.results(batch_id)
        assert (output, codes(errors)) == ([], {"request_timeout": 10})
        assert client.batch(batch_id)["request_counts"] == {"total": 10, "completed": 0, "failed": 10}
        assert client.ledger()["billed_items"] == 0

    def test_lines_may_come_twice_in_both_files(self, start: Start) -> None:
        """The counters and the bill count each request once."""
        client = start(latency=0.0, duplicate_rate=0.5, failure_rate=0.5)
        batch_id = client.submit(rows_for(100))
        for lines in client.results(batch_id):
            times = Counter(line["custom_id"] for line in lines)
            assert set(times.values()) == {1, 2}
        counts = client.batch(batch_id)["request_counts"]
        assert (counts["total"], counts["completed"]) == (100, client.ledger()["billed_items"])

    def test_usage_may_be_missing_or_huge(self, start: Start) -> None:
        """The other answers of the batch have theirs."""
        client = start(latency=0.0, unmetered_rate=0.5, huge_usage_rate=0.5)
        output, _ = client.results(client.submit(rows_for(50)))
        usages = [line["response"]["body"].get("usage") for line in output]
        assert None in usages
        assert any(usage and usage["total_tokens"] > 2**26 for usage in usages)
        assert any(usage and usage["total_tokens"] < 2**10 for usage in usages)

    def test_unknown_status_is_shown_once_and_the_batch_goes_on(self, start: Start) -> None:
        """A status that no client knows is followed by the real one."""
        client = start(latency=0.0, unknown_status_every=1)
        batch_id = client.submit(rows_for(1))
        first, second = client.batch(batch_id), client.batch(batch_id)
        assert (first["status"], first["output_file_id"]) == ("reticulating", None)
        assert (second["status"], second["output_file_id"] is None) == ("completed", False)

    def test_files_of_results_are_gone_after_their_time(self, start: Start) -> None:
        """Their content answers 404."""
        client = start(latency=0.0, gone_after=1.0)
        file_id = client.batch(client.submit(rows_for(2)))["output_file_id"]
        assert len(client.lines(file_id)) == 2
        wait_until(lambda: client.http.get(f"/files/{file_id}/content").status_code == 404)

    def test_refusals_stand_in_the_message_and_are_billed(self, start: Start) -> None:
        """In place of the content, in either endpoint."""
        client = start(latency=0.0, refusal_rate=1.0)
        (line,), _ = client.results(client.submit(rows_for(1)))
        message = line["response"]["body"]["choices"][0]["message"]
        assert message["content"] is None
        assert "can't help" in message["refusal"]
        assert line["response"]["body"]["usage"]["completion_tokens"] > 0
        sent = [row("a", response_body("x"), RESPONSES)]
        (line,), _ = client.results(client.submit(sent, endpoint=RESPONSES))
        assert line["response"]["body"]["output"][0]["content"][0]["type"] == "refusal"
        ledger = client.ledger()
        assert (ledger["billed_items"], ledger["billed_invalid"]) == (2, 2)

    def test_invalid_answers_are_billed_and_break_the_schema(self, start: Start) -> None:
        """The ledger counts them apart."""
        client = start(latency=0.0, invalid_rate=0.5)
        output, _ = client.results(client.submit(rows_for(200)))
        broken = [line for line in output if not is_valid(content_of(line))]
        assert len(output) == 200
        assert 70 < len(broken) < 130
        assert client.ledger()["billed_invalid"] == len(broken)

    def test_cut_off_answers_say_so_and_are_billed(self, start: Start) -> None:
        """With the reason that each endpoint has for it."""
        client = start(latency=0.0, length_rate=1.0)
        (line,), _ = client.results(client.submit(rows_for(1)))
        assert line["response"]["body"]["choices"][0]["finish_reason"] == "length"
        assert not is_valid(content_of(line))
        sent = [row("a", response_body("x"), RESPONSES)]
        (line,), _ = client.results(client.submit(sent, endpoint=RESPONSES))
        body = line["response"]["body"]
        assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        ledger = client.ledger()
        assert (ledger["outcomes"]["truncated"], ledger["billed_items"], ledger["billed_invalid"]) == (2, 2, 2)

    @pytest.mark.parametrize(
        ("endpoint", "limit"),
        [(CHAT, "max_completion_tokens"), (CHAT, "max_tokens"), (RESPONSES, "max_output_tokens")],
    )
    def test_answers_end_at_the_limit_of_their_request(self, plain: OpenAi, endpoint: str, limit: str) -> None:
        """A limit that is no number is passed over."""
        body_of, read = (chat_body, "prompt_tokens") if endpoint == CHAT else (response_body, "input_tokens")
        limits = {"tight": 3, "wide": 300, "odd": "3"}
        sent = [row(name, {**body_of("the sound is great"), limit: most}, endpoint) for name, most in limits.items()]
        output, _ = plain.results(plain.submit(sent, endpoint=endpoint))
        bodies = {line["custom_id"]: line["response"]["body"] for line in output}
        written = {name: body["usage"]["total_tokens"] - body["usage"][read] for name, body in bodies.items()}
        assert written["tight"] == 3 < written["wide"] == written["odd"]
        told = {name: body.get("status") or body["choices"][0]["finish_reason"] for name, body in bodies.items()}
        assert told["tight"] in ("incomplete", "length")
        assert {told["wide"], told["odd"]} < {"completed", "stop"}

    def test_same_seed_brings_the_same_faults_and_answers(self, start: Start) -> None:
        """Order included; another seed brings others."""

        def contents(seed: int) -> list[tuple[str, str]]:
            client = start(latency=0.0, seed=seed, failure_rate=0.2, invalid_rate=0.2, length_rate=0.2)
            output, _ = client.results(client.submit(rows_for(60)))
            return [(line["custom_id"], content_of(line)) for line in output]

        assert contents(1) == contents(1) != contents(2)

    def test_expired_batch_keeps_and_bills_what_was_done(self, start: Start) -> None:
        """The other half stands in the error file as expired."""
        client = start(latency=0.0, expire_every=1)
        batch_id = client.submit(rows_for(10))
        batch = client.batch(batch_id)
        output, errors = client.results(batch_id)
        assert (batch["status"], len(output), codes(errors)) == ("expired", 5, {"batch_expired": 5})
        assert errors[0]["response"] is None
        assert batch["expired_at"] is not None
        assert batch["completed_at"] is None
        assert client.ledger()["billed_items"] == 5

    def test_batch_may_fail_as_a_whole_by_switch(self, start: Start) -> None:
        """It has one error, and nothing is billed."""
        client = start(latency=0.0, fail_batch_every=1)
        batch = client.batch(client.submit(rows_for(3)))
        assert (batch["status"], batch["errors"]["data"][0]["code"]) == ("failed", "server_error")
        assert client.ledger()["billed_items"] == 0

    def test_rate_limit_says_how_long_to_wait_in_the_way_that_is_switched(self, start: Start) -> None:
        """In seconds, in milliseconds or not at all."""
        said = {}
        for header in ("retry-after", "retry-after-ms", "none"):
            response = start(rate_limit_every=1, retry_after=2, retry_header=header).create("file-x")
            error = error_of(response)
            assert (error["status"], error["code"]) == (429, "rate_limit_exceeded")
            said[header] = {name: value for name, value in response.headers.items() if name.startswith("retry")}
        assert said == {"retry-after": {"retry-after": "2"}, "retry-after-ms": {"retry-after-ms": "2000"}, "none": {}}

    def test_used_up_quota_is_a_429_of_its_own_code(self, start: Start) -> None:
        """It has no `retry-after`, for waiting does not help."""
        client = start(quota_every=2)
        file_id = client.upload(jsonl(rows_for(1)))
        assert client.create(file_id).status_code == 200
        response = client.create(file_id)
        assert error_of(response)["status"] == 429
        assert error_of(response)["code"] == error_of(response)["type"] == "insufficient_quota"
        assert "retry-after" not in response.headers
        assert client.ledger()["batches"] == 1

    def test_overload_is_a_503_for_uploads_too(self, start: Start) -> None:
        """Even for those of five megabytes."""
        error = error_of(start(error_rate=1.0).send(b"x" * 5_000_000))
        assert (error["status"], error["type"]) == (503, "server_error")

    def test_dropped_create_is_found_again_by_its_metadata(self, start: Start) -> None:
        """The connection broke after acceptance: the list has the batch."""
        client = start(latency=0.0, drop_every=1)
        file_id = client.upload(jsonl(rows_for(2)))
        with pytest.raises(httpx.RemoteProtocolError):
            client.create(file_id, metadata={"tag": "run1-7"})
        (found,) = client.http.get("/batches").json()["data"]
        assert (found["metadata"], found["status"]) == ({"tag": "run1-7"}, "completed")

    def test_fresh_batch_is_not_visible_at_first(self, start: Start) -> None:
        """Neither by id nor in the list, for a while."""
        client = start(latency=0.0, visible_after=1.0)
        batch_id = client.submit(rows_for(1))
        assert error_of(client.http.get(f"/batches/{batch_id}"))["status"] == 404
        assert client.http.get("/batches").json()["data"] == []
        wait_until(lambda: client.http.get(f"/batches/{batch_id}").status_code == 200)

    def test_download_breaks_off_and_may_be_repeated(self, start: Start) -> None:
        """Every second download ends early; the next one is whole and the same."""
        client = start(latency=0.0, cut_every=2)
        file_id = client.batch(client.submit(rows_for(2000)))["output_file_id"]
        whole = client.content(file_id)
        with pytest.raises(httpx.RemoteProtocolError):
            client.content(file_id)
        assert client.content(file_id) == whole


class TestCancelling:
    def test_cancelled_batch_keeps_and_bills_what_was_done(self, start: Start) -> None:
        """Cancelling twice is allowed, and answered requests stay in the output."""
        client = start(latency=10.0)
        batch_id = client.submit(rows_for(400))
        wait_until(lambda: client.batch(batch_id)["request_counts"]["completed"] >= 40)
        answer = client.cancel(batch_id).json()
        assert (answer["status"], answer["output_file_id"], answer["cancelled_at"]) == ("cancelling", None, None)
        assert client.cancel(batch_id).json()["status"] == "cancelling"
        batch = client.wait_for(batch_id, "cancelled")
        output, errors = client.results(batch_id)
        assert 40 <= len(output) < 400
        assert codes(errors) == {"batch_cancelled": 400 - len(output)}
        assert batch["cancelling_at"] == answer["cancelling_at"] <= batch["cancelled_at"]
        assert client.ledger()["billed_items"] == len(output)

    def test_batch_that_has_ended_can_not_be_cancelled(self, plain: OpenAi) -> None:
        """A 409 that names the status and changes nothing."""
        batch_id = plain.submit(rows_for(2))
        before = plain.batch(batch_id)
        error = error_of(plain.cancel(batch_id))
        assert (error["status"], error["message"]) == (409, "Cannot cancel a batch with status 'completed'.")
        assert plain.batch(batch_id) == before


class TestAccess:
    @pytest.mark.parametrize(("header", "code"), [("", None), ("Basic abc", None), ("Bearer wrong", "invalid_api_key")])
    def test_calls_without_the_right_key_are_refused(self, start: Start, header: str, code: str | None) -> None:
        """On every path, large uploads included."""
        http = start(key="s3cret").http
        headers = {"authorization": header}
        calls = [
            http.get("/files", headers=headers),
            http.get("/files/x/content", headers=headers),
            http.post(
                "/files", headers=headers, data={"purpose": "batch"}, files={"file": ("a.jsonl", b"x" * 2_000_000)}
            ),
            http.get("/batches", headers=headers),
            http.post("/batches", headers=headers, json={}),
            http.post("/batches/x/cancel", headers=headers),
        ]
        assert {(each["status"], each["code"]) for each in map(error_of, calls)} == {(401, code)}
        assert http.get("/files", headers={"authorization": "Bearer s3cret"}).status_code == 200

    @pytest.mark.parametrize(
        "path", ["/batches/none", "/batches?after=none", "/files/none", "/files/x/content", "/other"]
    )
    def test_what_does_not_exist_is_a_404_in_json(self, plain: OpenAi, path: str) -> None:
        """Unknown files, batches and paths."""
        assert error_of(plain.http.get(path))["status"] == 404

    def test_each_answer_has_an_id_of_its_own(self, plain: OpenAi) -> None:
        """Support asks for `x-request-id`, so no two responses share one."""
        ids = {plain.http.get("/batches").headers["x-request-id"] for _ in range(3)}
        assert len(ids) == 3

    def test_base_url_ends_in_v1(self, plain: OpenAi) -> None:
        """As the SDK expects it."""
        assert plain.emulator.base_url == f"{plain.emulator.url}/v1"


class TestKilling:
    def test_files_batches_and_results_survive_kill_9(self, tmp_path: Path) -> None:
        """A restarted emulator goes on with uploads and open batches."""
        state = tmp_path / "state.sqlite"
        with started(state=state, latency=0.0, failure_rate=0.2) as client:
            ended = client.submit(rows_for(50))
            before = client.batch(ended), client.results(ended)
            uploaded = client.upload(jsonl(rows_for(5, first=50)))
            open_id = client.submit(rows_for(50, first=100))
            os.kill(client.emulator.pid, signal.SIGKILL)
        with started(state=state, latency=0.0, failure_rate=0.2) as client:
            assert (client.batch(ended), client.results(ended)) == before
            assert client.content(uploaded) == jsonl(rows_for(5, first=50))
            assert len(client.results(open_id)[0]) == client.batch(open_id)["request_counts"]["completed"]
            assert client.ledger()["paid_twice"] == 0
        assert list(tmp_path.iterdir()) == [state]
