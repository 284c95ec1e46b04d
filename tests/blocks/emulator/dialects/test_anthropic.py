"""The Anthropic dialect over a real socket."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import orjson
import pytest

from blocks.emulator import EmulatorOptions, running_emulator
from blocks.emulator.dialects.anthropic.dialect import Dialect, batch_json, batch_status
from blocks.emulator.service.batch import NewBatch, Request
from blocks.emulator.service.service import Service
from blocks.emulator.service.store import Store
from tests.blocks.emulator.client import PATIENCE, SCHEMA, wait_until
from tests.blocks.emulator.dialects.anthropic_client import (
    BATCHES,
    OLD_VERSION,
    VERSION,
    Anthropic,
    Json,
    one,
    rows_for,
)
from tests.blocks.emulator.service.test_service import Clock
from tests.shared import require_shared

LONG = "You label reviews. " * 1000  # long enough for every model's cache
Start = Callable[..., Anthropic]


@contextmanager
def started(**options: Any) -> Iterator[Anthropic]:
    with running_emulator(EmulatorOptions(dialect="anthropic", **options)) as emulator, Anthropic(emulator) as client:
        yield client


@pytest.fixture(scope="module")
def plain() -> Iterator[Anthropic]:
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
    body = response.json()
    assert body.keys() == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["request_id"] == response.headers["request-id"]
    assert body["request_id"].startswith("req_")
    return {"status": response.status_code, **body["error"]}


def text_of(result: Json) -> str:
    return str(result["message"]["content"][0]["text"])


def is_valid(text: str) -> bool:
    try:
        return bool(jsonschema_rs.is_valid(SCHEMA, orjson.loads(text)))
    except orjson.JSONDecodeError:
        return False


def kinds(results: dict[str, Json]) -> Counter[str]:
    """How often each kind of result, and of error, came."""
    return Counter(
        result["error"]["error"]["type"] if result["type"] == "errored" else result["type"]
        for result in results.values()
    )


def cached_system(ttl: str = "1h") -> list[Json]:
    return [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": ttl}}]


def text_block(number: int) -> Json:
    return {"type": "text", "text": f"Review {number}: great sound"}


class TestCreate:
    def test_create_answers_a_batch_in_progress(self, plain: Anthropic) -> None:
        """All fields are there, and the batch expires a day after it was created."""
        batch = plain.create(rows_for(3)).json()
        assert batch.pop("id").startswith("msgbatch_")
        created, expires = batch.pop("created_at"), batch.pop("expires_at")
        assert len(created) == len("2026-11-22T08:00:00.123456+00:00")
        assert created.split("T")[1] == expires.split("T")[1]
        assert batch == {
            "type": "message_batch",
            "processing_status": "in_progress",
            "request_counts": {"processing": 3, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
            "ended_at": None,
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": None,
        }

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ([], "'{' was expected"),
            ({}, "requests: Field required"),
            ({"requests": {}}, "requests: Input should be a valid list"),
            ({"requests": []}, "requests: List should have at least 1 item"),
            ({"requests": one(), "metadata": {}}, "metadata: Extra inputs are not permitted"),
            ({"requests": [5]}, "requests.0: Input should be a valid dictionary"),
            ({"requests": [*one(), {"params": {}}]}, "requests.1.custom_id: Field required"),
            ({"requests": [{"custom_id": "a"}]}, "requests.0.params: Field required"),
            ({"requests": [{"custom_id": "a", "params": []}]}, "requests.0.params: Input should be a valid dictionary"),
            ({"requests": [{**one()[0], "x": 1}]}, "requests.0.x: Extra inputs are not permitted"),
            ({"requests": [*one("a"), *one("b"), *one("a")]}, "requests.2.custom_id: 'a' is that of requests.0"),
            *[
                ({"requests": [*one(), *one(name)]}, "requests.1.custom_id: String should match pattern '^[a-zA-Z0-9_-")
                for name in ("", "a b", "x" * 65, "ä", "a\n")
            ],
        ],
    )
    def test_unsound_create_is_refused_as_a_whole(self, plain: Anthropic, body: object, message: str) -> None:
        """One bad envelope is a 400 that names its place, and nothing is stored."""
        before = plain.ledger()["batches"]
        error = error_of(plain.http.post(BATCHES, json=body))
        assert (error["status"], error["type"]) == (400, "invalid_request_error")
        assert message in error["message"]
        assert plain.ledger()["batches"] == before

    @pytest.mark.parametrize(
        "body", [b"", b"{", b'{"requests":[{]}', b'{"requests":[{"custom_id":"a","params":{"m":"\xff"}}]}']
    )
    def test_body_that_is_no_json_is_refused(self, plain: Anthropic, body: bytes) -> None:
        """Empty, cut off, malformed or not UTF-8: a 400 in the API's shape."""
        error = error_of(plain.http.post(BATCHES, content=body))
        assert (error["status"], error["type"]) == (400, "invalid_request_error")

    @pytest.mark.parametrize("value", [b'"\\ud800"', b"1" + b"0" * 30])
    def test_what_no_text_or_number_is_refused(self, plain: Anthropic, value: bytes) -> None:
        """Half a surrogate pair and an integer beyond 64 bits are a 400, not a crash."""
        body = b'{"requests":[{"custom_id":"a","params":{"model":"m","max_tokens":9,"messages":[' + value + b"]}}]}"
        assert error_of(plain.http.post(BATCHES, content=body))["status"] == 400

    def test_number_of_requests_is_limited(self, start: Start) -> None:
        """The message says how many are allowed and how many came."""
        client = start(max_requests=5)
        assert client.create(rows_for(5)).status_code == 200
        error = error_of(client.create(rows_for(7)))
        assert error["status"] == 400
        assert error["message"] == "requests: List should have at most 5 items after validation, not 7"

    def test_body_above_the_limit_is_refused(self, start: Start) -> None:
        """One byte too many is a 413, and so are five million."""
        body = orjson.dumps({"requests": one()})
        client = start(max_bytes=len(body))
        assert client.http.post(BATCHES, content=body).status_code == 200
        for more in (b" ", b" " * 5_000_000):
            error = error_of(client.http.post(BATCHES, content=body + more))
            assert (error["status"], error["type"]) == (413, "request_too_large")

    def test_large_create_is_never_in_memory(self, start: Start) -> None:
        """A batch of 50 MB is taken in, answered and downloaded within 36 MB more memory."""

        def peak_memory() -> int:
            lines = Path(f"/proc/{client.emulator.pid}/status").read_text().splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

        if not Path("/proc/self/status").exists():
            pytest.skip("only Linux says what a process had in memory")
        client = start(latency=0.0)
        client.run(rows_for(1))
        before = peak_memory()
        batch_id = client.submit(rows_for(6000, system="x" * 8000))
        assert client.batch(batch_id)["request_counts"]["succeeded"] == 6000
        assert client.download(batch_id).content.count(b"\n") == 6000
        assert peak_memory() - before < 36_000_000


