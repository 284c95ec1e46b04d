"""HolySheep's dialect over a real socket: batches, states, pages of results, and answers that are none."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import stamina
from hypothesis import given
from hypothesis import strategies as st

from blocks.batch import Answer, BatchPhase, EncodedBatch, Failure, FailureKind, Found, RequestForm, Usage
from blocks.connections import connection_for
from blocks.errors import (
    BatchRefused,
    Incomplete,
    ProviderError,
    SpendLimitReached,
    Transient,
    UnknownOutcome,
    UsageError,
)
from blocks.providers.holysheep.batches import RESULTS_PAGE, HolySheep
from blocks.providers.holysheep.codec import HolySheepCodec, read_item, read_status
from blocks.providers.reading import UNREADABLE
from tests.blocks.scripted import Drop, Say, Server, Step, serving

FORM = RequestForm("claude-sonnet-4.5", "Be brief.", {"type": "object"})
KEY = "hs-very-secret"


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Retries without waiting."""
    with stamina.set_testing(True, attempts=3):  # stamina's own
        yield


@contextmanager
def connected(*script: Step, verified: bool = False) -> Iterator[tuple[HolySheep, Server]]:
    with serving(*script) as server:
        provider = HolySheep(KEY, f"{server.url}/v1", idempotency="verified" if verified else "unverified")
        try:
            yield provider, server
        finally:
            provider.close()


@pytest.fixture
def batch(tmp_path: Path) -> EncodedBatch:
    form = HolySheepCodec(FORM)
    content = form.head + form.separator.join(form.encode(f"run-{n}-1", f"text {n}") for n in range(3)) + form.tail
    (tmp_path / "body").write_bytes(content)
    return EncodedBatch(tmp_path / "body", 3, len(content), "hash", "abcd2345-7")


@given(st.text(), st.text())
def test_an_encoded_request_is_json_with_the_prompt_in_it(prompt: str, system: str) -> None:
    """Put together from pieces, it is what an encoder would have made of the whole."""
    form = HolySheepCodec(RequestForm("m", system, {"a": "ü\n"}))
    item = json.loads(form.encode("run-1-1", prompt))
    assert set(item) == {"custom_id", "prompt"}
    before = f"{system.rstrip()}\n\n" if system else ""
    assert item["prompt"].startswith(f"{before}{prompt}\n\nAnswer with one JSON object")


def test_a_prompt_without_a_schema_is_sent_as_it_is() -> None:
    """Character for character."""
    item = json.loads(HolySheepCodec(RequestForm("m")).encode("run-1-1", " \n🙂\x00\u2028 "))
    assert item["prompt"] == " \n🙂\x00\u2028 "


def test_a_batch_is_sent_under_its_tag(batch: EncodedBatch) -> None:
    """One POST with the key, the tag and the whole body; the answer's id is the batch's."""
    with connected(Say(201, {"batch_id": "b-1", "status": "queued"})) as (provider, server):
        assert provider.submit(batch, FORM) == "b-1"
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/batches")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["idempotency-key"] == "abcd2345-7"
    content = json.loads(asked.body)
    assert content["model"] == FORM.model
    assert [item["custom_id"] for item in content["requests"]] == ["run-0-1", "run-1-1", "run-2-1"]


@pytest.mark.parametrize(
    "said", [{}, [], None, "b-1", 5, {"batch_id": None}, {"batch_id": ""}, {"batch_id": {}}, {"id": "b-1"}]
)
def test_an_acceptance_without_an_id_is_unknown(batch: EncodedBatch, said: Any) -> None:
    """The batch may run and cost; it is not sent again."""
    with connected(Say(200, said)) as (provider, server), pytest.raises(UnknownOutcome, match=r"no id|not JSON"):
        provider.submit(batch, FORM)
    assert len(server.asked) == 1


