"""Mistral's dialect over a real socket: requests in the order or in a file, answers in two files or in the job."""

import json
import logging
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path
from typing import Any

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
from blocks.providers.mistral import LIMITS
from blocks.providers.mistral.batches import INLINE_BYTES, INLINE_REQUESTS, NEVER, Mistral
from blocks.providers.mistral.codec import MistralCodec, read_error, read_row, read_status
from blocks.providers.reading import UNREADABLE
from tests.blocks.scripted import Asked, Drop, Say, Server, Step, serving

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"label": {"type": "string"}}}
STRICT = {**SCHEMA, "required": ["label"], "additionalProperties": False}
FORM = RequestForm("mistral-small-latest", "Be brief.", SCHEMA, 200)
KEY = "aBcD1234aBcD1234aBcD1234aBcD1234"
TAG = "abcd2345-7"
FILENAME = f"batchwerk-{TAG}.jsonl"
SENT = 1_795_334_400.0  # when the batch of these tests was sent
UPLOADED = Say(body={"id": "file-1", "object": "file"})
CREATED = Say(body={"id": "job-1", "object": "batch", "status": "QUEUED"})


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Retries without waiting."""
    with stamina.set_testing(True, attempts=3):  # stamina's own
        yield


@contextmanager
def connected(*script: Step, now: float = SENT + 10_000, **options: Any) -> Iterator[tuple[Mistral, Server]]:
    with serving(*script) as server:
        provider = Mistral(KEY, server.url, clock=lambda: now, **options)
        try:
            yield provider, server
        finally:
            provider.close()


@pytest.fixture
def batch(tmp_path: Path) -> EncodedBatch:
    form = MistralCodec(FORM)
    prompts = ["text 0", 'two\nlines, "quoted"', "ü \u2028"]
    content = form.head + form.separator.join(form.encode(f"{TAG}-{n}-1", p) for n, p in enumerate(prompts)) + form.tail
    (tmp_path / "body").write_bytes(content)
    return EncodedBatch(tmp_path / "body", 3, len(content), "hash", TAG, sent_at=SENT)


def larger(batch: EncodedBatch, **changes: Any) -> EncodedBatch:
    known = {"requests": batch.requests, "bytes": batch.bytes, "sent_at": batch.sent_at, **changes}
    return EncodedBatch(batch.path, sha256=batch.sha256, tag=batch.tag, **known)


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


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# --- requests


@given(st.text(), st.none() | st.text(min_size=1), st.booleans())
def test_an_encoded_request_is_one_line_of_json(prompt: str, system: str | None, longer: bool) -> None:
    """Put together from pieces, it is what an encoder would have made of the whole."""
    line = MistralCodec(RequestForm("m", system, SCHEMA, 9)).encode("run-1-1", prompt, longer=longer)
    assert b"\n" not in line
    request = json.loads(line)
    assert list(request) == ["custom_id", "body"]
    assert request["custom_id"] == "run-1-1"
    said = request["body"]["messages"]
    if system:
        assert said.pop(0) == {"role": "system", "content": system}
    assert said == [{"role": "user", "content": prompt}]
    assert request["body"]["max_tokens"] == (9 * LONGER if longer else 9)


def test_a_body_is_as_documented() -> None:
    """Messages, temperature, limit, schema; the model is the job's."""
    form = RequestForm("m", "Be brief.", SCHEMA, 200, 0.0)
    assert json.loads(MistralCodec(form).encode("run-1-1", "Hi"))["body"] == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "temperature": 0.0,
        "max_tokens": 200,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": STRICT},
        },
    }


