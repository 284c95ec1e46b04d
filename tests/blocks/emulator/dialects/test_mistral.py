"""The Mistral dialect over a real socket."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import orjson
import pytest

from blocks.emulator import EmulatorOptions, running_emulator
from blocks.emulator.dialects.mistral.dialect import Dialect
from blocks.emulator.service.batch import NewBatch, Request
from blocks.emulator.service.service import Service
from blocks.emulator.service.store import Store
from tests.blocks.emulator.client import PATIENCE, SCHEMA, wait_until
from tests.blocks.emulator.dialects.mistral_client import CHAT, MODEL, Json, Mistral, chat_body, row, rows_for
from tests.blocks.emulator.dialects.openai_client import jsonl
from tests.blocks.emulator.service.test_service import Clock

Start = Callable[..., Mistral]


@contextmanager
def started(**options: Any) -> Iterator[Mistral]:
    with running_emulator(EmulatorOptions(dialect="mistral", **options)) as emulator, Mistral(emulator) as client:
        yield client


@pytest.fixture(scope="module")
def plain() -> Iterator[Mistral]:
    """An emulator without faults, whose jobs end at the first look; shared by the tests of this module."""
    with started(latency=0.0) as client:
        yield client


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(started(**options))


def content_of(line: Json) -> str:
    return str(line["response"]["body"]["choices"][0]["message"]["content"])


def is_valid(text: str) -> bool:
    try:
        return bool(jsonschema_rs.is_valid(SCHEMA, orjson.loads(text)))
    except orjson.JSONDecodeError:
        return False


def where_of(response: httpx.Response) -> list[Any]:
    """Where a call is wrong; checks the shape of a 422."""
    assert response.status_code == 422, response.text
    (detail,) = response.json()["detail"]
    assert detail.keys() == {"loc", "msg", "type"}
    return list(detail["loc"])


def error_of(response: httpx.Response) -> Json:
    """Any other error; checks its shape."""
    error = dict(response.json())
    assert error.keys() == {"object", "message", "type", "param", "code"}
    assert error["object"] == "error"
    return {"status": response.status_code, **error}


class TestFiles:
    def test_upload_answers_the_file(self, plain: Mistral) -> None:
        """All documented fields, those that are null included."""
        content = jsonl(rows_for(2))
        before = int(time.time())
        file = plain.send(content, "run-1.jsonl").json()
        assert len(file.pop("id")) == 36
        assert before <= file.pop("created_at") <= time.time()
        assert file == {
            "object": "file",
            "bytes": len(content),
            "filename": "run-1.jsonl",
            "purpose": "batch",
            "sample_type": "batch_request",
            "source": "upload",
            "num_lines": None,
            "mimetype": "application/jsonl",
            "signature": None,
            "expires_at": None,
            "visibility": "workspace",
        }

    @pytest.mark.parametrize("size", [0, 1, 262_144, 5_000_001])
    def test_content_comes_back_byte_by_byte(self, plain: Mistral, size: int) -> None:
        """Empty, tiny, a block long or larger; names may have any characters."""
        content = os.urandom(size)
        file_id = plain.upload(content, "ä 1.jsonl")
        assert plain.content(file_id) == content

    @pytest.mark.parametrize(
        ("fields", "where"),
        [
            ({"purpose": "nonsense"}, "purpose"),
            ({"color": "red"}, "color"),
            ({"expiry": "2"}, "expiry"),
        ],
    )
    def test_unsound_upload_is_refused(self, plain: Mistral, fields: dict[str, str], where: str) -> None:
        """The error points at the field of the form."""
        assert where_of(plain.send(b"{}", **fields)) == ["body", where]

    def test_form_without_a_file_is_refused(self, plain: Mistral) -> None:
        """So is a body that is no form."""
        assert where_of(plain.http.post("/files", files={"purpose": (None, b"batch")})) == ["body", "file"]
        assert where_of(plain.http.post("/files", content=b"x")) == ["body"]

    def test_file_above_the_limit_is_refused(self, start: Start) -> None:
        """A 413, however far above."""
        client = start(max_bytes=1000)
        assert client.send(b"x" * 1000).status_code == 200
        assert error_of(client.send(b"x" * 5_000_000))["status"] == 413

    def test_files_are_listed_page_by_page_and_by_name(self, start: Start) -> None:
        """Results are found by the job's id, and page numbers are checked."""
        client = start(latency=0.0, failure_rate=0.5)
        ids = [client.upload(b"x", f"{number}.jsonl") for number in range(5)]
        page = client.http.get("/files", params={"page": 1, "page_size": 2}).json()
        assert ([file["id"] for file in page["data"]], page["total"]) == ([ids[2], ids[1]], 5)
        assert client.http.get("/files", params={"search": "3.JSON"}).json()["data"][0]["id"] == ids[3]
        job = client.job(client.submit(rows_for(20)))
        listed = client.http.get("/files", params={"purpose": "batch", "search": job["id"]}).json()["data"]
        kinds = {"batch_result": job["output_file"], "batch_error": job["error_file"]}
        assert {file["sample_type"]: file["id"] for file in listed} == kinds
        assert {(file["source"], file["expires_at"]) for file in listed} == {("mistral", None)}
        assert client.http.get("/files", params={"purpose": "ocr"}).json()["data"] == []
        assert where_of(client.http.get("/files", params={"page": "x"})) == ["query", "page"]


