"""HTTP over a real socket: what is tried again, what never is, and which error an answer is."""

import gzip
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import stamina

from blocks import retries
from blocks.errors import (
    AuthenticationFailed,
    BatchRefused,
    BatchTooLarge,
    Complaint,
    NotFound,
    ProviderError,
    SpendLimitReached,
    StateError,
    Transient,
    UnknownOutcome,
    UsageError,
)
from blocks.retries import ATTEMPTS, retry_after_seconds
from blocks.transport import Transport, checking_creates
from tests.blocks.scripted import Drop, Say, Server, Step, free_port, serving

SECRET = "sk-very-secret-1234"  # noqa: S105  # a key that no error may show
GOOD = Say(body={"ok": True})


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Retries without waiting, as many as in earnest."""
    with stamina.set_testing(True, attempts=ATTEMPTS):  # stamina's own
        yield


def read_error(body: Any) -> Complaint:
    said = body if isinstance(body, dict) else {}
    return Complaint(said.get("code"), str(said.get("message", "")), said.get("wait"))


@contextmanager
def connected(*script: Step) -> Iterator[tuple[Transport, Server]]:
    with serving(*script) as server:
        client = Transport("someone", server.url, {"authorization": f"Bearer {SECRET}"}, read_error)
        try:
            yield client, server
        finally:
            client.close()


@pytest.fixture
def body(tmp_path: Path) -> Path:
    path = tmp_path / "body"
    path.write_bytes(b'{"requests":[' + b"1," * 1_000_000 + b"1]}")
    return path


def create(client: Transport, body: Path) -> Any:
    return client.create("/batches", body, body.stat().st_size, {"Idempotency-Key": "run-1"})


def test_a_call_carries_the_key_and_gives_json() -> None:
    """A body, a query, an answer."""
    with connected(GOOD) as (client, server):
        assert client.get("/batches/1", offset=5, limit=10) == {"ok": True}
        assert client.post("/batches/1/cancel") == {"ok": True}
    first, second = server.asked
    assert (first.method, first.path, first.query) == ("GET", "/batches/1", {"offset": "5", "limit": "10"})
    assert first.headers["authorization"] == f"Bearer {SECRET}"
    assert (second.method, second.body) == ("POST", b"")


def test_a_body_is_streamed_with_its_length(body: Path) -> None:
    """From disk, in chunks, to the byte, under its idempotency key."""
    with connected(GOOD) as (client, server):
        create(client, body)
    (asked,) = server.asked
    assert asked.headers["content-length"] == str(body.stat().st_size)
    assert "transfer-encoding" not in asked.headers
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["idempotency-key"] == "run-1"
    assert hashlib.sha256(asked.body).digest() == hashlib.sha256(body.read_bytes()).digest()


@pytest.mark.parametrize(
    "trouble",
    [
        Say(500),
        Say(502, b"<html>bad gateway</html>"),
        Say(503),
        Say(529),
        Say(408),
        Say(429),
        Say(200, b"not json"),
        Say(200, b""),
        Say(200, b"not gzip", {"content-encoding": "gzip"}),
        Drop(),
        Drop(reset=True),
        Drop(after=b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"),
        Drop(after=b"nonsense\r\n\r\n"),
    ],
    ids=repr,
)
def test_safe_calls_are_made_again(trouble: Step) -> None:
    """Reading and cancelling may be done twice: what may pass is tried again."""
    for method in ("get", "post"):
        with connected(trouble, trouble, GOOD) as (client, server):
            assert getattr(client, method)("/batches/1") == {"ok": True}
        assert len(server.asked) == 3


def test_a_safe_call_is_given_up_after_six_times() -> None:
    """As a transient error: the same command goes on later."""
    with (
        connected(Say(503, {"message": "busy"})) as (client, server),
        pytest.raises(Transient, match="503: busy") as caught,
    ):
        client.get("/batches/1")
    assert len(server.asked) == ATTEMPTS
    assert (caught.value.status, caught.value.provider) == (503, "someone")
    assert "again" in caught.value.next_step


@pytest.mark.parametrize(
    "trouble",
    [
        Say(500),
        Say(502, b"<html>"),
        Say(503),
        Say(504),
        Say(529),
        Say(408),
        Say(200, b"not json"),
        Say(200, b""),
        Say(200, b"not gzip", {"content-encoding": "gzip"}),
        Drop(),
        Drop(reset=True),
        Drop(after=b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"),
        Drop(after=b"nonsense\r\n\r\n"),
    ],
    ids=repr,
)
def test_a_create_whose_answer_is_lost_is_never_repeated(trouble: Step, body: Path) -> None:
    """It may have been accepted and be paid for: exactly one POST, and the outcome is unknown."""
    with connected(trouble, GOOD) as (client, server), pytest.raises(UnknownOutcome):
        create(client, body)
    assert [asked.method for asked in server.asked] == ["POST"]


def test_a_create_that_times_out_is_unknown(body: Path) -> None:
    """The provider may be busy accepting it."""
    with connected(Say(pause=0.5, body={}), GOOD) as (client, server):
        client._creator.timeout = httpx.Timeout(0.1)  # two minutes in earnest
        with pytest.raises(UnknownOutcome, match="broke"):
            create(client, body)
    assert len(server.asked) == 1


def test_a_create_that_was_throttled_is_made_again(body: Path) -> None:
    """A 429 accepted nothing; the whole body is sent each time."""
    with connected(Say(429, {"message": "slow down"}), Say(429), GOOD) as (client, server):
        assert create(client, body) == {"ok": True}
    assert {len(asked.body) for asked in server.asked} == {body.stat().st_size}
    assert len(server.asked) == 3


@pytest.mark.parametrize(("looks", "whole_bodies"), [(0, 0), (3, 0), (10, 1)])
def test_a_create_goes_out_only_while_the_output_is_ours(body: Path, looks: int, whole_bodies: int) -> None:
    """Looked at before it, between the chunks of its body, and again before it is repeated."""
    seen = 0

    def check() -> None:
        nonlocal seen
        seen += 1
        if seen > looks:
            raise StateError("taken over")

    taken = pytest.raises(StateError, match="taken over")
    with connected(Say(429), GOOD) as (client, server), checking_creates(check), taken:
        create(client, body)
    sent = [asked for asked in server.asked if asked.method == "POST" and len(asked.body) == body.stat().st_size]
    assert len(sent) == whole_bodies


def test_nobody_there_is_transient(body: Path) -> None:
    """A connection that never stood sent nothing, also while creating."""
    client = Transport("someone", f"http://127.0.0.1:{free_port()}", {}, read_error)
    with pytest.raises(Transient, match="can't be reached"):
        client.get("/x")
    with pytest.raises(Transient, match="can't be reached"):
        create(client, body)
    client.close()


def test_a_provider_that_comes_back_is_found(body: Path) -> None:
    """After connections that were refused the call goes through."""
    port = free_port()
    client = Transport("someone", f"http://127.0.0.1:{port}", {}, read_error)
    with pytest.raises(Transient):
        create(client, body)
    client.close()
    with connected(GOOD) as (client, _):
        assert create(client, body) == {"ok": True}


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 402, 403, 404, 409, 413, 415, 418, 422, 501])
@pytest.mark.parametrize("creating", [True, False])
def test_each_refusal_has_its_error(status: int, body: Path, *, creating: bool) -> None:
    """What will not change is not tried again, and says what to do where there is something to do."""
    expected: dict[int, type[ProviderError]] = {
        401: AuthenticationFailed,
        402: SpendLimitReached,
        403: AuthenticationFailed,
        404: NotFound,
        413: BatchTooLarge,
    }
    said = Say(status, {"code": "some_code", "message": "some words"}, {"location": "/elsewhere"})
    with connected(said, GOOD) as (client, server), pytest.raises(ProviderError) as caught:
        create(client, body) if creating else client.get("/batches/1")
    assert type(caught.value) is expected.get(status, BatchRefused)
    assert caught.value.message == f"someone answered {status} (some_code): some words"
    assert (caught.value.status, caught.value.code) == (status, "some_code")
    assert len(server.asked) == 1


@pytest.mark.parametrize("content", [b"", b"<html>", b"\xff\xfe", b"null", b'"text"', b"[]", b"5", b'{"error": null}'])
@pytest.mark.parametrize("status", [400, 401, 413, 500])
def test_an_error_may_have_any_body(content: bytes, status: int) -> None:
    """Proxies answer with pages of their own: the status decides."""
    with serving(Say(status, content)) as server:
        client = Transport("someone", server.url, {}, read_error)
        with pytest.raises(ProviderError, match=f"someone answered {status}"):
            client.get("/x")
        client.close()


def test_a_refusal_before_the_whole_body_was_sent_is_understood(tmp_path: Path) -> None:
    """A server that has seen enough of a large body answers early."""
    large = tmp_path / "large"
    large.write_bytes(b"x" * 20_000_000)
    with (
        connected(Say(413, {"message": "too much"}, unread=True)) as (client, _),
        pytest.raises(BatchTooLarge, match="too much"),
    ):
        create(client, large)


def test_the_key_is_in_no_error(body: Path) -> None:
    """Whatever goes wrong, and whatever the provider repeats of it."""
    script: list[Step] = [Say(401, {"message": "bad key"}), Say(500), Drop(), Say(200, b"x"), Say(404)]
    for step in script:
        with connected(step) as (client, _), pytest.raises(ProviderError) as caught:
            create(client, body)
        shown = [str(caught.value), repr(caught.value), str(caught.value.__cause__), repr(caught.value.__dict__)]
        assert all(SECRET not in text for text in shown)


@pytest.mark.parametrize("key", ["", f"{SECRET}\n", f"{SECRET}\nmore", f"{SECRET}\x00", f"{SECRET}…", f"{SECRET} \t"])
def test_a_key_that_can_not_be_one_is_refused_unshown(key: str) -> None:
    """Before it is sent, and without being repeated."""
    with pytest.raises(UsageError) as caught:
        Transport("someone", "http://127.0.0.1", {"authorization": f"Bearer {key}"}, read_error)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_answer_that_was_packed_is_unpacked() -> None:
    """Providers pack large pages."""
    packed = Say(200, gzip.compress(b'{"ok": true}'), {"content-encoding": "gzip"})
    with connected(packed) as (client, _):
        assert client.get("/x") == {"ok": True}


NOW = datetime(2026, 4, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Wed, 01 Apr 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 01 Apr 2026 12:00:30"}, 30.0),
        ({"retry-after": "Wed, 01 Apr 2026 12:00:30 -0000"}, 30.0),
        ({"retry-after": "Wed, 01 Apr 2026 14:00:30 +0200"}, 30.0),
        ({"retry-after": "Wed, 01 Apr 2020 12:00:30 GMT"}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Wed, 99 Apr 2026 12:00:30 GMT"}, None),
    ],
)
def test_a_delay_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds or a date; nonsense is no delay."""
    assert retry_after_seconds(headers, NOW) == seconds