def test_a_quota_that_is_used_up_is_not_waited_for(batch: EncodedBatch) -> None:
    """Other refusals of that status pass."""
    said = {"error": {"code": "insufficient_quota", "message": "the quota is used up"}}
    with connected(Say(429, said)) as (provider, server), pytest.raises(SpendLimitReached, match="used up"):
        provider.submit(batch, FORM)
    assert len(server.asked) == 1
    throttled = {"error": {"code": "rate_limited", "message": "again in 1 s"}}
    with connected(Say(429, throttled), Say(200, {"batch_id": "b-1"})) as (provider, _):
        assert provider.submit(batch, FORM) == "b-1"


def test_a_lost_answer_is_asked_for_only_where_that_is_safe(batch: EncodedBatch) -> None:
    """Without a server that is known to honour the key nothing is sent a second time."""
    with connected(Drop(), Say(200, {"batch_id": "b-1"})) as (provider, server):
        with pytest.raises(UnknownOutcome):
            provider.submit(batch, FORM)
        with pytest.raises(UnknownOutcome, match="can't tell") as caught:
            provider.find(batch, FORM)
    assert not provider.replays
    assert "idempotency=verified" in caught.value.next_step
    assert len(server.asked) == 1


def test_a_lost_answer_is_found_by_the_same_call(batch: EncodedBatch) -> None:
    """The same tag, the same body."""
    with connected(Drop(), Say(200, {"batch_id": "b-1"}), verified=True) as (provider, server):
        with pytest.raises(UnknownOutcome):
            provider.submit(batch, FORM)
        assert provider.find(batch, FORM) == Found("b-1")
    first, second = server.asked
    assert (first.body, first.headers["idempotency-key"]) == (second.body, second.headers["idempotency-key"])


@pytest.mark.parametrize(
    ("wording", "phase"),
    [
        ("queued", BatchPhase.RUNNING),
        ("processing", BatchPhase.RUNNING),
        ("cancelling", BatchPhase.RUNNING),
        ("completed", BatchPhase.ENDED),
        ("cancelled", BatchPhase.ENDED),
        ("expired", BatchPhase.ENDED),
        ("failed", BatchPhase.FAILED),
        ("COMPLETED", BatchPhase.RUNNING),
        ("something new", BatchPhase.RUNNING),
        ("", BatchPhase.RUNNING),
    ],
)
def test_each_state_is_a_phase(wording: str, phase: BatchPhase) -> None:
    """From a word that we don't know nothing is concluded."""
    with connected(Say(200, {"batch_id": "b-1", "status": wording, "total_items": 200, "progress": 50})) as (
        provider,
        server,
    ):
        status = provider.poll("b-1")
    assert (status.id, status.phase, status.wording) == ("b-1", phase, wording)
    assert server.asked[0].path == "/v1/batches/b-1"


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"status": None},
        {"status": 5},
        {"total_items": "many"},
        {"progress": None},
        {"total_items": 5, "progress": "x"},
    ],
)
def test_a_batch_may_say_little(extra: dict[str, Any]) -> None:
    """Without a word that is known it is running."""
    status = read_status({"batch_id": "b-1", **extra})
    assert status.phase is BatchPhase.RUNNING


@pytest.mark.parametrize(
    ("error", "shown"),
    [({"message": "no quota"}, "no quota"), ("no quota", "no quota"), (None, None), ({}, None), ("", None)],
)
def test_a_failed_batch_says_why(error: Any, shown: str | None) -> None:
    """In whatever form."""
    assert read_status({"batch_id": "b-1", "status": "failed", "error": error}).error == shown


@pytest.mark.parametrize("said", [{}, [], None, "running", 5, {"status": "completed"}, {"batch_id": None}])
def test_what_is_no_batch_is_an_error_of_the_provider(said: Any) -> None:
    """Not a traceback."""
    with connected(Say(200, said)) as (provider, _):
        for call in (provider.poll, provider.cancel):
            with pytest.raises(ProviderError) as caught:
                call("b-1")
            assert caught.value.provider == "holysheep"