def test_what_is_not_asked_for_is_not_sent() -> None:
    """No system text, no schema, no limit, also for a longer answer."""
    form = MistralCodec(RequestForm("m"))
    for longer in (False, True):
        body = json.loads(form.encode("run-1-1", "Hi", longer=longer))["body"]
        assert body == {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_schema_that_can_not_be_said_strictly_is_said_in_words(system: str | None) -> None:
    """In the system text, whole; JSON is asked for all the same."""
    schema = {"type": "object", "additionalProperties": {"type": "string"}}
    body = json.loads(MistralCodec(RequestForm("m", system, schema)).encode("a", "Hi"))["body"]
    assert body["response_format"] == {"type": "json_object"}
    said = body["messages"][0]
    assert said["role"] == "system"
    assert said["content"].startswith("Be brief.\n\n") is (system is not None)
    assert json.loads(said["content"].splitlines()[-1]) == schema


# --- submit

ORDER = {
    "endpoint": "/v1/chat/completions",
    "model": "mistral-small-latest",
    "metadata": {"batchwerk": TAG},
    "timeout_hours": 24,
}


def test_a_small_batch_is_one_call(batch: EncodedBatch) -> None:
    """Its lines are the list of requests; what is common to them stands before."""
    with connected(CREATED) as (provider, server):
        assert provider.submit(batch, FORM) == "job-1"
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/batch/jobs")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["content-type"] == "application/json"
    order = json.loads(asked.body)
    assert order == {**ORDER, "requests": lines_of(batch.path)}
    assert list(order) == [*ORDER, "requests"]


def assert_by_file(server: Server, batch: EncodedBatch) -> None:
    upload, create = server.asked
    assert (upload.method, upload.path) == ("POST", "/v1/files")
    assert upload.headers["content-length"] == str(len(upload.body))
    assert list(form_of(upload).items()) == [
        ("purpose", (None, b"batch")),
        ("file", (FILENAME, batch.path.read_bytes())),
    ]
    assert (create.method, create.path) == ("POST", "/v1/batch/jobs")
    assert json.loads(create.body) == {**ORDER, "input_files": ["file-1"]}


def test_a_batch_of_many_requests_is_a_file_and_an_order(batch: EncodedBatch) -> None:
    """From the number at which the service takes none within the order."""
    with connected(UPLOADED, CREATED) as (provider, server):
        assert provider.submit(larger(batch, requests=INLINE_REQUESTS + 1), FORM) == "job-1"
    assert_by_file(server, batch)
    with connected(CREATED) as (provider, server):
        assert provider.submit(larger(batch, requests=INLINE_REQUESTS), FORM) == "job-1"
    assert len(server.asked) == 1


def test_a_batch_of_many_bytes_is_a_file_and_an_order(batch: EncodedBatch) -> None:
    """It is streamed from disk."""
    with batch.path.open("ab") as file:
        for _ in range(INLINE_BYTES // 1000):
            file.write(b'{"custom_id":"%b","body":{}}\n' % (b"x" * 1000))
    big = larger(batch, bytes=batch.path.stat().st_size)
    with connected(UPLOADED, CREATED) as (provider, server):
        tracemalloc.start()
        try:
            assert provider.submit(big, FORM) == "job-1"
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert_by_file(server, big)
    assert peak < 4 * INLINE_BYTES  # of which the test's own server has the most


def test_files_can_be_asked_for(batch: EncodedBatch) -> None:
    """For every batch."""
    with connected(UPLOADED, CREATED, inline=NEVER) as (provider, server):
        assert provider.submit(batch, FORM) == "job-1"
    assert_by_file(server, batch)


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_address_may_name_the_version(suffix: str, batch: EncodedBatch) -> None:
    """Other tools want it there."""
    with serving(CREATED) as server:
        provider = Mistral(KEY, server.url + suffix)
        assert provider.submit(batch, FORM) == "job-1"
        provider.close()
    assert server.asked[0].path == "/v1/batch/jobs"


@pytest.mark.parametrize("trouble", [Say(500), Say(429), Say(200, b"x"), Drop(), Drop(reset=True)], ids=repr)
def test_an_upload_is_repeated(trouble: Step, batch: EncodedBatch) -> None:
    """An orphaned file costs nothing; each time the whole file is sent."""
    with connected(trouble, UPLOADED, CREATED, inline=NEVER) as (provider, server):
        assert provider.submit(batch, FORM) == "job-1"
    assert [asked.path for asked in server.asked] == ["/v1/files", "/v1/files", "/v1/batch/jobs"]
    assert form_of(server.asked[1])["file"][1] == batch.path.read_bytes()


def test_an_upload_that_fails_leaves_nothing_unknown(batch: EncodedBatch) -> None:
    """No job was made: it is no question whether one was."""
    for step in (Say(503), Drop(), Say(200, {}), Say(200, []), Say(200, {"id": None})):
        with connected(step, inline=NEVER) as (provider, server), pytest.raises(Transient):
            provider.submit(batch, FORM)
        assert {asked.path for asked in server.asked} == {"/v1/files"}


@pytest.mark.parametrize("inline", ["auto", "never"])
@pytest.mark.parametrize("trouble", [Say(500), Say(503), Say(408), Say(200, b"x"), Drop(), Drop(reset=True)], ids=repr)
def test_a_create_whose_answer_is_lost_is_never_repeated(trouble: Step, inline: str, batch: EncodedBatch) -> None:
    """The job may run and cost."""
    before = [UPLOADED] if inline == "never" else []
    with connected(*before, trouble, CREATED, inline=inline) as (provider, server), pytest.raises(UnknownOutcome):
        provider.submit(batch, FORM)
    assert len(server.asked) == len(before) + 1


@pytest.mark.parametrize("said", [{}, [], None, "b", {"id": None}, {"id": ""}, {"id": {}}, {"job_id": "b"}])
def test_an_acceptance_without_an_id_is_unknown(said: Any, batch: EncodedBatch) -> None:
    """It was accepted, and nobody knows as what."""
    with connected(Say(200, said)) as (provider, server), pytest.raises(UnknownOutcome, match="no id"):
        provider.submit(batch, FORM)
    assert len(server.asked) == 1


def test_a_throttled_create_is_made_again(batch: EncodedBatch) -> None:
    """A 429 accepted nothing."""
    with connected(Say(429), CREATED) as (provider, server):
        assert provider.submit(batch, FORM) == "job-1"
    assert server.asked[0].body == server.asked[1].body


def refusal(status: int, message: Any = "no", kind: str = "invalid_request_error", code: Any = None) -> Say:
    return Say(status, {"object": "error", "message": message, "type": kind, "param": None, "code": code})


MISSING = {"type": "missing", "loc": ["body", "model"], "msg": "Field required", "input": "secret"}
EXTRA = {"type": "extra_forbidden", "loc": ["body", "requests", 0, "x"], "msg": "Extra inputs are not permitted"}


@pytest.mark.parametrize(
    ("said", "expected", "words"),
    [
        (Say(401, {"message": "Unauthorized", "request_id": "r"}), AuthenticationFailed, "Unauthorized"),
        (Say(401, {"detail": "Unauthorized"}), AuthenticationFailed, "Unauthorized"),
        (refusal(402), SpendLimitReached, "no"),
        (refusal(429, "spent", "insufficient_quota", "429"), SpendLimitReached, "spent"),
        (refusal(413), BatchTooLarge, "no"),
        (refusal(400, "Invalid model: x", "invalid_model", "1500"), BatchRefused, "(invalid_model): Invalid model: x"),
        (Say(422, {"detail": [MISSING]}), BatchRefused, "(missing): body.model: Field required"),
        (Say(422, {"detail": [EXTRA, MISSING]}), BatchRefused, "body.requests.0.x: Extra inputs are not permitted"),
        (refusal(422, {"detail": [MISSING]}), BatchRefused, "(invalid_request_error): body.model: Field required"),
        (refusal(404), NotFound, "no"),
        (Say(400, b"<html>"), BatchRefused, "400"),
    ],
)  # fmt: skip
def test_a_refusal_has_its_error(said: Say, expected: type[ProviderError], words: str, batch: EncodedBatch) -> None:
    """At the file or at the job, and not asked for again; never with what was sent in it."""
    for script, inline in (([said], "auto"), ([said], "never"), ([UPLOADED, said], "never")):
        with connected(*script, inline=inline) as (provider, server), pytest.raises(ProviderError) as caught:
            provider.submit(batch, FORM)
        assert type(caught.value) is expected
        assert words in caught.value.message
        assert "secret" not in caught.value.message
        assert len(server.asked) == len(script)


def test_no_key_is_in_an_error() -> None:
    """Also where the service repeats it."""
    with (
        connected(refusal(401, f"no such key: {KEY}.")) as (provider, _),
        pytest.raises(AuthenticationFailed, match="no such key: …") as caught,
    ):
        provider.poll("job-1")
    assert KEY not in f"{caught.value}{caught.value!r}{caught.value.__dict__}{caught.value.__cause__}"


# --- find


def listed(*items: Any, total: Any = None) -> Say:
    return Say(body={"object": "list", "data": list(items), "total": len(items) if total is None else total})


def a_job(number: int, *, tag: str | None = None, at: float = SENT + 60, **changes: Any) -> dict[str, Any]:
    metadata = {"batchwerk": tag} if tag else None
    return {"id": f"job-{number}", "status": "RUNNING", "created_at": int(at), "metadata": metadata, **changes}


def a_file(number: int, name: str = FILENAME, at: float = SENT + 30) -> dict[str, Any]:
    return {"id": f"file-{number}", "object": "file", "filename": name, "created_at": int(at), "purpose": "batch"}


def test_a_lost_batch_is_found_by_its_tag(batch: EncodedBatch) -> None:
    """By the server's filter, a member of metadata a key of the query; nothing is sent."""
    with connected(listed(a_job(7, tag=TAG))) as (provider, server):
        assert not provider.replays
        assert provider.find(batch, FORM) == Found("job-7")
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("GET", "/v1/batch/jobs")
    assert asked.query == {
        "page": "0",
        "page_size": "100",
        "batchwerk": TAG,
        "order_by": "-created",
    }


def test_the_tag_is_looked_at_here_too(batch: EncodedBatch) -> None:
    """A server may ignore a filter."""
    odd = [a_job(9, tag="abcd2345-8"), a_job(8, metadata={}), a_job(7, metadata=[TAG]), a_job(6, metadata=TAG), 5]
    with connected(listed(*odd, a_job(5, tag=TAG), a_job(4))) as (provider, _):
        assert provider.find(batch, FORM) == Found("job-5")


def test_an_empty_answer_to_a_filter_is_not_believed(batch: EncodedBatch) -> None:
    """A server may mean something else by it: the list without it is read before anything is sent."""
    with connected(listed(), listed(a_job(8), a_job(7, tag=TAG))) as (provider, server):
        assert provider.find(batch, FORM) == Found("job-7")
    assert ["batchwerk" in asked.query for asked in server.asked] == [True, False]


def test_lists_are_read_page_by_page_back_to_the_time_of_sending(batch: EncodedBatch) -> None:
    """And not further: a server may ignore that filter as well, and a workspace may have thousands of old jobs."""
    pages = [
        listed(a_job(9), a_job(8), total=500),
        listed(a_job(8), a_job(7), a_job(6, tag=TAG), total=500),
        listed(a_job(5, at=SENT - 90_000), total=500),
        listed(a_job(4), total=500),
    ]
    with connected(*pages) as (provider, server):
        assert provider.find(batch, FORM) == Found("job-6")
    assert [asked.query["page"] for asked in server.asked] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "page", [listed(total=9), listed(a_job(9), total=9), Say(body={"data": [5, "x"]}), Say(body={"data": [a_job(9)]}),
             listed({"id": None}, total=10**30)],
)  # fmt: skip
def test_reading_a_list_always_ends(page: Say, batch: EncodedBatch) -> None:
    """Also one that promises more and brings the same, or names no total."""
    with connected(page, now=SENT + 5) as (provider, server), pytest.raises(UnknownOutcome):
        provider.find(batch, FORM)
    assert len(server.asked) <= 6


@pytest.mark.parametrize("said", [{}, None, "x", 5, [], {"data": None}, {"data": {}}])
def test_what_is_no_list_is_an_error(said: Any, batch: EncodedBatch) -> None:
    """Not an empty one, after which the batch would be sent again."""
    for script in ([Say(body=said)], [listed(), Say(body=said)], [listed(), listed(), Say(body=said)]):
        with connected(*script) as (provider, server), pytest.raises(Transient):
            provider.find(batch, FORM)
        assert {asked.method for asked in server.asked} == {"GET"}


def test_of_two_the_oldest_stays(batch: EncodedBatch, caplog: pytest.LogCaptureFixture) -> None:
    """The other is cancelled, and told as paid for."""
    page = listed(a_job(9, tag=TAG, at=SENT + 90), a_job(8), a_job(7, tag=TAG, at=SENT + 80))
    with connected(page, Say(body=a_job(9, status="CANCELLATION_REQUESTED"))) as (provider, server):
        assert provider.find(batch, FORM) == Found("job-7", ("job-9",))
    assert (server.asked[1].method, server.asked[1].path) == ("POST", "/v1/batch/jobs/job-9/cancel")
    assert "job-7 is kept, job-9 is cancelled" in caplog.text


@pytest.mark.parametrize("status", ["FAILED", "CANCELLED", "CANCELLATION_REQUESTED"])
def test_of_two_one_that_can_still_answer_stays(status: str, batch: EncodedBatch) -> None:
    """One that failed, or was cancelled the last time, is not what is waited for."""
    page = listed(a_job(9, tag=TAG, at=SENT + 90), a_job(7, tag=TAG, at=SENT + 80, status=status))
    with connected(page, CREATED) as (provider, _):
        assert provider.find(batch, FORM) == Found("job-9", ("job-7",))


def test_a_job_that_is_listed_twice_is_one(batch: EncodedBatch) -> None:
    """A list that moves while it is read shows one again; it is not cancelled."""
    pages = [listed(a_job(7, tag=TAG), total=3), listed(a_job(7, tag=TAG), a_job(6), total=3), listed(total=3)]
    with connected(*pages) as (provider, server):
        assert provider.find(batch, FORM) == Found("job-7")
    assert {asked.method for asked in server.asked} == {"GET"}


def test_an_empty_list_proves_nothing_for_a_while(batch: EncodedBatch) -> None:
    """New jobs can stay invisible for minutes: nothing is sent, and it says how long."""
    with connected(listed(), now=SENT + 400) as (provider, server), pytest.raises(UnknownOutcome) as caught:
        provider.find(batch, FORM)
    assert caught.value.retry_after == 200
    assert {asked.method for asked in server.asked} == {"GET"}


def test_after_a_while_a_batch_that_is_not_there_was_never_accepted(batch: EncodedBatch) -> None:
    """Which is told; sending it again is the caller's to do."""
    with connected(listed(), listed(a_job(9)), listed(), now=SENT + 601) as (provider, server):
        assert provider.find(batch, FORM) is None
    files = server.asked[2]
    assert (files.path, files.query["search"], files.query["purpose"]) == ("/v1/files", FILENAME, "batch")
    assert {asked.method for asked in server.asked} == {"GET"}


def test_the_time_runs_from_the_last_upload(batch: EncodedBatch) -> None:
    """It may take long, and the job was ordered after it."""
    files = listed(a_file(8, at=SENT + 9000), a_file(7), a_file(6, "other.jsonl", SENT + 9050))
    script = [listed(), listed(), files]
    with connected(*script, now=SENT + 9100) as (provider, _), pytest.raises(UnknownOutcome) as caught:
        provider.find(batch, FORM)
    assert caught.value.retry_after == 500
    with connected(*script, now=SENT + 9601) as (provider, _):
        assert provider.find(batch, FORM) is None


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
    """Nobody can tell how long ago it was; the way to look for it is told, and the whole list is looked through."""
    with connected(listed()) as (provider, server), pytest.raises(UnknownOutcome) as caught:
        provider.find(larger(batch, sent_at=0.0), FORM)
    assert TAG in caught.value.next_step
    assert {asked.method for asked in server.asked} == {"GET"}
    assert not any("created_after" in asked.query for asked in server.asked)


def test_the_time_to_settle_can_be_set(batch: EncodedBatch) -> None:
    """A service that lists at once needs none."""
    with connected(listed(), now=SENT, settle=0) as (provider, _):
        assert provider.find(batch, FORM) is None


# --- poll and cancel


@pytest.mark.parametrize(
    ("wording", "phase"),
    [
        ("QUEUED", BatchPhase.RUNNING),
        ("RUNNING", BatchPhase.RUNNING),
        ("CANCELLATION_REQUESTED", BatchPhase.RUNNING),
        ("SUCCESS", BatchPhase.ENDED),
        ("TIMEOUT_EXCEEDED", BatchPhase.ENDED),
        ("CANCELLED", BatchPhase.ENDED),
        ("FAILED", BatchPhase.FAILED),
        ("success", BatchPhase.ENDED),
        ("failed", BatchPhase.FAILED),
        ("VALIDATING_SOMETHING_NEW", BatchPhase.RUNNING),
        ("", BatchPhase.RUNNING),
    ],
)
def test_each_state_is_a_phase(wording: str, phase: BatchPhase) -> None:
    """From a word that we don't know nothing is concluded. Of a job that ended early some rows were not run."""
    counts = {"total_requests": 200, "completed_requests": 100, "succeeded_requests": 0, "failed_requests": 10}
    said = {**a_job(1, status=wording, errors=[]), **counts}
    with connected(Say(body=said)) as (provider, server):
        status = provider.poll("job-1")
    created_at, early = datetime.fromtimestamp(SENT + 60, UTC), wording in {"TIMEOUT_EXCEEDED", "CANCELLED"}
    assert status == BatchStatus("job-1", phase, wording or "unknown", created_at=created_at, early=early)
    assert (server.asked[0].method, server.asked[0].path) == ("GET", "/v1/batch/jobs/job-1")


@pytest.mark.parametrize(
    "extra",
    [
        {}, {"status": None}, {"status": 5}, {"status": {}}, {"total_requests": None}, {"total_requests": "5"},
        {"total_requests": 0, "completed_requests": -1}, {"completed_requests": []}, {"created_at": "soon"},
        {"created_at": 1e300}, {"created_at": {}}, {"errors": {}}, {"errors": None}, {"errors": [None, {}, 5, ""]},
    ],
    ids=str,
)  # fmt: skip
def test_a_job_may_say_little(extra: dict[str, Any]) -> None:
    """Without a word that is known it is running."""
    status = read_status({"id": "b", **extra})
    assert status.phase is BatchPhase.RUNNING
    assert status.created_at is None


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ([{"message": "no model", "count": 1}], "no model"),
        ([{"message": "a", "count": 2}, {"message": "b", "count": 5}], "b (5 times) (and 1 more)"),
        ([{"message": "a"}], "a"),
        ([{"message": {"detail": [MISSING]}, "count": 3}], "body.model: Field required (3 times)"),
        ([{"count": 3}], "no reason given (3 times)"),
        (["broken"], "broken"),
        ([None, {}], None),
        ("broken", None),
    ],
    ids=str,
)
def test_a_failed_job_says_why(errors: Any, said: str | None) -> None:
    """The most frequent error leads."""
    status = read_status(a_job(1, status="FAILED", errors=errors))
    assert (status.phase, status.error) == (BatchPhase.FAILED, said)


