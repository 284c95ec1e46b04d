"""Each fault switch does what it says, and the same seed brings the same trouble again."""

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import orjson
import pytest

from blocks.emulator import EmulatorOptions
from blocks.emulator.service.batch import Outcome
from blocks.emulator.service.faults import batch_duration, item_outcome, shuffled
from tests.blocks.emulator.client import PATIENCE, SCHEMA, requests_for, wait_until
from tests.blocks.emulator.conftest import Start

Items = dict[str, dict[str, Any]]


def codes(items: Items) -> Counter[str]:
    return Counter(item["error"]["code"] if item["error"] else "ok" for item in items.values())


def is_valid(item: dict[str, Any]) -> bool:
    try:
        return bool(jsonschema_rs.is_valid(SCHEMA, orjson.loads(item["response"])))
    except orjson.JSONDecodeError:
        return False


def test_failures_befall_their_share_on_the_first_attempt_only(start: Start) -> None:
    """A failed item has no response and no tokens."""
    client = start(latency=0.0, failure_rate=0.3)
    first = client.run(requests_for(500))
    assert 100 < codes(first)["server_error"] < 200
    assert codes(client.run(requests_for(500, attempt=2))) == {"ok": 500}
    failed = next(item for item in first.values() if item["error"])
    assert (failed["status"], failed["response"]) == ("error", None)
    assert set(failed["usage"].values()) == {0}
    assert client.ledger()["billed_items"] == 1000 - codes(first)["server_error"]


def test_fault_attempts_let_later_attempts_fail_as_well(start: Start) -> None:
    """As many attempts as the switch says."""
    client = start(latency=0.0, failure_rate=1.0, fault_attempts=2)
    results = [codes(client.run(requests_for(10, attempt))) for attempt in (1, 2, 3)]
    assert results == [{"server_error": 10}, {"server_error": 10}, {"ok": 10}]


def test_id_without_an_attempt_counts_how_often_its_prompt_was_asked(start: Start) -> None:
    """Foreign ids get faults on the first attempt as well."""
    client = start(latency=0.0, failure_rate=1.0)
    results = [client.run([{"custom_id": name, "prompt": "hello"}])[name]["status"] for name in ("a", "b", "c")]
    assert results == ["error", "success", "success"]


def test_refusals_stick_to_the_prompt(start: Start) -> None:
    """What is refused once is refused on every attempt."""
    client = start(latency=0.0, refusal_rate=0.3)
    first, second = client.run(requests_for(300)), client.run(requests_for(300, attempt=2))
    refused = [item["original_prompt"] for item in first.values() if item["error"]]
    assert 50 < codes(first)["content_policy"] < 130
    assert sorted(refused) == sorted(item["original_prompt"] for item in second.values() if item["error"])


def test_invalid_answers_are_billed_and_break_the_schema_in_several_ways(start: Start) -> None:
    """Prose, text that is cut off, and JSON of another shape all occur."""
    client = start(latency=0.0, invalid_rate=0.5)
    items = client.run(requests_for(200))
    broken = [item for item in items.values() if not is_valid(item)]
    assert 70 < len(broken) < 130
    assert {item["status"] for item in items.values()} == {"success"}
    prose = [item for item in broken if not item["response"].startswith("{")]
    cut = [item for item in broken if item["response"].startswith("{") and not item["response"].endswith("}")]
    parsed = [orjson.loads(item["response"]) for item in broken if item not in prose and item not in cut]
    assert prose
    assert cut
    assert any("topics" not in answer for answer in parsed)
    assert any(answer["sentiment"] not in ("positive", "negative", "neutral") for answer in parsed)
    ledger = client.ledger()
    assert (ledger["billed_items"], ledger["billed_invalid"]) == (200, len(broken))


def test_cut_off_answers_are_billed_and_break_the_schema(start: Start) -> None:
    """The ledger counts them as truncated."""
    client = start(latency=0.0, length_rate=1.0)
    items = client.run(requests_for(10))
    assert not any(is_valid(item) for item in items.values())
    ledger = client.ledger()
    assert (ledger["outcomes"]["truncated"], ledger["billed_items"], ledger["billed_invalid"]) == (10, 10, 10)