class TestJobs:
    def test_create_answers_all_fields_at_once(self, plain: Mistral) -> None:
        """A new job shows every field that it will ever have."""
        file_id = plain.upload(jsonl(rows_for(3)))
        before = int(time.time())
        job = plain.create(input_files=[file_id], metadata={"run": "r1"}).json()
        assert len(job.pop("id")) == 36
        assert before <= job.pop("created_at") <= time.time()
        assert job == {
            "object": "batch",
            "input_files": [file_id],
            "metadata": {"run": "r1"},
            "endpoint": CHAT,
            "model": MODEL,
            "agent_id": None,
            "output_file": None,
            "error_file": None,
            "errors": [],
            "outputs": None,
            "status": "QUEUED",
            "started_at": None,
            "completed_at": None,
            "total_requests": 3,
            "completed_requests": 0,
            "succeeded_requests": 0,
            "failed_requests": 0,
        }

    def test_answer_has_the_shape_of_a_chat_completion(self, plain: Mistral) -> None:
        """A line with id, status and a completion inside."""
        (line,), errors = plain.results(plain.submit([row("c7-000", chat_body("Review: the sound is great"))]))
        assert (errors, line["custom_id"], line["error"]) == ([], "c7-000", None)
        body = line["response"]["body"]
        assert (line["response"]["status_code"], body["object"], body["model"]) == (200, "chat.completion", MODEL)
        assert body["choices"][0]["finish_reason"] == "stop"
        assert orjson.loads(content_of(line)) == {"sentiment": "positive", "topics": ["sound"]}
        usage = body["usage"]
        assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"] > 0

    def test_inline_requests_need_no_file_and_outputs_come_with_the_job(self, plain: Mistral) -> None:
        """Only if asked for with `inline`; they equal the output file."""
        job = plain.create(requests=rows_for(20)).json()
        assert (job["input_files"], job["total_requests"]) == ([], 20)
        assert plain.job(job["id"])["outputs"] is None
        outputs = plain.job(job["id"], inline="true")["outputs"]
        assert outputs == plain.results(job["id"])[0]
        assert len(outputs) == 20

    def test_custom_id_and_the_last_line_end_may_be_missing(self, plain: Mistral) -> None:
        """A line without an id is answered without one."""
        rows = [*rows_for(2), {"body": chat_body("x")}]
        output, _ = plain.results(plain.submit(jsonl(rows).rstrip(b"\n")))
        assert {line["custom_id"] for line in output} == {"testrun0-0-1", "testrun0-1-1", None}

    def test_output_tokens_are_limited(self, plain: Mistral) -> None:
        """`max_tokens` cuts the answer and says `length`."""
        (line,), _ = plain.results(plain.submit([row("a", chat_body("Review: great sound", max_tokens=3))]))
        assert line["response"]["body"]["choices"][0]["finish_reason"] == "length"
        assert line["response"]["body"]["usage"]["completion_tokens"] == 3
        assert not is_valid(content_of(line))

    def test_results_are_shuffled_and_each_is_there_once(self, plain: Mistral) -> None:
        """Lines can be matched by their id alone."""
        sent = [each["custom_id"] for each in rows_for(200)]
        output, _ = plain.results(plain.submit(rows_for(200)))
        listed = [line["custom_id"] for line in output]
        assert listed != sent
        assert sorted(listed) == sorted(sent)
        assert len({line["id"] for line in output}) == 200

    def test_large_job_is_taken_in_and_served(self, plain: Mistral) -> None:
        """Twenty thousand lines each get an answer."""
        output, _ = plain.results(plain.submit(rows_for(20_000)))
        assert len({line["custom_id"] for line in output}) == 20_000

    @pytest.mark.parametrize(
        ("fields", "where"),
        [
            ({"endpoint": "/v1/nonsense"}, "endpoint"),
            ({"endpoint": "/v1/embeddings"}, "endpoint"),
            ({"timeout_hours": 0}, "timeout_hours"),
            ({"timeout_hours": 168}, "timeout_hours"),
            ({"model": 1}, "model"),
            ({"agent_id": "ag:1"}, "agent_id"),
            ({"model": None}, "model"),
            ({"input_files": ["x", "y"]}, "input_files"),
            ({"color": "red"}, "color"),
            ({"metadata": []}, "metadata"),
            ({"input_files": "x"}, "input_files"),
            ({"input_files": None, "requests": ["x"]}, "requests"),
            ({"input_files": None, "requests": [{"body": {}}] * 10_000}, "requests"),
        ],
    )
    def test_unsound_create_is_refused(self, plain: Mistral, fields: Json, where: str) -> None:
        """The error points at the field."""
        assert where_of(plain.create(**{"input_files": ["x"], **fields}))[:2] == ["body", where]

    def test_unsound_inline_request_is_named(self, plain: Mistral) -> None:
        """By its index, or by the key of the metadata that is no text."""
        rows = [*rows_for(3), {"custom_id": "x"}]
        assert where_of(plain.create(requests=rows)) == ["body", "requests", 3]
        assert where_of(plain.create(metadata={"a": 1}, requests=rows_for(1))) == ["body", "metadata", "a"]

    def test_either_files_or_requests_are_needed(self, plain: Mistral) -> None:
        """Neither and both are refused."""
        assert where_of(plain.create()) == ["body"]
        assert where_of(plain.create(input_files=["x"], requests=rows_for(1))) == ["body"]

    def test_unreadable_file_fails_the_job_with_counted_errors(self, plain: Mistral) -> None:
        """Equal errors are told once with their number; an empty file is one too."""
        job = plain.job(plain.submit(jsonl(rows_for(2)) + b"{nonsense\n" * 3))
        assert (job["status"], job["output_file"], job["error_file"]) == ("FAILED", None, None)
        assert job["errors"] == [{"message": "This line is not parseable as valid JSON.", "count": 3}]
        assert plain.job(plain.submit(b""))["errors"][0]["count"] == 1

    def test_unsound_body_fails_its_row_alone(self, plain: Mistral) -> None:
        """A 422 in the error file; the other rows are answered."""
        rows = [*rows_for(2), row("bad", {"messages": []}), row("limit", chat_body("x", max_tokens=0))]
        job_id = plain.submit(rows)
        output, errors = plain.results(job_id)
        assert len(output) == 2
        assert {line["custom_id"]: line["response"]["status_code"] for line in errors} == {"bad": 422, "limit": 422}
        assert "messages" in next(line for line in errors if line["custom_id"] == "bad")["response"]["body"]["message"]
        job = plain.job(job_id)
        assert (job["status"], job["succeeded_requests"], job["failed_requests"]) == ("SUCCESS", 2, 2)