@pytest.mark.parametrize(
    ("member", "phase"),
    [
        ({"output_file": "file-o"}, BatchPhase.ENDED),
        ({"error_file": "file-e"}, BatchPhase.ENDED),
        ({"outputs": [{}]}, BatchPhase.ENDED),
        ({"succeeded_requests": 2}, BatchPhase.ENDED),
        ({"output_file": None, "error_file": {}, "outputs": [], "succeeded_requests": 0}, BatchPhase.FAILED),
    ],
)
def test_a_failed_job_with_something_to_read_has_ended(member: dict[str, Any], phase: BatchPhase) -> None:
    """What was answered was paid."""
    assert read_status({"id": "b", "status": "FAILED", **member}).phase is phase


@pytest.mark.parametrize("said", [{}, [], None, "running", 5, {"status": "SUCCESS"}, {"id": None}])
def test_what_is_no_job_is_an_error_of_the_provider(said: Any) -> None:
    """Not a traceback, and not a job without answers."""
    with connected(Say(200, said)) as (provider, _):
        for call in (provider.poll, provider.cancel, lambda job_id: list(provider.results(job_id, FORM))):
            with pytest.raises(ProviderError) as caught:
                call("job-1")
            assert caught.value.provider == "mistral"


def test_a_job_that_is_not_known_is_not_found() -> None:
    """It may not be visible yet: that is the caller's to judge."""
    with connected(refusal(404)) as (provider, _), pytest.raises(NotFound):
        provider.poll("job-1")