def test_unexplained_failures_are_not_billed(start: Start) -> None:
    """They look like errors of the server."""
    client = start(latency=0.0, unexplained_rate=1.0)
    assert codes(client.run(requests_for(10))) == {"server_error": 10}
    assert client.ledger()["billed_items"] == 0


def test_timeouts_are_not_billed(start: Start) -> None:
    """They have a code and an outcome of their own."""
    client = start(latency=0.0, timeout_rate=1.0)
    assert codes(client.run(requests_for(10))) == {"timeout": 10}
    assert client.ledger()["outcomes"]["timed_out"] == 10
    assert client.ledger()["billed_items"] == 0


def test_usage_may_be_missing_though_billed(start: Start) -> None:
    """The emulator's ledger knows what the client is not told."""
    client = start(latency=0.0, unmetered_rate=0.5)
    items = client.run(requests_for(100))
    assert 30 < sum(item["usage"] is None for item in items.values()) < 70
    assert client.ledger()["billed_items"] == 100


def test_huge_usage_is_billed_as_it_is_said(start: Start) -> None:
    """Numbers beyond 32 bits arrive in the ledger unchanged."""
    client = start(latency=0.0, huge_usage_rate=1.0)
    items = client.run(requests_for(5))
    assert client.ledger()["input_tokens"] == sum(item["usage"]["input_tokens"] for item in items.values()) > 2**31


def test_unknown_status_is_shown_once_and_the_batch_goes_on(start: Start) -> None:
    """Only every n-th batch has it."""
    client = start(latency=0.0, unknown_status_every=2)
    first, second = client.submit(requests_for(1)), client.submit(requests_for(1))
    assert [client.batch(first)["status"] for _ in range(2)] == ["completed"] * 2
    assert [client.batch(second)["status"] for _ in range(3)] == ["reticulating", "completed", "completed"]


def test_results_are_gone_after_their_time(start: Start) -> None:
    """The batch still says how it ended."""
    client = start(latency=0.0, gone_after=1.0)
    batch_id = client.submit(requests_for(2))
    assert len(client.batch(batch_id)["results"]) == len(client.page(batch_id)) == 2
    wait_until(lambda: client.http.get(f"/batches/{batch_id}/results").status_code == 404)
    batch = client.batch(batch_id)
    assert (batch["status"], batch["succeeded"]) == ("completed", 2)
    assert "results" not in batch


def test_errors_may_say_whether_to_try_again(start: Start) -> None:
    """`x-should-retry` is on errors alone, and only when it is switched on."""
    client = start(should_retry="false", rate_limit_every=2)
    responses = [client.create(requests_for(1)) for _ in range(2)]
    assert [response.headers.get("x-should-retry") for response in responses] == [None, "false"]
    plain = start(rate_limit_every=1)
    assert "x-should-retry" not in plain.create(requests_for(1)).headers


def test_new_faults_leave_those_of_a_seed_as_they_are() -> None:
    """Adding one kind of fault does not move another to other rows."""
    older, newer = EmulatorOptions(failure_rate=0.3), EmulatorOptions(failure_rate=0.3, length_rate=0.7)
    for number in range(200):
        assert (item_outcome(older, number, 1) is Outcome.FAILED) == (item_outcome(newer, number, 1) is Outcome.FAILED)


def test_missing_items_are_absent_from_every_listing(start: Start) -> None:
    """Whole or page by page, and the batch does not count them as succeeded."""
    client = start(latency=0.0, missing_rate=0.3)
    batch_id = client.submit(requests_for(300))
    batch = client.batch(batch_id)
    items = client.page(batch_id)
    assert batch["total_items"] == 300
    assert 170 < len(items) == batch["succeeded"] < 250
    in_pages = [item for offset in range(0, 300, 50) for item in client.page(batch_id, offset, 50)]
    assert in_pages == items
    assert client.ledger()["billed_items"] == len(items)


