"""The HolySheep dialect over a real socket."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import orjson
import pytest

from tests.blocks.emulator.client import Client, requests_for
from tests.blocks.emulator.conftest import Start, started


@pytest.fixture(scope="module")
def keyed() -> Iterator[Client]:
    """An emulator that accepts one key only, with small limits."""
    with started(key="s3cret", latency=0.0, max_requests=5, max_bytes=2000) as client:
        yield client


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Status and message; checks the shape of the error."""
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert error.keys() == {"code", "message"}
    return response.status_code, error["message"]


def test_create_answers_id_status_and_count(plain: Client) -> None:
    """Three fields, no more."""
    response = plain.create(requests_for(3))
    assert response.status_code == 200
    answer = response.json()
    assert answer.pop("batch_id")
    assert answer == {"status": "queued", "total_items": 3}


def test_batch_goes_from_queued_over_processing_to_completed(start: Start) -> None:
    """Its progress never goes back."""
    client = start(latency=1.0)
    batch_id = client.submit(requests_for(3))
    seen = []
    while (batch := client.batch(batch_id))["status"] != "completed":
        seen.append((batch["status"], batch["progress"]))
    assert list(dict.fromkeys(status for status, _ in seen)) in (["queued", "processing"], ["processing"])
    assert [progress for _, progress in seen] == sorted(progress for _, progress in seen)
    assert seen[-1][1] < batch["progress"] == 100
    assert batch["duration_seconds"] == 1.0


def test_completed_batch_shows_counts_and_exact_cost(plain: Client) -> None:
    """The cost is that of the tokens at the model's flat price."""
    batch_id = plain.submit([{"custom_id": "a", "prompt": "x" * 39}])
    batch = plain.wait_for(batch_id)
    tokens = sum(batch["results"][0]["usage"].values())
    assert (batch["total_items"], batch["succeeded"], batch["failed"], batch["error"]) == (1, 1, 0, None)
    assert batch["cost_usd"] == tokens * 4 / 1_000_000
    assert batch["model"] == "gpt-4.1"


@pytest.mark.parametrize(("model", "micro_dollars"), [("claude-sonnet-4-5", 7.5), ("DeepSeek V3.2", 0.21)])
def test_cost_is_written_to_the_last_digit(plain: Client, model: str, micro_dollars: float) -> None:
    """As a plain decimal, without exponent or rounding."""
    batch_id = plain.submit([{"custom_id": "a", "prompt": "hello"}], model=model)
    text = plain.http.get(f"/batches/{batch_id}").text
    batch = orjson.loads(text)
    tokens = sum(batch["results"][0]["usage"].values())
    cost = f"{round(tokens * micro_dollars * 100):d}".rjust(9, "0")
    assert f'"cost_usd":0.{cost[1:].rstrip("0")},' in text


def test_model_without_a_price_has_no_cost(plain: Client) -> None:
    """It is null, never 0."""
    assert plain.wait_for(plain.submit(requests_for(1), model="new-model"))["cost_usd"] is None


def test_item_repeats_its_prompt_beside_answer_and_usage(plain: Client) -> None:
    """Each item can be matched by its id and checked by its prompt."""
    (request,) = requests_for(1)
    (item,) = plain.page(plain.submit([request]))
    usage = item.pop("usage")
    assert orjson.loads(item.pop("response"))["sentiment"] == "positive"
    assert item == {
        "custom_id": request["custom_id"],
        "status": "success",
        "original_prompt": request["prompt"],
        "error": None,
    }
    assert usage["input_tokens"] == len(request["prompt"]) // 4 + 1
    assert usage["output_tokens"] > 0


def test_results_are_inline_for_small_batches_only(plain: Client) -> None:
    """Up to 100 requests; larger ones have to be paged."""
    assert len(plain.batch(plain.submit(requests_for(100)))["results"]) == 100
    assert "results" not in plain.batch(plain.submit(requests_for(101)))


def test_results_are_shuffled_but_stay_in_one_order(plain: Client) -> None:
    """Not the order they were sent in, but the same for every reader."""
    sent = [request["custom_id"] for request in requests_for(200)]
    batch_id = plain.submit(requests_for(200))
    listed = [item["custom_id"] for item in plain.page(batch_id)]
    assert listed != sent
    assert sorted(listed) == sorted(sent)
    assert [item["custom_id"] for item in plain.page(batch_id)] == listed