class TestListing:
    def test_jobs_are_listed_newest_first_page_by_page(self, start: Start) -> None:
        """The total is that of all pages, and a page beyond the end is empty."""
        client = start(latency=0.0)
        assert client.jobs() == {"object": "list", "total": 0, "data": []}
        ids = [client.submit(rows_for(1)) for _ in range(5)]
        assert [job["id"] for job in client.jobs()["data"]] == ids[::-1]
        assert [job["id"] for job in client.jobs(page=1, page_size=2, order_by="-created")["data"]] == [ids[2], ids[1]]
        assert client.jobs(page=9)["data"] == []
        assert client.jobs(page_size=1)["total"] == 5
        assert client.jobs()["data"][0] == client.job(ids[4])

    def test_unknown_keys_filter_by_metadata(self, start: Start) -> None:
        """All given pairs have to match."""
        client = start(latency=0.0)
        first = client.submit(rows_for(1), metadata={"run": "r1", "n": "1"})
        client.submit(rows_for(1), metadata={"run": "r1", "n": "2"})
        client.submit(rows_for(1))
        assert client.jobs(run="r1")["total"] == 2
        assert [job["id"] for job in client.jobs(run="r1", n="1", created_by_me="true")["data"]] == [first]
        assert client.jobs(run="r2")["total"] == client.jobs(other="x")["total"] == 0

    def test_time_filters_too(self, start: Start) -> None:
        """`created_after` compares; what is no time or no known filter is refused."""
        client = start(latency=0.0)
        for _ in range(2):
            client.submit(rows_for(1))
        now = datetime.now(UTC)
        assert client.jobs(created_after=(now - timedelta(hours=1)).isoformat())["total"] == 2
        assert client.jobs(created_after=(now + timedelta(hours=1)).isoformat())["total"] == 0
        for query in ({"created_after": "yesterday"}, {"order_by": "size"}, {"page_size": 0}, {"status": "FAILED"}):
            assert where_of(client.http.get("/batch/jobs", params=query)) == ["query", next(iter(query))]