def test_rates_share_out_the_requests(start: Start) -> None:
    """Rates that add up to one leave no good answer."""
    client = start(latency=0.0, failure_rate=0.4, missing_rate=0.4, invalid_rate=0.2)
    items = client.run(requests_for(300))
    assert not any(item["response"] and is_valid(item) for item in items.values())


def test_same_seed_brings_the_same_faults_and_answers(start: Start) -> None:
    """Order included; another seed brings others."""

    def results(seed: int) -> Items:
        return start(latency=0.0, seed=seed, failure_rate=0.2, invalid_rate=0.2, missing_rate=0.2).run(requests_for(60))

    first, again, other = results(1), results(1), results(2)
    assert first == again
    assert list(first) == list(again)
    assert first != other


def test_faults_do_not_depend_on_the_batch_a_request_is_in(start: Start) -> None:
    """Cut another way, the same requests fail in the same way."""
    together = start(latency=0.0, failure_rate=0.3, invalid_rate=0.3).run(requests_for(40))
    client = start(latency=0.0, failure_rate=0.3, invalid_rate=0.3)
    assert client.run(requests_for(20, first=20)) | client.run(requests_for(20)) == together


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
def test_rate_is_kept_to_over_many_prompts(rate: float) -> None:
    """Within three points of the share that was asked for."""
    options = EmulatorOptions(failure_rate=rate)
    failed = sum(item_outcome(options, number, 1) is Outcome.FAILED for number in range(5000))
    assert abs(failed / 5000 - rate) < 0.03


def test_orders_are_permutations_seeded_by_batch() -> None:
    """Each batch and each seed has an order of its own."""
    orders = [tuple(shuffled(seed, batch, 100)) for seed in (0, 1) for batch in (1, 2)]
    assert len(set(orders)) == 4
    assert all(sorted(order) == list(range(100)) for order in orders)


def test_every_nth_create_is_rate_limited_and_nothing_accepted(start: Start) -> None:
    """With `retry-after`; the ledger counts refusals apart from batches."""
    client = start(rate_limit_every=3, retry_after=7)
    responses = [client.create(requests_for(1)) for _ in range(6)]
    assert [response.status_code for response in responses] == [200, 200, 429, 200, 200, 429]
    assert responses[2].headers["retry-after"] == "7"
    ledger = client.ledger()
    assert (ledger["creates"], ledger["creates_rate_limited"], ledger["batches"]) == (6, 2, 4)


def test_rate_limit_may_say_nothing_of_how_long(start: Start) -> None:
    """Clients have to choose a delay themselves."""
    client = start(rate_limit_every=1, retry_header="none")
    assert "retry-after" not in client.create(requests_for(1)).headers


def test_used_up_quota_is_a_429_that_no_waiting_helps_against(start: Start) -> None:
    """It has its own code and no `retry-after`."""
    client = start(quota_every=2)
    responses = [client.create(requests_for(1)) for _ in range(4)]
    assert [response.status_code for response in responses] == [200, 429, 200, 429]
    assert responses[1].json()["error"]["code"] == "insufficient_quota"
    assert "retry-after" not in responses[1].headers


def test_overload_answers_503_before_doing_anything(start: Start) -> None:
    """What is answered so is not stored."""
    client = start(error_rate=0.5)
    codes_seen = [client.create(requests_for(1)).status_code for _ in range(40)]
    assert set(codes_seen) == {200, 503}
    assert client.ledger()["batches"] == codes_seen.count(200)


def test_large_body_hears_of_an_overload(start: Start) -> None:
    """The response arrives although the body was still on its way."""
    client = start(error_rate=1.0)
    response = client.create([{"custom_id": "a", "prompt": "x" * 5_000_000}])
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")