def test_pages_of_results_add_up_to_all_of_them(plain: Client) -> None:
    """Nothing is left out or repeated between pages, and the one after the last is empty."""
    batch_id = plain.submit(requests_for(250))
    pages = [plain.page(batch_id, offset, 100) for offset in (0, 100, 200, 300)]
    assert [len(page) for page in pages] == [100, 100, 50, 0]
    assert [item for page in pages for item in page] == plain.page(batch_id)


def test_page_says_where_it_is(plain: Client) -> None:
    """It repeats its offset and the total."""
    batch_id = plain.submit(requests_for(3))
    answer = plain.http.get(f"/batches/{batch_id}/results", params={"offset": 2, "limit": 5}).json()
    assert (answer["offset"], answer["total_items"], len(answer["results"])) == (2, 3, 1)


@pytest.mark.parametrize("query", ["limit=1001", "limit=0", "limit=x", "offset=-1", "limit=1.5"])
def test_page_outside_the_limits_is_refused(plain: Client, query: str) -> None:
    """The message names the parameter."""
    batch_id = plain.submit(requests_for(1))
    status, message = error_of(plain.http.get(f"/batches/{batch_id}/results?{query}"))
    assert status == 400
    assert query.partition("=")[0] in message


def test_results_before_the_end_are_not_ready(start: Start) -> None:
    """A 409 with its own code, and the batch shows none either."""
    client = start(latency=60.0)
    batch_id = client.submit(requests_for(1))
    response = client.http.get(f"/batches/{batch_id}/results")
    assert (response.status_code, response.json()["error"]["code"]) == (409, "not_ready")
    assert "results" not in client.batch(batch_id)


def test_cancelled_batch_keeps_and_bills_what_was_done(start: Start) -> None:
    """What was answered stays, the rest is `cancelled` and costs nothing."""
    client = start(latency=2.0)
    batch_id = client.submit(requests_for(400))
    while client.batch(batch_id)["progress"] < 20:
        pass
    cancelled = client.http.post(f"/batches/{batch_id}/cancel").json()
    items = client.page(batch_id)
    codes = [item["error"] and item["error"]["code"] for item in items]
    done = codes.count(None)
    assert cancelled["status"] == "cancelled"
    assert 80 <= done < 400
    assert codes.count("cancelled") == 400 - done
    assert (cancelled["succeeded"], cancelled["failed"]) == (done, 400 - done)
    assert client.ledger()["billed_items"] == done
    assert client.http.post(f"/batches/{batch_id}/cancel").json()["succeeded"] == done


def test_cancelling_an_ended_batch_changes_nothing(plain: Client) -> None:
    """The call answers the batch as it was."""
    batch_id = plain.submit(requests_for(2))
    before = plain.batch(batch_id)
    assert plain.http.post(f"/batches/{batch_id}/cancel").json() == before


@pytest.mark.parametrize("path", ["/batches/none", "/batches/none/results", "/batches/none/other", "/other"])
def test_what_does_not_exist_is_a_404_in_json(plain: Client, path: str) -> None:
    """Unknown batches, results and paths."""
    assert error_of(plain.http.get(path))[0] == 404


def test_wrong_method_is_a_405_in_json(plain: Client) -> None:
    """In the same shape as all errors."""
    assert error_of(plain.http.delete("/batches"))[0] == 405


@pytest.mark.parametrize("header", ["", "Basic abc", "Bearer", "Bearer wrong"])
def test_calls_without_the_right_key_are_refused(keyed: Client, header: str) -> None:
    """Before the body is looked at."""
    for path in ("/batches/none", "/batches/none/results"):
        assert error_of(keyed.http.get(path, headers={"authorization": header}))[0] == 401
    assert error_of(keyed.http.post("/batches", json={}, headers={"authorization": header}))[0] == 401


def test_the_right_key_is_let_in(keyed: Client) -> None:
    """The answer is then about the batch."""
    assert keyed.http.get("/batches/none", headers={"authorization": "Bearer s3cret"}).status_code == 404