def test_cancelling_is_asked_for_and_told() -> None:
    """The batch's own word for it."""
    with connected(Say(200, {"batch_id": "b-1", "status": "cancelling"})) as (provider, server):
        assert provider.cancel("b-1").wording == "cancelling"
    assert (server.asked[0].method, server.asked[0].path) == ("POST", "/v1/batches/b-1/cancel")


def page(*items: Any, total: int) -> Say:
    return Say(200, {"results": list(items), "total_items": total})


def item(number: int, **changes: Any) -> dict[str, Any]:
    usage = {"input_tokens": 7, "output_tokens": 3}
    return {"custom_id": f"run-{number}-1", "status": "success", "response": "x", "usage": usage, **changes}


def test_results_are_read_a_page_at_a_time() -> None:
    """Each page once, from where the last one ended."""
    pages = [[item(n) for n in range(start, min(start + RESULTS_PAGE, 2500))] for start in (0, 1000, 2000)]
    with connected(*(page(*items, total=2500) for items in pages)) as (provider, server):
        found = [answer.custom_id for answer in provider.results("b-1", FORM)]
    assert found == [f"run-{n}-1" for n in range(2500)]
    assert [asked.query["offset"] for asked in server.asked] == ["0", "1000", "2000"]
    assert {asked.query["limit"] for asked in server.asked} == {"1000"}


def test_reading_is_lazy() -> None:
    """The next page is asked for when the last answer of this one was taken."""
    with connected(page(item(0), item(1), total=4), page(item(2), item(3), total=4)) as (provider, server):
        answers = provider.results("b-1", FORM)
        next(answers)
        next(answers)
        assert len(server.asked) == 1
        next(answers)
        assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("script", "found", "fewer", "calls"),
    [
        ([page(total=0)], 0, 0, 1),
        ([page(total=5)], 0, 5, 1),
        ([page(item(0), total=5), page(total=5)], 1, 4, 2),
        ([page(item(0), item(1), total=1)], 2, 0, 1),
        ([page(item(0), total=2), page(item(1), total=3), page(item(2), total=3)], 3, 0, 3),
        ([page(item(0), total=2), page(item(0), total=2)], 2, 1, 2),
    ],
)
def test_reading_results_always_ends(script: list[Step], found: int, fewer: int, calls: int) -> None:
    """With fewer items than promised, more, or a total that changes; fewer are not all, as pages may have moved."""
    counted, lacking = 0, 0
    with connected(*script) as (provider, server):
        try:
            for _ in provider.results("b-1", FORM):
                counted += 1
        except Incomplete as error:
            lacking = error.fewer
    assert (counted, lacking, len(server.asked)) == (found, fewer, calls)


def test_a_page_that_broke_is_read_again() -> None:
    """No answer twice, none lost."""
    script: list[Step] = [page(item(0), total=2), Say(503), Drop(reset=True), page(item(1), total=2)]
    with connected(*script) as (provider, _):
        assert [answer.custom_id for answer in provider.results("b-1", FORM)] == ["run-0-1", "run-1-1"]


@pytest.mark.parametrize(
    "said",
    [
        {},
        [],
        None,
        {"results": []},
        {"total_items": 1},
        {"results": {}, "total_items": 1},
        {"results": [], "total_items": "1"},
    ],
)
def test_what_is_no_page_is_an_error_of_the_provider(said: Any) -> None:
    """Not the end of the results."""
    with connected(Say(200, said)) as (provider, _), pytest.raises(Transient):
        list(provider.results("b-1", FORM))


USAGE = Usage(7, 3)