class TestAnswers:
    def test_result_has_the_shape_of_a_message(self, plain: Anthropic) -> None:
        """Every field of a message and its usage is there, even those that are null."""
        result = plain.run(one())["a"]
        message = result["message"]
        assert result["type"] == "succeeded"
        assert message.pop("id").startswith("msg_")
        usage = message.pop("usage")
        assert message == {
            "type": "message",
            "role": "assistant",
            "model": "claude-haiku-4-5-20251001",
            "content": [{"type": "text", "text": '{"sentiment":"positive","topics":["sound"]}'}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "stop_details": None,
        }
        assert usage.pop("input_tokens") > 50
        assert usage.pop("output_tokens") == 11
        assert usage == {
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens_details": {"thinking_tokens": 0},
            "service_tier": "batch",
            "inference_geo": "global",
        }

    def test_system_as_text_and_as_blocks_is_the_same(self, plain: Anthropic) -> None:
        """Both spellings of the system prompt lead to the same answer."""
        blocks = [{"type": "text", "text": "You label reviews."}]
        results = plain.run([*one("a"), *one("b", system=blocks), *one("c", schema=None)])
        assert text_of(results["a"]) == text_of(results["b"])
        assert text_of(results["c"]) == "The text sounds positive. It is about: sound."

    def test_answer_is_cut_off_where_its_tokens_end(self, plain: Anthropic) -> None:
        """`max_tokens` is exact: one token fewer than needed stops the answer in the middle."""
        results = plain.run([*one("a", max_tokens=11), *one("b", max_tokens=10), *one("c", max_tokens=1)])
        reasons = [results[name]["message"]["stop_reason"] for name in "abc"]
        assert reasons == ["end_turn", "max_tokens", "max_tokens"]
        assert [results[name]["message"]["usage"]["output_tokens"] for name in "abc"] == [11, 10, 1]
        assert text_of(results["a"]).startswith(text_of(results["b"]))
        assert not is_valid(text_of(results["b"]))

    def test_unsound_requests_are_errored_each_by_itself(self, plain: Anthropic) -> None:
        """The other requests of the batch are answered, and only those are billed."""
        before = plain.ledger()["billed_items"]
        rows = [*one("a"), *one("b", temperature=1), *one("c", max_tokens=None), *one("d", schema={"type": "object"})]
        batch_id = plain.submit(rows)
        counts = plain.batch(batch_id)["request_counts"]
        results = {line["custom_id"]: line["result"] for line in plain.lines(batch_id)}
        assert counts == {"processing": 0, "succeeded": 1, "errored": 3, "canceled": 0, "expired": 0}
        assert kinds(results) == {"succeeded": 1, "invalid_request_error": 3}
        assert results["b"].keys() == {"type", "error"}
        assert results["b"]["error"].pop("request_id").startswith("req_")
        assert results["b"]["error"] == {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "temperature: not supported with anthropic-version 2026-10-21",
            },
        }
        assert plain.ledger()["billed_items"] == before + 1

    def test_version_of_the_create_decides(self, plain: Anthropic) -> None:
        """A field that the newer API version refuses is accepted in a batch of the older one."""
        assert kinds(plain.run(one(temperature=1), anthropic_version=OLD_VERSION)) == {"succeeded": 1}

    def test_models_may_differ(self, plain: Anthropic) -> None:
        """Each request of a batch is answered by the model that it names."""
        results = plain.run([*one("a", model="claude-sonnet-5"), *one("b", model="claude-opus-4-8")])
        assert [results[name]["message"]["model"] for name in "ab"] == ["claude-sonnet-5", "claude-opus-4-8"]