def test_dropped_create_is_stored_and_its_replay_answered(start: Start) -> None:
    """The same idempotency key finds the batch whose response was lost."""
    client = start(drop_every=2, latency=0.0)
    client.submit(requests_for(1))
    with pytest.raises(httpx.RemoteProtocolError):
        client.create(requests_for(5), key="lost")
    answer = client.create(requests_for(5), key="lost")
    assert answer.status_code == 200
    assert client.wait_for(answer.json()["batch_id"])["succeeded"] == 5
    ledger = client.ledger()
    assert (ledger["batches"], ledger["creates_dropped"], ledger["billed_items"]) == (2, 1, 6)


def test_drop_rate_hits_some_creates(start: Start) -> None:
    """The ledger counts as many as clients have seen."""
    client = start(drop_rate=0.5)
    lost = 0
    for _ in range(30):
        try:
            client.create(requests_for(1))
        except httpx.RemoteProtocolError:
            lost += 1
    assert 5 < lost < 25
    assert client.ledger()["creates_dropped"] == lost


def test_held_create_is_stored_before_its_answer(start: Start) -> None:
    """Only every n-th create is held, and it counts while it is."""
    client = start(hold=2 * PATIENCE, hold_every=2)
    client.submit(requests_for(1))
    body = {"model": "m", "requests": requests_for(1)}
    with pytest.raises(httpx.ReadTimeout):
        client.http.post("/batches", json=body, timeout=httpx.Timeout(PATIENCE, read=0.5))
    assert client.ledger()["batches"] == 2


def test_hold_file_holds_answers_while_it_exists(start: Start, tmp_path: Path) -> None:
    """Removing the file releases them."""
    hold_file = tmp_path / "hold"
    client = start(hold_file=hold_file)
    client.submit(requests_for(1))
    hold_file.touch()
    holding = threading.Thread(target=client.submit, args=(requests_for(1),))
    holding.start()
    wait_until(lambda: client.ledger()["batches"] == 2)
    time.sleep(0.1)
    assert holding.is_alive()
    hold_file.unlink()
    holding.join(5)
    assert not holding.is_alive()


def test_fresh_batch_is_not_visible_at_first(start: Start) -> None:
    """Neither the batch nor its results, for a while."""
    client = start(visible_after=1.0, latency=0.0)
    batch_id = client.submit(requests_for(1))
    assert client.http.get(f"/batches/{batch_id}").status_code == 404
    assert client.http.get(f"/batches/{batch_id}/results").status_code == 404
    wait_until(lambda: client.http.get(f"/batches/{batch_id}").status_code == 200)


def test_every_nth_batch_fails_as_a_whole_unbilled(start: Start) -> None:
    """It says why and has no items."""
    client = start(fail_batch_every=2, latency=0.0)
    assert client.batch(client.submit(requests_for(3)))["status"] == "completed"
    batch_id = client.submit(requests_for(4))
    batch = client.batch(batch_id)
    assert (batch["status"], batch["succeeded"], batch["failed"], batch["results"]) == ("failed", 0, 4, [])
    assert batch["error"]
    assert client.page(batch_id) == []
    assert client.ledger()["billed_items"] == 3


def test_every_nth_batch_expires_half_done(start: Start) -> None:
    """Only the answered half is billed."""
    client = start(expire_every=1, latency=0.0)
    batch_id = client.submit(requests_for(10))
    assert client.batch(batch_id)["status"] == "expired"
    assert codes({item["custom_id"]: item for item in client.page(batch_id)}) == {"ok": 5, "expired": 5}
    assert client.ledger()["billed_items"] == 5


def test_latency_grows_with_requests_and_varies_by_batch() -> None:
    """Within the jitter that was asked for, and exactly without one."""
    options = EmulatorOptions(latency=10.0, latency_per_request=1.0, jitter=0.5)
    durations = [batch_duration(options, batch, 20) for batch in range(100)]
    assert len(set(durations)) == 100
    assert all(15 <= duration <= 45 for duration in durations)
    assert batch_duration(EmulatorOptions(latency=10.0, latency_per_request=0.5), 1, 20) == 20