class TestStates:
    """By a clock that the test turns; a job of 100 rows takes 20 s."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = Store(tmp_path / "state.sqlite")
        yield store
        store.close()

    def accept(self, service: Service) -> str:
        details: Json = {"endpoint": CHAT, "input_files": [], "metadata": None, "model": MODEL, "errors": []}
        requests = [Request(str(number), "x", MODEL) for number in range(100)]
        return service.accept(NewBatch(MODEL, requests, b"", None, orjson.dumps(details).decode())).batch.id

    def look(self, dialect: Dialect, service: Service, job_id: str) -> Json:
        job = service.batch(job_id)
        assert job is not None
        return dialect.job_json(job)

    @pytest.mark.parametrize(
        ("option", "final", "counts"),
        [
            ({}, "SUCCESS", (100, 100, 0)),
            ({"expire_every": 1}, "TIMEOUT_EXCEEDED", (50, 50, 0)),
            ({"fail_batch_every": 1}, "FAILED", (0, 0, 0)),
        ],
    )
    def test_job_goes_through_its_states(
        self, store: Store, clock: Clock, option: Json, final: str, counts: tuple[int, int, int]
    ) -> None:
        """Queued, running and one of the final states, by the clock."""
        service = Service(EmulatorOptions(latency=20.0, **option), store, clock)
        dialect = Dialect(service)
        job_id = self.accept(service)
        seen = []
        for clock.now in (1000.5, 1001.0, 1010.0, 1020.0):
            seen.append(self.look(dialect, service, job_id))
        assert [job["status"] for job in seen] == ["QUEUED", "RUNNING", "RUNNING", final]
        assert [job["started_at"] for job in seen[:3]] == [None, 1001, 1001]
        assert [job["completed_at"] for job in seen] == [None, None, None, 1020]
        assert [job["completed_requests"] for job in seen[:3]] == [0, 5, 50]
        last = seen[-1]
        named = ("completed_requests", "succeeded_requests", "failed_requests")
        assert tuple(last[name] for name in named) == counts
        assert bool(last["errors"]) is (final == "FAILED")

    def test_cancelled_job_is_asked_to_for_a_moment(self, store: Store, clock: Clock) -> None:
        """It is CANCELLATION_REQUESTED before it is CANCELLED."""
        service = Service(EmulatorOptions(latency=20.0), store, clock)
        dialect = Dialect(service)
        job_id = self.accept(service)
        clock.now = 1010.0
        job = service.batch(job_id)
        assert job is not None
        service.cancel(job)
        asked = self.look(dialect, service, job_id)
        clock.now = 1011.0
        cancelled = self.look(dialect, service, job_id)
        assert (asked["status"], asked["output_file"]) == ("CANCELLATION_REQUESTED", None)
        assert (cancelled["status"], cancelled["completed_requests"]) == ("CANCELLED", 50)
        assert cancelled["output_file"] is not None
        assert cancelled["error_file"] is None


class TestFaults:
    def test_failures_stand_in_the_error_file_and_pass_on_the_next_attempt(self, start: Start) -> None:
        """They have status 500 and are counted as failed."""
        client = start(latency=0.0, failure_rate=0.3)
        job_id = client.submit(rows_for(300))
        output, errors = client.results(job_id)
        assert {line["response"]["status_code"] for line in errors} == {500}
        assert 50 < len(errors) < 130
        job = client.job(job_id)
        assert (job["succeeded_requests"], job["failed_requests"]) == (len(output), len(errors))
        again = client.job(client.submit(rows_for(300, attempt=2)))
        assert (again["error_file"], again["succeeded_requests"]) == (None, 300)
        assert client.ledger()["billed_items"] == 300 + len(output)

    def test_job_of_failures_has_an_error_file_only(self, start: Start) -> None:
        """It succeeds, without an output file."""
        client = start(latency=0.0, failure_rate=1.0)
        job = client.job(client.submit(rows_for(10)))
        assert (job["status"], job["output_file"], len(client.lines(job["error_file"]))) == ("SUCCESS", None, 10)

    def test_missing_rows_are_in_neither_file_and_not_counted(self, start: Start) -> None:
        """They were not run."""
        client = start(latency=0.0, missing_rate=0.3)
        job_id = client.submit(rows_for(100))
        output, errors = client.results(job_id)
        assert errors == []
        assert 50 < len(output) < 90
        assert client.job(job_id)["succeeded_requests"] == len(output)

    def test_unexplained_rows_have_an_empty_body_and_late_ones_are_504s(self, start: Start) -> None:
        """Both stand in the error file."""
        client = start(latency=0.0, unexplained_rate=0.5, timeout_rate=0.5)
        _, errors = client.results(client.submit(rows_for(30)))
        responses = [line["response"] for line in errors]
        assert {response["status_code"] for response in responses} == {500, 504}
        assert {response["status_code"] for response in responses if response["body"] is None} == {500}

    @pytest.mark.parametrize("fault", ["invalid_rate", "length_rate", "refusal_rate"])
    def test_answers_that_went_wrong_are_billed(self, start: Start, fault: str) -> None:
        """Cut off or invalid, they break the schema and cost money all the same."""
        client = start(latency=0.0, **{fault: 1.0})
        output, _ = client.results(client.submit(rows_for(20)))
        assert not any(is_valid(content_of(line)) for line in output)
        reasons = {line["response"]["body"]["choices"][0]["finish_reason"] for line in output}
        assert reasons == {"length" if fault == "length_rate" else "stop"}
        assert client.ledger()["billed_invalid"] == 20

    def test_timed_out_job_keeps_and_bills_what_was_done(self, start: Start) -> None:
        """Half of it is in the output file, the rest nowhere."""
        client = start(latency=0.0, expire_every=1)
        job_id = client.submit(rows_for(10))
        output, errors = client.results(job_id)
        assert (client.job(job_id)["status"], len(output), errors) == ("TIMEOUT_EXCEEDED", 5, [])
        assert client.ledger()["billed_items"] == 5

    def test_job_may_fail_as_a_whole_by_switch(self, start: Start) -> None:
        """It has one error for all requests, and nothing is billed."""
        client = start(latency=0.0, fail_batch_every=1)
        (error,) = client.job(client.submit(rows_for(3)))["errors"]
        assert error["count"] == 3
        assert client.ledger()["billed_items"] == 0

    def test_rate_limit_says_how_long_to_wait_in_the_way_that_is_switched(self, start: Start) -> None:
        """In seconds, in milliseconds or not at all."""
        said = {}
        for header in ("retry-after", "retry-after-ms", "none"):
            response = start(rate_limit_every=1, retry_after=2, retry_header=header).create(requests=rows_for(1))
            assert (error_of(response)["status"], error_of(response)["type"]) == (429, "rate_limit_error")
            said[header] = {name: value for name, value in response.headers.items() if name.startswith("retry")}
        assert said == {"retry-after": {"retry-after": "2"}, "retry-after-ms": {"retry-after-ms": "2000"}, "none": {}}

    def test_used_up_quota_is_a_429_of_its_own_type(self, start: Start) -> None:
        """It has no `retry-after`, for waiting does not help."""
        response = start(quota_every=1).create(requests=rows_for(1))
        assert (error_of(response)["status"], error_of(response)["type"]) == (429, "insufficient_quota")
        assert "retry-after" not in response.headers

    def test_pending_requests_are_limited_until_jobs_end(self, start: Start) -> None:
        """A create above the limit is a 429 that passes by itself."""
        client = start(latency=1.0, max_requests=15)
        first = client.submit(rows_for(10))
        assert error_of(client.create(requests=rows_for(10)))["status"] == 429
        client.wait_for(first)
        assert client.create(requests=rows_for(10)).status_code == 200

    def test_overload_is_a_503(self, start: Start) -> None:
        """Also for a large upload."""
        error = error_of(start(error_rate=1.0).send(b"x" * 2_000_000))
        assert (error["status"], error["type"]) == (503, "service_unavailable")

    def test_dropped_create_is_found_again_by_its_metadata(self, start: Start) -> None:
        """The connection broke after acceptance: the job is there."""
        client = start(latency=0.0, drop_every=1)
        with pytest.raises(httpx.RemoteProtocolError):
            client.create(requests=rows_for(2), metadata={"tag": "run1-7"})
        (found,) = client.jobs(tag="run1-7")["data"]
        assert found["status"] == "SUCCESS"

    def test_fresh_job_is_not_visible_at_first(self, start: Start) -> None:
        """Neither by id nor in the list, for a while."""
        client = start(latency=0.0, visible_after=1.0)
        job_id = client.submit(rows_for(1))
        assert error_of(client.http.get(f"/batch/jobs/{job_id}"))["status"] == 404
        assert client.jobs()["total"] == 0
        wait_until(lambda: client.http.get(f"/batch/jobs/{job_id}").status_code == 200)

    def test_answer_is_held_back(self, start: Start) -> None:
        """The job exists while its creator still waits for the response."""
        client = start(hold=1.0)
        holding = threading.Thread(target=client.create, kwargs={"requests": rows_for(1)})
        holding.start()
        wait_until(lambda: client.jobs()["total"] == 1)
        assert holding.is_alive()
        holding.join(PATIENCE)
        assert not holding.is_alive()

    def test_download_breaks_off_and_may_be_repeated(self, start: Start) -> None:
        """Every second download ends early; the next one is whole and the same."""
        client = start(latency=0.0, cut_every=2)
        file_id = client.job(client.submit(rows_for(2000)))["output_file"]
        whole = client.content(file_id)
        with pytest.raises(httpx.RemoteProtocolError):
            client.content(file_id)
        assert client.content(file_id) == whole

    def test_lines_come_twice_or_without_usage_and_states_are_unknown(self, start: Start) -> None:
        """Faults of one job add up."""
        client = start(latency=0.0, duplicate_rate=1.0, unmetered_rate=1.0, unknown_status_every=1)
        job_id = client.submit(rows_for(5))
        assert client.job(job_id)["status"] == "PREEMPTED"
        output, _ = client.results(job_id)
        assert len(output) == 10
        assert not any("usage" in line["response"]["body"] for line in output)

    def test_results_are_gone_after_a_while(self, start: Start) -> None:
        """The file answers 404 and the inline outputs are empty."""
        client = start(latency=0.0, gone_after=0.3)
        job_id = client.submit(rows_for(1))
        file_id = client.job(job_id)["output_file"]
        wait_until(lambda: client.http.get(f"/files/{file_id}/content").status_code == 404)
        assert client.job(job_id, inline="true")["outputs"] == []


class TestEnding:
    def test_cancelled_job_keeps_and_bills_what_was_done(self, start: Start) -> None:
        """The output file has as many lines as the job counts, and none failed."""
        client = start(latency=10.0)
        job_id = client.submit(rows_for(400))
        wait_until(lambda: client.job(job_id)["completed_requests"] >= 40)
        assert client.http.post(f"/batch/jobs/{job_id}/cancel").json()["status"] == "CANCELLATION_REQUESTED"
        job = client.wait_for(job_id, "CANCELLED")
        output, errors = client.results(job_id)
        assert errors == []
        assert 40 <= len(output) == job["completed_requests"] == client.ledger()["billed_items"] < 400

    def test_job_that_has_ended_can_not_be_cancelled(self, plain: Mistral) -> None:
        """A 409 that leaves the job as it was."""
        job_id = plain.submit(rows_for(2))
        before = plain.job(job_id)
        assert error_of(plain.http.post(f"/batch/jobs/{job_id}/cancel"))["status"] == 409
        assert plain.job(job_id) == before


class TestAccess:
    @pytest.mark.parametrize("header", ["", "Basic abc", "Bearer wrong"])
    def test_calls_without_the_right_key_are_refused(self, start: Start, header: str) -> None:
        """On every path, large uploads included."""
        http = start(key="s3cret").http
        headers = {"authorization": header}
        calls = [
            http.get("/files", headers=headers),
            http.get("/files/x/content", headers=headers),
            http.post("/files", headers=headers, files={"file": ("a.jsonl", b"x" * 2_000_000)}),
            http.get("/batch/jobs", headers=headers),
            http.post("/batch/jobs", headers=headers, json={}),
            http.post("/batch/jobs/x/cancel", headers=headers),
        ]
        assert {each["status"] for each in map(error_of, calls)} == {401}
        assert http.get("/files", headers={"authorization": "Bearer s3cret"}).status_code == 200

    def test_base_url_has_no_version(self, plain: Mistral) -> None:
        """The SDK adds it; unknown paths are a 404."""
        assert plain.emulator.base_url == plain.emulator.url
        assert error_of(plain.http.get("/other"))["status"] == 404


def test_jobs_and_results_survive_kill_9(tmp_path: Path) -> None:
    """A restarted emulator shows the job and its results as they were."""
    state = tmp_path / "state.sqlite"
    with started(state=state, latency=0.0, failure_rate=0.2) as client:
        ended = client.submit(rows_for(50))
        before = client.job(ended), client.results(ended)
        os.kill(client.emulator.pid, 9)
    with started(state=state, latency=0.0, failure_rate=0.2) as client:
        assert (client.job(ended), client.results(ended)) == before
        assert client.ledger()["paid_twice"] == 0