@pytest.mark.parametrize("header", [{"retry-after-ms": "300"}, {"retry-after": "0.3"}])
def test_a_delay_that_is_asked_for_is_kept(header: dict[str, str], body: Path) -> None:
    """Not sooner, and not as long as ours would be."""
    with stamina.set_testing(False), connected(Say(429, {}, header), GOOD) as (client, server):
        create(client, body)
    first, second = server.asked
    assert 0.3 <= second.at - first.at < 0.9


def test_no_delay_is_a_short_one() -> None:
    """A provider that says 0 is tried again, and soon."""
    with stamina.set_testing(False), connected(Say(429, {}, {"retry-after": "0"}), GOOD) as (client, server):
        client.get("/x")
    assert server.asked[1].at - server.asked[0].at < 0.5


def test_a_delay_that_is_too_long_is_given_up() -> None:
    """An hour's wait is the next call's: this one says so at once."""
    tomorrow = Say(429, {"message": "tomorrow"}, {"retry-after": "3600"})
    with connected(tomorrow, GOOD) as (client, server), pytest.raises(Transient, match="tomorrow") as caught:
        client.get("/x")
    assert caught.value.retry_after == 3600.0
    assert len(server.asked) == 1


def test_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """From one to the next, up to the longest."""
    for name, value in {"FIRST_PAUSE": 0.05, "LONGEST_PAUSE": 0.2, "JITTER": 0.0}.items():
        monkeypatch.setattr(retries, name, value)
    with stamina.set_testing(False), connected(*[Say(503)] * 4, GOOD) as (client, server):
        client.get("/x")
    times = [asked.at for asked in server.asked]
    pauses = [later - sooner for sooner, later in pairwise(times)]
    for pause, least in zip(pauses, [0.05, 0.1, 0.2, 0.2], strict=True):
        assert least <= pause < least + 0.5