def test_cancelling_is_asked_for_and_told() -> None:
    """The job's own word for it."""
    with connected(Say(body=a_job(1, status="CANCELLATION_REQUESTED"))) as (provider, server):
        assert provider.cancel("job-1").wording == "CANCELLATION_REQUESTED"
    assert (server.asked[0].method, server.asked[0].path) == ("POST", "/v1/batch/jobs/job-1/cancel")


def test_a_job_that_ended_before_it_was_cancelled_is_told_as_it_is() -> None:
    """The service refuses; one that still runs is a refusal in earnest."""
    with connected(refusal(409), Say(body=a_job(1, status="SUCCESS"))) as (provider, _):
        assert provider.cancel("job-1").phase is BatchPhase.ENDED
    with connected(refusal(409), Say(body=a_job(1))) as (provider, _), pytest.raises(BatchRefused):
        provider.cancel("job-1")


def test_a_job_is_looked_after_for_as_long_as_it_may_take() -> None:
    """A day, and some; a portable key; a file's number of requests."""
    with connected() as (provider, _):
        assert provider.polling == PollPlan(60, 1.5, 300, 26 * 3600)
        assert LIMITS.max_queued_requests == 1_000_000
    with connected(polling=PollPlan(1)) as (provider, _):
        assert provider.polling == PollPlan(1)