def failed(code: str) -> dict[str, Any]:
    return {"status": "error", "error": {"code": code, "message": "why"}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("x", USAGE, None)),
        ({"response": ""}, ("", USAGE, None)),
        ({"response": None}, ("", USAGE, None)),
        ({"response": {"a": 1}}, ("", USAGE, None)),
        ({"usage": None}, ("x", None, None)),
        ({"usage": {}}, ("x", None, None)),
        ({"usage": {"input_tokens": 7}}, ("x", None, None)),
        ({"usage": {"input_tokens": "7", "output_tokens": 3}}, ("x", None, None)),
        ({"usage": {"input_tokens": -7, "output_tokens": 3}}, ("x", None, None)),
        ({"usage": {"input_tokens": 1e300, "output_tokens": 3}}, ("x", None, None)),
        ({"usage": {"input_tokens": 0, "output_tokens": 0}}, ("x", Usage(0, 0), None)),
        (failed("expired"), (None, USAGE, Failure(FailureKind.NOT_RUN, "expired", "why"))),
        (failed("queue_full"), (None, USAGE, Failure(FailureKind.NOT_RUN, "queue_full", "why"))),
        (failed("content_policy"), (None, USAGE, Failure(FailureKind.FILTERED, "content_policy", "why"))),
        (failed("new"), (None, USAGE, Failure(FailureKind.TRANSIENT, "new", "why"))),
        ({"status": "error", "error": "broken"}, (None, USAGE, Failure(FailureKind.TRANSIENT, "unknown", "broken"))),
        ({"status": "error"}, (None, USAGE, Failure(FailureKind.TRANSIENT, "unknown", "the provider gave no reason"))),
        ({"status": None}, (None, USAGE, Failure(FailureKind.TRANSIENT, "unknown", "the provider gave no reason"))),
    ],
)  # fmt: skip
def test_each_item_is_an_answer(changes: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """What is not a success is a failure; tokens that are not named are not free but unknown."""
    assert read_item(item(1, **changes)) == Answer("run-1-1", *expected)


@pytest.mark.parametrize("strange", [None, 5, "x", [], {}, {"custom_id": None}, {"custom_id": 7, "status": "success"}])
def test_an_item_that_names_no_request_belongs_to_none(strange: Any) -> None:
    """It is an answer to nobody knows whom."""
    with connected(page(strange, item(1), total=2)) as (provider, _):
        first, second = provider.results("b-1", FORM)
    assert first == Answer("", None, None, UNREADABLE)
    assert second.custom_id == "run-1-1"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["status", "error", "usage", "code", "message", "custom_id", "response"]), inner, max_size=4
        )
    ),
    max_leaves=6,
)


@given(json_values, json_values)
def test_no_answer_is_too_strange(thing: Any, other: Any) -> None:
    """Whatever JSON comes, it is read or refused as a provider's error."""
    assert isinstance(read_item(thing), Answer | None)
    assert isinstance(read_item({"custom_id": "a", "status": thing, "usage": other, "error": thing}), Answer)
    try:
        read_status({"batch_id": "b", "status": thing, "error": other, "total_items": 3, "progress": 1})
        read_status(thing)
    except ProviderError:
        pass


def test_a_refusal_says_the_providers_words_and_not_the_key(batch: EncodedBatch) -> None:
    """Code and message, as far as there are any."""
    said = Say(400, {"error": {"code": "bad_model", "message": "no such model"}})
    with (
        connected(said) as (provider, _),
        pytest.raises(BatchRefused, match=r"400 \(bad_model\): no such model") as caught,
    ):
        provider.submit(batch, FORM)
    assert KEY not in str(caught.value)
    with connected(Say(400, {"error": "no such model"})) as (provider, _), pytest.raises(BatchRefused, match="400"):
        provider.submit(batch, FORM)


@pytest.mark.parametrize(
    "url",
    [
        "api.example.com",
        "ftp://api.example.com",
        "http://",
        "https://exa mple",
        "http://[::1",
        "http://a:b:c",
        "https://a\tb",
    ],
)
def test_an_address_that_is_none_is_a_wrong_call(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answered before anything is started."""
    monkeypatch.setenv("HOLYSHEEP_API_KEY", KEY)
    with pytest.raises(UsageError, match="not a web address"):
        connection_for("holysheep", url, {})


def test_a_temperature_can_not_be_said() -> None:
    """The dialect has no word for it, and it is not left out in silence."""
    with pytest.raises(UsageError, match="temperature"):
        HolySheepCodec(RequestForm("m", temperature=0.0))