@pytest.mark.parametrize("bad", ["http://[::1", "http://exa\tmple"])
def test_an_address_that_is_none_is_not_connected_to(bad: str) -> None:
    """The catalogue refuses it before; here it is no silent success."""
    with pytest.raises((ValueError, httpx.InvalidURL)):
        Transport("someone", bad, {}, read_error)


def test_the_delay_that_a_body_names_is_waited_for_unless_a_header_names_one() -> None:
    """Gemini has it in the body alone."""
    for headers, expected in (({}, 37.0), ({"retry-after": "5"}, 5.0)):
        refusal = Say(429, {"code": "busy", "wait": 37.0}, headers={**headers, "x-should-retry": "false"})
        with connected(refusal) as (client, server), pytest.raises(Transient) as caught:
            client.get("/x")
        assert caught.value.retry_after == expected
        assert len(server.asked) == 1


def test_a_call_of_which_the_provider_says_that_repeating_is_of_no_use_is_made_once() -> None:
    """`x-should-retry: false`; it may still pass later."""
    with connected(Say(503, headers={"x-should-retry": "false"})) as (client, server), pytest.raises(Transient):
        client.get("/x")
    assert len(server.asked) == 1


def test_a_resumable_upload_sends_its_bytes_to_our_own_address(tmp_path: Path) -> None:
    """Whatever host the server names: a key never goes to another one."""
    (tmp_path / "file").write_bytes(b"x" * 70_000)
    begun = Say(headers={"x-goog-upload-url": "https://elsewhere.example/upload/v1/files?upload_id=7"}, body={})
    about = {"file": {"display_name": "d", "mime_type": "application/jsonl"}}
    with connected(begun, Say(body={"file": {"name": "files/a"}})) as (client, server):
        answer = client.upload_resumable("/upload/v1/files", about, tmp_path / "file", 70_000)
    assert answer == {"file": {"name": "files/a"}}
    start, finish = server.asked
    assert start.headers["x-goog-upload-header-content-length"] == "70000"
    assert (finish.path, finish.query) == ("/upload/v1/files", {"upload_id": "7"})
    assert finish.headers["x-goog-upload-command"] == "upload, finalize"
    assert finish.body == b"x" * 70_000