# --- results


def done(output: Any = "file-o", errors: Any = "file-e", **changes: Any) -> Say:
    return Say(body=a_job(1, status="SUCCESS", output_file=output, error_file=errors, **changes))


def chat(text: Any = "x", finish: Any = "stop", **message: Any) -> dict[str, Any]:
    return {
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def row(number: int, body: Any = None, status: Any = 200, error: Any = None) -> dict[str, Any]:
    response = {"status_code": status, "body": chat() if body is None else body}
    return {"id": "batch-1", "custom_id": f"run-{number}-1", "response": response, "error": error}


def unrun(number: int, error: Any) -> dict[str, Any]:
    return {"id": "batch-1", "custom_id": f"run-{number}-1", "response": None, "error": error}


def file(*rows: Any) -> Say:
    return Say(body=b"".join(json.dumps(item).encode() + b"\n" for item in rows))


def test_both_files_are_read() -> None:
    """Whatever the counters say."""
    script = [done(failed_requests=0), file(row(1), row(0)), file(row(2, {}, 500))]
    with connected(*script) as (provider, server):
        found = list(provider.results("job-1", FORM))
    assert [answer.custom_id for answer in found] == ["run-1-1", "run-0-1", "run-2-1"]
    assert [asked.path for asked in server.asked] == [
        "/v1/batch/jobs/job-1", "/v1/files/file-o/content", "/v1/files/file-e/content",
    ]  # fmt: skip


@pytest.mark.parametrize("absent", [None, {}, ""])
def test_answers_may_stand_in_the_job(absent: Any) -> None:
    """Where it has no file of them; errors may still have theirs."""
    outputs = Say(body=a_job(1, status="SUCCESS", outputs=[row(0), row(1)]))
    with connected(done(absent, absent), outputs) as (provider, server):
        assert [answer.custom_id for answer in provider.results("job-1", FORM)] == ["run-0-1", "run-1-1"]
    assert [asked.query for asked in server.asked] == [{}, {"inline": "true"}]
    with connected(done(absent), outputs, file(unrun(2, "x"))) as (provider, _):
        found = list(provider.results("job-1", FORM))
    assert [answer.custom_id for answer in found] == ["run-0-1", "run-1-1", "run-2-1"]


def test_a_job_with_errors_only_is_read(caplog: pytest.LogCaptureFixture) -> None:
    """And one with answers only; neither is told."""
    with connected(done(None), done(None, outputs=None), file(unrun(1, "x"))) as (provider, _):
        assert [answer.text for answer in provider.results("job-1", FORM)] == [None]
    with connected(done(errors=None), file(row(1))) as (provider, _):
        assert [answer.text for answer in provider.results("job-1", FORM)] == ["x"]
    assert not caplog.records


@pytest.mark.parametrize("outputs", [None, [], {}, "x"])
def test_a_job_without_anything_has_no_answers_yet(outputs: Any) -> None:
    """Unless it says that nothing was done: then nothing is to be read."""
    with connected(done(None, None, outputs=outputs)) as (provider, _), pytest.raises(Incomplete):
        list(provider.results("job-1", FORM))
    with connected(done(None, None, outputs=outputs, succeeded_requests=0, failed_requests=0)) as (provider, _):
        assert not list(provider.results("job-1", FORM))


def test_files_that_are_gone_are_told() -> None:
    """Not an empty result."""
    for script in ([refusal(404)], [done(), refusal(404)], [done(), file(row(1)), refusal(404)]):
        with connected(*script) as (provider, _), pytest.raises(NotFound):
            list(provider.results("job-1", FORM))


BAD = [b"", b"  ", b"{secret", b"[]", b"null", b"5", b'{"custom_id":null}', b'{"custom_id":5}', b'{"id":"x"}', b"\xff"]


def test_lines_that_can_not_be_read_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """As answers that name nobody; their content is in no log."""
    good = [json.dumps(row(n)).encode() for n in range(2)]
    with connected(done(errors=None), Say(body=b"\n".join([good[0], *BAD, good[1]]))) as (provider, _):
        found = list(provider.results("job-1", FORM))
    assert [answer.custom_id for answer in found if answer.custom_id] == ["run-0-1", "run-1-1"]
    assert [answer.failure for answer in found if not answer.custom_id] == [UNREADABLE] * 8
    assert "8 lines of the job job-1 name no request" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "secret" not in caplog.text


def test_rows_of_a_job_that_can_not_be_read_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """By the same rules."""
    with connected(done(None, None, outputs=[None, 5, {}, row(1), {"custom_id": 1}])) as (provider, _):
        assert [answer.custom_id for answer in provider.results("job-1", FORM)] == ["", "", "", "run-1-1", ""]
    assert "4 lines of the job job-1" in caplog.text


def test_memory_does_not_grow_with_the_file() -> None:
    """60 MB go through in a few chunks."""
    body = b"\n".join([json.dumps(row(1, chat("x" * 10_000))).encode()] * 6000)
    with connected(done(errors=None), Say(body=body)) as (provider, _):
        tracemalloc.start()
        try:
            assert sum(1 for _ in provider.results("job-1", FORM)) == 6000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 5_000_000


USAGE = Usage(7, 3)


def transient(code: str, message: str) -> Failure:
    return Failure(FailureKind.TRANSIENT, code, message)


def final(code: str, message: str) -> Failure:
    return Failure(FailureKind.TERMINAL, code, message)


def paid(failure: Failure) -> Failure:
    """One that an answer of the model stands behind."""
    return failure._replace(billed=True)


CUT = paid(Failure(FailureKind.CUT_OFF, "length", "the answer was cut off at the limit of output tokens"))
MUTE = "the provider gave neither an answer nor a reason"


def said_no(kind: str = "invalid_request_error", code: Any = None, message: Any = "why") -> dict[str, Any]:
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (row(1), ("x", USAGE, None)),
        (row(1, chat("")), ("", USAGE, None)),
        (row(1, chat(None)), ("", USAGE, None)),
        (row(1, chat([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                      {"type": "text", "text": "a"}, "b", 5])), ("ab", USAGE, None)),
        (row(1, chat(tool_calls=None, prefix=False)), ("x", USAGE, None)),
        (row(1, chat(finish=None)), ("x", USAGE, None)),
        (row(1, chat(finish={})), ("x", USAGE, None)),
        (row(1, chat(finish="something new")), ("x", USAGE, None)),
        (row(1, json.dumps(chat())), ("x", USAGE, None)),
        (row(1, error={}), ("x", USAGE, None)),
        (row(1, error=""), ("x", USAGE, None)),
        (row(1, status=None), ("x", USAGE, None)),
        (row(1, chat(None, refusal="I can't.")),
         (None, USAGE, paid(Failure(FailureKind.REFUSED, "refusal", "I can't.")))),
        (row(1, chat("half", "length")), (None, USAGE, CUT)),
        (row(1, chat("half", "model_length")),
         (None, USAGE, paid(final("length", "the answer was cut off at the model's own limit")))),
        (row(1, chat("half", "error")), (None, USAGE, paid(transient("error", "the model failed while it answered")))),
        (row(1, chat("", "content_filter")),
         (None, USAGE,
          paid(Failure(FailureKind.FILTERED, "content_filter", "the provider's filter stopped the answer")))),
        (row(1, {"choices": []}), (None, None, transient("no_answer", "the answer has no message"))),
        (row(1, {"choices": None}), (None, None, transient("no_answer", "the answer has no message"))),
        (row(1, {"choices": [5]}), (None, None, transient("no_answer", "the answer has no message"))),
        (row(1, "{broken"), (None, None, transient("no_answer", MUTE))),
        ({"custom_id": "run-1-1"}, (None, None, transient("no_answer", MUTE))),
        (row(1, {"id": "x"}), (None, None, transient("unknown", "the provider gave no reason"))),
        (row(1, {}, 0), (None, None, transient("http_0", "the provider answered 0 and gave no reason"))),
        (row(1, said_no("rate_limited", "1300"), 429), (None, None, transient("rate_limited", "why"))),
        (row(1, said_no("internal_error", 3000), 500), (None, None, transient("internal_error", "why"))),
        (row(1, {}, 503), (None, None, transient("http_503", "the provider answered 503 and gave no reason"))),
        (row(1, said_no("new"), 400), (None, None, final("new", "why"))),
        (row(1, said_no("invalid_model", "1500")), (None, None, final("invalid_model", "why"))),
        (row(1, json.dumps(said_no()), 400), (None, None, final("invalid_request_error", "why"))),
        (row(1, {"detail": [MISSING]}, 422), (None, None, final("missing", "body.model: Field required"))),
        (row(1, said_no(message={"detail": [MISSING]}), 422),
         (None, None, final("invalid_request_error", "body.model: Field required"))),
        (row(1, {}, 422, {"message": "why"}), (None, None, final("http_422", "why"))),
        (row(1, {}, 503, {"message": "why", "type": "invalid_request_error"}),
         (None, None, transient("invalid_request_error", "why"))),
        (row(1, {}, 400, {"message": "why", "code": "cancelled"}),
         (None, None, Failure(FailureKind.NOT_RUN, "cancelled", "why"))),
        (row(1, said_no("content_filter"), 403),
         (None, None, Failure(FailureKind.FILTERED, "content_filter", "why"))),
        (unrun(1, {"code": "batch_expired", "message": "why"}),
         (None, None, Failure(FailureKind.NOT_RUN, "batch_expired", "why"))),
        (unrun(1, {"type": "cancelled", "message": "why"}),
         (None, None, Failure(FailureKind.NOT_RUN, "cancelled", "why"))),
        (unrun(1, {"code": "timeout_exceeded"}),
         (None, None, Failure(FailureKind.NOT_RUN, "timeout_exceeded", "the provider gave no reason"))),
        (unrun(1, {"code": "new", "message": "why"}), (None, None, transient("new", "why"))),
        (unrun(1, {"error": {"code": "new", "message": "why"}}), (None, None, transient("new", "why"))),
        (unrun(1, {"code": 429}), (None, None, transient("429", "the provider gave no reason"))),
        (unrun(1, "broken"), (None, None, transient("unknown", "broken"))),
        (unrun(1, [None]), (None, None, transient("unknown", "the provider gave no reason"))),
        (unrun(1, 5), (None, None, transient("unknown", "the provider gave no reason"))),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_each_line_is_an_answer(line: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """What passes goes again, what is final does not, what never ran is excused."""
    assert read_row(line, FORM) == Answer("run-1-1", *expected)


def test_an_answer_that_is_cut_off_without_a_limit_is_final() -> None:
    """It reached the model's own: a larger one there is not."""
    answer = read_row(row(1, chat("half", "length")), RequestForm("m"))
    assert answer is not None
    assert answer.failure == paid(final("length", CUT.message))


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 3}, Usage(7, 3)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}, Usage(7, 3, 2)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": None}, Usage(7, 3)),
        ({"prompt_tokens": 7}, None),
        ({"prompt_tokens": "7", "completion_tokens": 3}, None),
        ({"prompt_tokens": 7, "completion_tokens": -3}, None),
        ({"prompt_tokens": 10**300, "completion_tokens": 3}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
    ids=str,
)
def test_tokens_that_are_not_named_are_not_free(usage: Any, expected: Usage | None) -> None:
    """They are unknown."""
    answer = read_row(row(1, {**chat(), "usage": usage}), FORM)
    assert answer is not None
    assert answer.usage == expected