class TestCaching:
    def usages(self, client: Anthropic, rows: list[Json]) -> list[Json]:
        """In the order of the results."""
        return [line["result"]["message"]["usage"] for line in client.lines(client.submit(rows))]

    def test_first_answers_write_and_later_ones_read(self, plain: Anthropic) -> None:
        """Four requests that run at once write the cache; most of the others find it."""
        usages = self.usages(plain, rows_for(100, system=cached_system()))
        size = len(LONG) // 4
        assert [usage["cache_creation_input_tokens"] for usage in usages[:4]] == [size] * 4
        reads = sum(usage["cache_read_input_tokens"] == size for usage in usages)
        assert 75 < reads < 96
        for usage in usages:
            assert usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"] == size
            written = usage["cache_creation_input_tokens"]
            assert usage["cache_creation"] == {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": written}
            assert usage["input_tokens"] < 100

    def test_ledger_holds_all_input(self, start: Start) -> None:
        """Tokens read from and written to the cache are input like others."""
        client = start(latency=0.0)
        names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        usages = self.usages(client, rows_for(50, system=cached_system()))
        assert client.ledger()["input_tokens"] == sum(usage[name] for usage in usages for name in names)
        assert client.ledger()["output_tokens"] == sum(usage["output_tokens"] for usage in usages)

    def test_share_of_hits_is_switched(self, start: Start) -> None:
        """From few hits to all that come after the first four, and for either duration."""
        usages = self.usages(start(latency=0.0, cached_share=0.3), rows_for(100, system=cached_system("5m")))
        assert 15 < sum(usage["cache_read_input_tokens"] > 0 for usage in usages) < 45
        assert all(usage["cache_creation"]["ephemeral_1h_input_tokens"] == 0 for usage in usages)
        all_hit = self.usages(start(latency=0.0, cached_share=1.0), rows_for(20, system=cached_system()))
        assert sum(usage["cache_read_input_tokens"] > 0 for usage in all_hit) == 16

    def test_same_seed_brings_the_same_cache(self, start: Start) -> None:
        """Two emulators with one seed report the same usage row by row."""
        rows = rows_for(50, system=cached_system())
        assert self.usages(start(latency=0.0), rows) == self.usages(start(latency=0.0), rows)

    def test_nothing_is_cached_that_is_not_marked(self, plain: Anthropic) -> None:
        """A long system prompt without `cache_control` is billed in full each time."""
        for usage in self.usages(plain, rows_for(20, system=LONG)):
            assert usage["cache_creation_input_tokens"] == usage["cache_read_input_tokens"] == 0

    def test_shared_beginning_is_read_where_the_end_is_written(self, start: Start) -> None:
        """A request with two marks reads the common part and writes its own."""
        client = start(latency=0.0, cached_share=1.0)
        end = {"type": "text", "text": "the end", "cache_control": {"type": "ephemeral"}}
        rows = [
            {**row, "params": {**row["params"], "messages": [{"role": "user", "content": [text_block(at), end]}]}}
            for at, row in enumerate(rows_for(20, system=cached_system()))
        ]
        for usage in self.usages(client, rows)[4:]:
            assert usage["cache_read_input_tokens"] == len(LONG) // 4
            assert usage["cache_creation"]["ephemeral_5m_input_tokens"] > 0
            assert usage["cache_creation"]["ephemeral_1h_input_tokens"] == 0


class TestBatches:
    def test_counters_are_frozen_until_the_batch_has_ended(self, start: Start) -> None:
        """As at Anthropic: everything is `processing` until all of it is done."""
        client = start(latency=1.0)
        batch_id = client.submit(rows_for(50))
        seen = 0
        while (batch := client.batch(batch_id))["processing_status"] == "in_progress":
            assert batch["request_counts"] == {
                "processing": 50,
                "succeeded": 0,
                "errored": 0,
                "canceled": 0,
                "expired": 0,
            }
            assert batch["ended_at"] is batch["results_url"] is None
            answer = client.download(batch_id)
            if answer.status_code == 200:
                continue  # it ended between the two looks
            error = error_of(answer)
            assert (error["status"], error["type"]) == (404, "not_found_error")
            assert error["message"] == f"Message Batch {batch_id} has no available results."
            seen += 1
            time.sleep(0.05)
        assert seen
        assert batch["processing_status"] == "ended"
        assert batch["request_counts"] == {"processing": 0, "succeeded": 50, "errored": 0, "canceled": 0, "expired": 0}
        assert batch["created_at"] < batch["ended_at"]
        assert batch["cancel_initiated_at"] is None

    def test_results_are_lines_at_the_address_that_the_batch_names(self, plain: Anthropic) -> None:
        """JSON lines as an attachment, in another order than they were sent."""
        batch_id = plain.submit(rows_for(200))
        address = plain.batch(batch_id)["results_url"]
        assert address == f"{plain.emulator.url}{BATCHES}/{batch_id}/results"
        response = plain.http.get(address, headers={"accept": "application/binary"})
        assert response.headers["content-type"] == "application/x-jsonl"
        assert response.headers["content-disposition"] == f'attachment; filename="{batch_id}_results.jsonl"'
        assert response.content.endswith(b"}\n")
        listed = [orjson.loads(line)["custom_id"] for line in response.content.splitlines()]
        sent = [row["custom_id"] for row in rows_for(200)]
        assert listed != sent
        assert sorted(listed) == sorted(sent)
        assert plain.download(batch_id).content == response.content

    def test_address_of_the_results_is_that_of_the_caller(self, plain: Anthropic) -> None:
        """Behind a proxy it is the host that the client called."""
        batch_id = plain.submit(one())
        batch = plain.http.get(f"{BATCHES}/{batch_id}", headers={"host": "emulator.example:81"}).json()
        assert batch["results_url"].startswith("http://emulator.example:81/v1/")

    def test_batches_are_listed_newest_first_page_by_page(self, start: Start) -> None:
        """Forwards and backwards from an id, and an empty list has no ids."""
        client = start(latency=0.0)
        empty = client.http.get(BATCHES).json()
        assert empty == {"data": [], "has_more": False, "first_id": None, "last_id": None}
        ids = [client.submit(one()) for _ in range(6)][::-1]

        def page(**query: object) -> tuple[list[str], bool]:
            listed = client.http.get(BATCHES, params=query).json()  # type: ignore[arg-type]  # numbers and text
            found = [batch["id"] for batch in listed["data"]]
            assert (listed["first_id"], listed["last_id"]) == (found[0], found[-1]) if found else (None, None)
            return found, listed["has_more"]

        assert page() == (ids, False)
        assert page(limit=2) == (ids[:2], True)
        assert page(limit=3, after_id=ids[1]) == (ids[2:5], True)
        assert page(limit=3, after_id=ids[2]) == (ids[3:], False)
        assert client.http.get(BATCHES, params={"limit": 1000}).json()["data"][0] == client.batch(ids[0])

    @pytest.mark.parametrize(
        ("query", "status"),
        [
            ({"limit": "0"}, 400),
            ({"limit": "1001"}, 400),
            ({"limit": "x"}, 400),
            ({"after_id": "none"}, 404),
            ({"before_id": "a"}, 400),
        ],
    )
    def test_unsound_list_is_refused(self, plain: Anthropic, query: dict[str, str], status: int) -> None:
        """A page size out of range or an unknown id is an error, not an empty page."""
        assert error_of(plain.http.get(BATCHES, params=query))["status"] == status

    def test_cancelled_batch_keeps_and_bills_what_was_done(self, start: Start) -> None:
        """It is `canceling` first; afterwards each request either succeeded or was canceled."""
        client = start(latency=10.0)
        batch_id = client.submit(rows_for(400))
        time.sleep(1.0)
        canceling = client.cancel(batch_id).json()
        assert canceling["processing_status"] == "canceling"
        assert canceling["request_counts"]["processing"] == 400
        assert canceling["results_url"] is canceling["ended_at"] is None
        assert canceling["cancel_initiated_at"] > canceling["created_at"]
        assert client.cancel(batch_id).json() == canceling
        assert error_of(client.download(batch_id))["status"] == 404
        batch = client.wait_for(batch_id)
        results = {line["custom_id"]: line["result"] for line in client.lines(batch_id)}
        done = kinds(results)["succeeded"]
        assert 0 < done < 400
        assert kinds(results)["canceled"] == 400 - done
        assert {"type": "canceled"} in results.values()
        expected = {"processing": 0, "succeeded": done, "errored": 0, "canceled": 400 - done, "expired": 0}
        assert batch["request_counts"] == expected
        assert canceling["cancel_initiated_at"] == batch["cancel_initiated_at"] < batch["ended_at"]
        assert client.ledger()["billed_items"] == done

    def test_batch_that_has_ended_can_not_be_cancelled(self, plain: Anthropic) -> None:
        """The refusal leaves the batch as it was."""
        batch_id = plain.submit(one())
        before = plain.batch(batch_id)
        error = error_of(plain.cancel(batch_id))
        assert (error["status"], error["type"]) == (400, "invalid_request_error")
        assert plain.batch(batch_id) == before

    def test_states_and_results_survive_kill_9(self, tmp_path: Path) -> None:
        """A restarted emulator shows the same batches, results, usage and cache."""
        state = tmp_path / "state.sqlite"
        with started(state=state, latency=0.0, failure_rate=0.2) as client:
            ended = client.submit(rows_for(50))
            before = client.batch(ended), client.lines(ended)
            open_id = client.submit(rows_for(50, first=50, system=cached_system()))
            os.kill(client.emulator.pid, signal.SIGKILL)
        with started(state=state, latency=0.0, failure_rate=0.2) as client:
            after = client.batch(ended)
            assert after.pop("results_url") != before[0].pop("results_url")
            assert (after, client.lines(ended)) == before
            assert len(client.lines(open_id)) == 50
            assert client.ledger()["paid_twice"] == 0
        assert list(tmp_path.iterdir()) == [state]

    def test_canceling_lasts_for_a_moment_by_the_clock(self, tmp_path: Path) -> None:
        """The time between the request to cancel and the end comes from the clock alone."""
        clock, store = Clock(), Store(tmp_path / "state.sqlite")
        service = Service(EmulatorOptions(dialect="anthropic", latency=20.0), store, clock)
        Dialect(service)
        batch_id = service.accept(NewBatch("m", [Request(str(at), "x", "m") for at in range(100)], b"")).batch.id
        clock.now = 1010.0
        open_batch = service.batch(batch_id)
        assert open_batch is not None
        batch = service.cancel(open_batch)
        assert [batch_status(batch, now) for now in (1010.0, 1010.9, 1011.0)] == ["canceling", "canceling", "ended"]
        shown = batch_json(batch, "ended", "http://x")
        assert shown["request_counts"] == {"processing": 0, "succeeded": 50, "errored": 0, "canceled": 50, "expired": 0}
        assert shown["cancel_initiated_at"] == "1970-01-01T00:16:50.000000+00:00"
        assert shown["ended_at"] == "1970-01-01T00:16:51.000000+00:00"
        store.close()


class TestFaults:
    def test_failures_are_errors_of_the_server_on_the_first_attempt_only(self, start: Start) -> None:
        """Two kinds occur, neither is billed, and a second attempt succeeds."""
        client = start(latency=0.0, failure_rate=0.3)
        first = kinds(client.run(rows_for(300)))
        assert first.keys() == {"succeeded", "api_error", "overloaded_error"}
        assert kinds(client.run(rows_for(300, attempt=2))) == {"succeeded": 300}
        assert client.ledger()["billed_items"] == 300 + first["succeeded"]

    @pytest.mark.parametrize(("option", "kind"), [("timeout_rate", "timeout_error"), ("unexplained_rate", "api_error")])
    def test_other_failures_have_their_kind(self, start: Start, option: str, kind: str) -> None:
        """Unexplained failures and timeouts have an error type of their own and cost nothing."""
        client = start(latency=0.0, **{option: 1.0})
        assert kinds(client.run(rows_for(5))) == {kind: 5}
        assert client.ledger()["billed_items"] == 0

    def test_refusals_succeed_and_are_billed(self, start: Start) -> None:
        """A refusal is a `stop_reason` of a successful message, not an error."""
        client = start(latency=0.0, refusal_rate=1.0)
        result = client.run(one())["a"]
        assert (result["type"], result["message"]["stop_reason"]) == ("succeeded", "refusal")
        assert result["message"]["stop_details"]["type"] == "refusal"
        assert "can't help" in text_of(result)
        ledger = client.ledger()
        assert (ledger["billed_items"], ledger["billed_invalid"]) == (1, 1)

    def test_answers_at_their_limit_succeed_and_are_billed(self, start: Start) -> None:
        """They break the schema on the first attempt, and are whole on the second."""
        client = start(latency=0.0, length_rate=1.0)
        first, second = client.run(rows_for(5)), client.run(rows_for(5, attempt=2))
        assert {result["message"]["stop_reason"] for result in first.values()} == {"max_tokens"}
        assert not any(is_valid(text_of(result)) for result in first.values())
        assert {result["message"]["stop_reason"] for result in second.values()} == {"end_turn"}
        assert client.ledger()["billed_items"] == 10

    def test_invalid_answers_break_the_schema(self, start: Start) -> None:
        """No answer of a batch fits when every one is to be invalid."""
        client = start(latency=0.0, invalid_rate=1.0)
        assert not any(is_valid(text_of(result)) for result in client.run(rows_for(20)).values())

    def test_missing_rows_count_as_expired_unbilled(self, start: Start) -> None:
        """They are absent from the results, down to an empty file; the counters have to add up."""
        client = start(latency=0.0, missing_rate=0.3)
        batch_id = client.submit(rows_for(100))
        lines = client.lines(batch_id)
        assert 50 < len(lines) < 90
        counts = client.batch(batch_id)["request_counts"]
        assert (counts["succeeded"], counts["expired"]) == (len(lines), 100 - len(lines))
        assert client.ledger()["billed_items"] == len(lines)
        empty = start(latency=0.0, missing_rate=1.0)
        assert empty.download(empty.submit(one())).content == b""

    def test_expired_batch_ends_like_others(self, start: Start) -> None:
        """It is `ended`; only its rows say that half of them expired."""
        client = start(latency=0.0, expire_every=1)
        batch_id = client.submit(rows_for(10))
        batch = client.batch(batch_id)
        assert batch["processing_status"] == "ended"
        assert batch["request_counts"] == {"processing": 0, "succeeded": 5, "errored": 0, "canceled": 0, "expired": 5}
        assert Counter(line["result"]["type"] for line in client.lines(batch_id)) == {"succeeded": 5, "expired": 5}
        assert client.ledger()["billed_items"] == 5

    def test_batch_that_fails_ends_with_nothing_but_errors(self, start: Start) -> None:
        """This API has no failed batch: every row is an error, and none is billed."""
        client = start(latency=0.0, fail_batch_every=1)
        batch_id = client.submit(rows_for(10))
        assert client.batch(batch_id)["request_counts"]["errored"] == 10
        assert {line["result"]["type"] for line in client.lines(batch_id)} == {"errored"}
        assert client.ledger()["billed_items"] == 0

    def test_rate_limit_and_spend_limit_differ_by_their_header(self, start: Start) -> None:
        """Both are a 429 of one type; only the one that passes has `retry-after`."""
        client = start(rate_limit_every=2, quota_every=3, retry_after=7)
        responses = [client.create(one()) for _ in range(3)]
        assert [response.status_code for response in responses] == [200, 429, 429]
        limited, spent = map(error_of, responses[1:])
        assert limited["type"] == spent["type"] == "rate_limit_error"
        assert [response.headers.get("retry-after") for response in responses[1:]] == ["7", None]
        assert spent["details"] == {"error_code": "enforced_spend_limit_reached"}
        assert client.ledger()["batches"] == 1

    def test_overload_is_a_529(self, start: Start) -> None:
        """For large bodies and for lists alike."""
        client = start(error_rate=1.0)
        for response in (client.create(one(system="x" * 5_000_000)), client.http.get(BATCHES)):
            error = error_of(response)
            assert (error["status"], error["type"]) == (529, "overloaded_error")

    def test_dropped_create_is_found_in_the_list(self, start: Start) -> None:
        """The connection broke after acceptance: the batch is there and is answered."""
        client = start(latency=0.0, drop_every=1)
        with pytest.raises(httpx.RemoteProtocolError):
            client.create(rows_for(3))
        (found,) = client.http.get(BATCHES).json()["data"]
        assert found["request_counts"]["succeeded"] == 3
        assert len(client.lines(found["id"])) == 3

    def test_held_create_is_stored_before_its_answer(self, start: Start) -> None:
        """The batch can be listed while its creator still waits for the response."""
        client = start(hold=1.0)
        holding = threading.Thread(target=client.submit, args=(one(),))
        holding.start()
        wait_until(lambda: bool(client.http.get(BATCHES).json()["data"]))
        assert holding.is_alive()
        holding.join(PATIENCE)
        assert not holding.is_alive()

    def test_fresh_batch_is_not_visible_at_first(self, start: Start) -> None:
        """Neither batch, results nor list know it for a while, and it can't be cancelled."""
        client = start(latency=0.0, visible_after=1.0)
        batch_id = client.submit(one())
        for response in (client.http.get(f"{BATCHES}/{batch_id}"), client.download(batch_id), client.cancel(batch_id)):
            error = error_of(response)
            assert (error["status"], error["type"]) == (404, "not_found_error")
        assert client.http.get(BATCHES).json()["data"] == []
        wait_until(lambda: client.http.get(f"{BATCHES}/{batch_id}").status_code == 200)
        assert len(client.http.get(BATCHES).json()["data"]) == 1

    def test_download_breaks_off_and_may_be_repeated(self, start: Start) -> None:
        """Every second download ends early; the next one is whole and the same."""
        client = start(latency=0.0, cut_every=2)
        batch_id = client.submit(rows_for(2000))
        whole = client.download(batch_id).content
        with pytest.raises(httpx.RemoteProtocolError):
            client.download(batch_id)
        assert client.download(batch_id).content == whole

    def test_lines_may_come_twice(self, start: Start) -> None:
        """The counters and the bill count each request once."""
        client = start(latency=0.0, duplicate_rate=0.3)
        batch_id = client.submit(rows_for(200))
        times = Counter(line["custom_id"] for line in client.lines(batch_id))
        assert len(times) == 200
        assert 30 < sum(count == 2 for count in times.values()) < 90
        assert client.batch(batch_id)["request_counts"]["succeeded"] == client.ledger()["billed_items"] == 200

    def test_usage_may_be_missing_though_billed(self, start: Start) -> None:
        """The emulator's ledger knows what the client is not told."""
        client = start(latency=0.0, unmetered_rate=0.5)
        results = client.run(rows_for(100))
        assert 30 < sum("usage" not in result["message"] for result in results.values()) < 70
        assert client.ledger()["billed_items"] == 100

    def test_usage_may_be_huge_and_is_billed_so(self, start: Start) -> None:
        """Numbers beyond 32 bits arrive in the ledger unchanged."""
        client = start(latency=0.0, huge_usage_rate=0.5)
        usages = [result["message"]["usage"] for result in client.run(rows_for(50)).values()]
        assert 10 < sum(usage["output_tokens"] > 2**26 for usage in usages) < 40
        assert client.ledger()["input_tokens"] == sum(usage["input_tokens"] for usage in usages) > 2**32

    def test_unknown_status_is_shown_once(self, start: Start) -> None:
        """A status that no client knows is followed by the real one."""
        client = start(latency=0.0, unknown_status_every=2)
        ids = [client.submit(one()) for _ in range(2)]
        seen = [[client.batch(batch_id)["processing_status"] for _ in range(3)] for batch_id in ids]
        assert seen == [["ended"] * 3, ["reticulating", "ended", "ended"]]

    def test_results_are_gone_after_their_time(self, start: Start) -> None:
        """The batch says that it is archived and has no address of results any more."""
        client = start(latency=0.0, gone_after=1.0)
        batch_id = client.submit(rows_for(2))
        assert len(client.lines(batch_id)) == 2
        wait_until(lambda: client.download(batch_id).status_code == 404)
        batch = client.batch(batch_id)
        assert batch["archived_at"] > batch["ended_at"]
        assert batch["results_url"] is None
        assert batch["request_counts"]["succeeded"] == 2
        assert error_of(client.download(batch_id))["message"] == f"Message Batch {batch_id} has no available results."

    @pytest.mark.parametrize("said", ["true", "false", ""])
    def test_errors_say_whether_to_try_again(self, start: Start, said: str) -> None:
        """`x-should-retry` is on every error, or on none, as it is switched."""
        client = start(should_retry=said, rate_limit_every=2)
        accepted, limited = client.create(one()), client.create(one())
        missing = client.http.get(f"{BATCHES}/none")
        assert "x-should-retry" not in accepted.headers
        assert limited.headers.get("x-should-retry") == missing.headers.get("x-should-retry") == (said or None)


class TestAccess:
    def calls(self, http: httpx.Client, headers: dict[str, str]) -> list[httpx.Response]:
        return [
            http.post(BATCHES, json={"requests": one(system="x" * 2_000_000)}, headers=headers),
            http.get(BATCHES, headers=headers),
            http.get(f"{BATCHES}/x", headers=headers),
            http.post(f"{BATCHES}/x/cancel", headers=headers),
            http.get(f"{BATCHES}/x/results", headers=headers),
        ]

    @pytest.mark.parametrize(
        ("headers", "message"),
        [
            ({}, "x-api-key header is required"),
            ({"authorization": "Basic s3cret"}, "x-api-key header is required"),
            ({"x-api-key": "wrong"}, "invalid x-api-key"),
            ({"authorization": "Bearer wrong"}, "invalid x-api-key"),
        ],
    )
    def test_calls_without_the_right_key_are_refused(self, start: Start, headers: dict[str, str], message: str) -> None:
        """Every path checks the key, and the message tells a missing one from a wrong one."""
        with httpx.Client(base_url=start(key="s3cret").emulator.base_url) as http:
            errors = [error_of(response) for response in self.calls(http, {"anthropic-version": VERSION, **headers})]
        assert [(error["status"], error["type"]) for error in errors] == [(401, "authentication_error")] * 5
        assert {error["message"] for error in errors} == {message}

    def test_either_header_and_either_version_will_do(self, start: Start) -> None:
        """`x-api-key` or a bearer token, the newer version of the API or the older."""
        with httpx.Client(base_url=start(key="s3cret").emulator.base_url) as http:
            for key in ({"x-api-key": "s3cret"}, {"authorization": "Bearer s3cret"}):
                for version in (VERSION, OLD_VERSION):
                    headers = {**key, "anthropic-version": version}
                    assert http.get(BATCHES, headers=headers).status_code == 200
                    assert http.post(BATCHES, json={"requests": one()}, headers=headers).status_code == 200

    @pytest.mark.parametrize("version", [{}, {"anthropic-version": "2025-01-01"}, {"anthropic-version": ""}])
    def test_calls_need_a_version_that_is_known(self, plain: Anthropic, version: dict[str, str]) -> None:
        """Without the header or with an unknown date every path answers 400."""
        with httpx.Client(base_url=plain.emulator.base_url) as http:
            errors = [error_of(response) for response in self.calls(http, {"x-api-key": "k", **version})]
        assert [(error["status"], error["type"]) for error in errors] == [(400, "invalid_request_error")] * 5
        assert all(error["message"].startswith("anthropic-version:") for error in errors)

    def test_what_does_not_exist_is_a_404_in_json(self, plain: Anthropic) -> None:
        """Unknown batches and unknown paths answer in the API's shape; a wrong method is a 405."""
        for path in (f"{BATCHES}/none", f"{BATCHES}/none/results", "/v1/other", "/"):
            error = error_of(plain.http.get(path))
            assert (error["status"], error["type"]) == (404, "not_found_error")
        assert error_of(plain.http.put(BATCHES))["status"] == 405

    def test_each_answer_has_an_id_of_its_own(self, plain: Anthropic) -> None:
        """Support asks for `request-id`, so no two responses share one."""
        ids = {plain.http.get(BATCHES).headers["request-id"] for _ in range(3)}
        assert len(ids) == 3

    def test_address_for_clients_is_without_a_version(self, plain: Anthropic) -> None:
        """The SDK adds `/v1` itself."""
        assert plain.emulator.base_url == plain.emulator.url


def recorded(pattern: str, status: int) -> list[Json]:
    """Recorded answers of the real service."""
    paths = sorted(require_shared("recorded/anthropic").glob(pattern))
    answers = [exchange["response"] for path in paths for exchange in orjson.loads(path.read_bytes())]
    return [answer for answer in answers if answer["status"] == status]


def assert_same_shape(ours: Any, theirs: Any, where: str = "") -> None:
    """Every field on record is there, of the same type."""
    if theirs is None or ours is None:
        return
    assert type(ours) is type(theirs), where
    if isinstance(theirs, dict):
        assert theirs.keys() <= ours.keys(), where
        for name, value in theirs.items():
            assert_same_shape(ours[name], value, f"{where}.{name}")
    elif isinstance(theirs, list) and theirs:
        assert ours, where
        for value in theirs:
            assert_same_shape(ours[0], value, f"{where}[]")


class TestRecordings:
    """What the real service answered, the emulator answers as well."""

    def check(self, ours: httpx.Response, pattern: str, status: int = 200) -> None:
        answers = recorded(pattern, status)
        assert answers, pattern
        for theirs in answers:
            assert ours.status_code == theirs["status"]
            assert theirs["headers"].keys() - {"retry-after"} <= ours.headers.keys()
            assert_same_shape(ours.json(), theirs["body"])

    def test_answers_about_batches_have_the_recorded_fields(self, start: Start) -> None:
        """Create, poll, list and cancel have the names and types that the real API was recorded with."""
        client = start(latency=1.0)
        rows = recorded_requests()
        created = client.create(rows)
        self.check(created, "*batch_create.json")
        self.check(created, "2024-10_batch_messages.json")
        self.check(created, "*_setup.json")
        batch_id = created.json()["id"]
        self.check(client.http.get(f"{BATCHES}/{batch_id}"), "batch_get.json")
        self.check(client.download(batch_id), "batch_results.json", 404)
        self.check(client.cancel(batch_id), "*cancel.json")
        client.wait_for(batch_id)
        self.check(client.http.get(f"{BATCHES}/{batch_id}"), "*messages_get.json")
        self.check(client.http.get(BATCHES), "*_list.json")
        client.submit(rows)
        self.check(client.http.get(BATCHES, params={"limit": 1}), "batch_list_with_params.json")

    def test_wrong_key_is_told_in_the_recorded_words(self, start: Start) -> None:
        """The error for a wrong key is the real API's, to the letter."""
        client = start(key="s3cret")
        ours = client.create(one())
        self.check(ours, "*error*.json", 401)
        (message,) = {answer["body"]["error"]["message"] for answer in recorded("*error*.json", 401)}
        assert ours.json()["error"]["message"] == message

    def test_result_lines_have_the_recorded_fields(self, plain: Anthropic) -> None:
        """A result line has the names and types of the real ones."""
        (answer,) = recorded("*messages_results.json", 200)
        ours = plain.lines(plain.submit(recorded_requests()))
        for line in answer["body"].splitlines():
            assert_same_shape(ours[0], orjson.loads(line))

    def test_saved_messages_have_the_same_fields(self, plain: Anthropic) -> None:
        """Of 2026; they were saved with an empty object for null."""
        path = require_shared("recorded/states/state-capitals-anthropic.json")
        (ours,) = plain.lines(plain.submit(one(schema=None)))
        for result in orjson.loads(path.read_bytes())["results"]:
            theirs = {name: value for name, value in result["message"].items() if value != {}}
            assert_same_shape(ours["result"]["message"], theirs)
            assert ours["result"]["message"].keys() == result["message"].keys()
            assert ours["result"]["message"]["usage"].keys() == result["message"]["usage"].keys()


def recorded_requests() -> list[Json]:
    path = require_shared("recorded/anthropic/batch_create.json")
    return list(orjson.loads(path.read_bytes())[0]["request"]["body"]["requests"])