def test_each_faulty_request_is_named_by_its_index(plain: Client) -> None:
    """The message says which request and which of its fields."""
    good = requests_for(3)
    faulty: list[tuple[Any, str]] = [
        ({"prompt": "x"}, "requests[3].custom_id"),
        ({"custom_id": "", "prompt": "x"}, "requests[3].custom_id"),
        ({"custom_id": 7, "prompt": "x"}, "requests[3].custom_id"),
        ({"custom_id": "x"}, "requests[3].prompt"),
        ({"custom_id": "x", "prompt": None}, "requests[3].prompt"),
        ({"custom_id": "x", "prompt": ["x"]}, "requests[3].prompt"),
        ("x", "requests[3]"),
        (good[1], "requests[3].custom_id"),
    ]
    for request, named in faulty:
        status, message = error_of(plain.create([*good, request]))
        assert status == 400
        assert named in message
    assert "requests[1]" in message  # the duplicate's first appearance


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"{", "JSON"),
        (b"\xff", "JSON"),
        (b"", "JSON"),
        (b"[]", "object"),
        (b"{}", "model"),
        (b'{"model":"","requests":[{"custom_id":"a","prompt":"x"}]}', "model"),
        (b'{"model":"m"}', "requests"),
        (b'{"model":"m","requests":{}}', "requests"),
        (b'{"model":"m","requests":[]}', "requests"),
        (b'{"model":"m","priority":"urgent","requests":[{"custom_id":"a","prompt":"x"}]}', "priority"),
    ],
)
def test_body_that_is_not_a_batch_is_refused(plain: Client, body: bytes, named: str) -> None:
    """The message names what is missing or of the wrong type."""
    status, message = error_of(plain.http.post("/batches", content=body))
    assert status == 400
    assert named in message


def test_nothing_of_a_refused_create_is_stored(start: Start) -> None:
    """There is no half of a batch."""
    client = start()
    client.create([{"custom_id": "a"}])
    assert client.ledger()["batches"] == 0


def test_limits_of_a_create_are_kept(keyed: Client) -> None:
    """Too many requests are a 400, too long a prompt or body is a 413."""
    keyed.http.headers["authorization"] = "Bearer s3cret"
    assert keyed.create([{"custom_id": str(number), "prompt": "x"} for number in range(5)]).status_code == 200
    status, message = error_of(keyed.create([{"custom_id": str(number), "prompt": "x"} for number in range(6)]))
    assert status == 400
    assert "5" in message
    assert error_of(keyed.create([{"custom_id": "a", "prompt": "x" * 2000}]))[0] == 413
    assert error_of(keyed.create([{"custom_id": "a", "prompt": "x" * 5_000_000}]))[0] == 413


def test_same_key_and_body_answer_the_first_batch_again(plain: Client) -> None:
    """A repeated create is harmless; another key makes another batch."""
    first = plain.create(requests_for(2), key="key-1")
    again = plain.create(requests_for(2), key="key-1")
    assert (again.status_code, again.content) == (200, first.content)
    assert plain.create(requests_for(2), key="key-2").content != first.content
    assert plain.create(requests_for(2)).content != first.content


def test_same_key_with_another_body_is_a_conflict(plain: Client) -> None:
    """A 409, since one of the two would be lost."""
    plain.create(requests_for(2), key="key-3")
    assert error_of(plain.create(requests_for(3), key="key-3"))[0] == 409


def test_creates_at_once_under_one_key_are_one_batch(start: Start) -> None:
    """Sixteen simultaneous calls all get the same answer."""
    client = start()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.create(requests_for(50), key="same").content, range(16)))
    assert len(set(answers)) == 1
    assert client.ledger()["batches"] == 1


def test_batch_is_billed_once_however_many_look_at_its_end(start: Start) -> None:
    """Simultaneous polls do not multiply the bill."""
    client = start(latency=0.3)
    batch_id = client.submit(requests_for(1000))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: client.wait_for(batch_id), range(8)))
    assert client.ledger()["billed_items"] == 1000


def test_text_comes_back_character_for_character(plain: Client) -> None:
    """Control characters, quotes, line separators and emoji survive the round trip."""
    prompt = 'Ä \u0000 \u2028 "quoted" {brace} \\ 🎓\r\n end '
    assert plain.run([{"custom_id": "odd", "prompt": prompt}])["odd"]["original_prompt"] == prompt


def test_full_batch_is_taken_in_and_served(plain: Client) -> None:
    """The documented maximum is accepted, one more is not."""
    batch_id = plain.submit(requests_for(10_000))
    ids = {item["custom_id"] for offset in range(0, 10_000, 1000) for item in plain.page(batch_id, offset)}
    assert len(ids) == 10_000
    assert plain.create(requests_for(10_001)).status_code == 400