WORDS = [
    "id", "status", "errors", "error", "data", "code", "message", "custom_id", "response", "status_code", "body",
    "choices", "outputs", "content", "usage", "finish_reason", "detail", "loc", "msg", "text", "type", "refusal",
    "created_at", "total_requests", "count", "prompt_tokens", "completion_tokens", "metadata", "output_file", "object",
]  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=8,
)


@given(json_values, json_values)
def test_no_answer_is_too_strange(thing: Any, other: Any) -> None:
    """Whatever JSON comes, it is read or refused as a provider's error."""
    bodies = [thing, {"choices": [thing], "usage": other}, {"choices": [{"message": thing, "finish_reason": other}]}]
    bodies += [{"detail": thing, "type": other}, {"message": thing, "code": other}, {"detail": [{"loc": thing}]}]
    lines = [thing, {"custom_id": "a", "response": thing, "error": other}]
    lines += [row(1, body, status) for body in bodies for status in (200, other)]
    for line in lines:
        answer = read_row(line, FORM)
        assert answer is None or (answer.text is None) != (answer.failure is None)
    for job in (thing, {"id": "b", "status": thing, "errors": other, "total_requests": thing, "created_at": other}):
        with suppress(ProviderError):
            read_status(job)
    for body in bodies:
        code, message, _ = read_error(body)
        assert {type(code), type(message)} <= {str, type(None)}


def test_an_error_may_be_nested_without_end() -> None:
    """It is read to some depth."""
    error: Any = "why"
    for _ in range(500):
        error = {"error": error}
    assert read_row(unrun(1, error), FORM) is not None


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
            assert caught.value.provider == "mistral"
            assert KEY not in str(caught.value)
