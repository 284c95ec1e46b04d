"""The emulator's own ledger: what it billed, and what it should not have had to."""

from collections import Counter

import httpx

from tests.blocks.emulator.client import requests_for
from tests.blocks.emulator.conftest import Start


def test_each_answer_is_one_row(start: Start) -> None:
    """With the tokens that the client was told."""
    client = start(latency=0.0)
    items = client.run(requests_for(5))
    rows = client.billed()
    assert {row["custom_id"] for row in rows} == set(items)
    for row in rows:
        usage = items[row["custom_id"]]["usage"]
        assert (row["input_tokens"], row["output_tokens"]) == (usage["input_tokens"], usage["output_tokens"])
        assert (row["model"], row["attempt"], row["valid"]) == ("gpt-4.1", 1, 1)


def test_totals_add_up_with_the_rows(start: Start) -> None:
    """Answered and invalid ones are billed; failed, missing and refused ones are not."""
    client = start(latency=0.0, failure_rate=0.2, invalid_rate=0.2, missing_rate=0.2, refusal_rate=0.1)
    client.run(requests_for(200))
    rows, ledger = client.billed(), client.ledger()
    assert ledger["billed_items"] == len(rows) == ledger["outcomes"]["answered"] + ledger["outcomes"]["invalid"]
    assert ledger["billed_invalid"] == Counter(row["valid"] for row in rows)[0]
    assert ledger["input_tokens"] == sum(row["input_tokens"] for row in rows)
    assert ledger["output_tokens"] == sum(row["output_tokens"] for row in rows)
    assert sum(ledger["outcomes"].values()) == ledger["requests_received"] == ledger["distinct_prompts"] == 200
    assert all(ledger["outcomes"][name] for name in ("answered", "invalid", "failed", "missing", "refused"))


def test_prompt_answered_well_and_billed_again_is_paid_twice(start: Start) -> None:
    """By model: the same prompt to another model is a new one."""
    client = start(latency=0.0)
    client.run(requests_for(10))
    assert client.ledger()["paid_twice"] == 0
    client.run(requests_for(12, attempt=2))
    assert client.ledger()["paid_twice"] == 10
    client.run(requests_for(10), model="another-model")
    assert client.ledger()["paid_twice"] == 10


def test_asking_again_after_a_broken_answer_is_not_paid_twice(start: Start) -> None:
    """The first answer was of no use."""
    client = start(latency=0.0, invalid_rate=1.0)
    client.run(requests_for(10))
    client.run(requests_for(10, attempt=2))
    ledger = client.ledger()
    assert (ledger["billed_items"], ledger["billed_invalid"], ledger["paid_twice"]) == (20, 10, 0)


def test_batch_that_nobody_looked_at_is_billed_all_the_same(start: Start) -> None:
    """A provider does not wait for someone to poll."""
    client = start(latency=0.0)
    client.submit(requests_for(10))
    assert client.ledger()["billed_items"] == 10
    assert start(latency=60.0).ledger()["batches_open"] == 0


def test_open_batch_is_not_billed_yet(start: Start) -> None:
    """Its requests are counted as received."""
    client = start(latency=60.0)
    client.submit(requests_for(10))
    ledger = client.ledger()
    assert (ledger["requests_received"], ledger["batches_open"], ledger["billed_items"]) == (10, 1, 0)


def test_own_paths_know_no_faults(start: Start) -> None:
    """Health can be read by anybody, the books by who has the key; neither is counted as a call."""
    client = start(key="test-key", error_rate=1.0)
    health = httpx.get(f"{client.emulator.url}/emulator/health").json()
    assert (health["status"], health["dialect"], health["pid"]) == ("ok", "holysheep", client.emulator.pid)
    assert client.ledger()["calls"] == 0


def test_rows_are_streamed_completely(start: Start) -> None:
    """Across several pages of the database, in order."""
    client = start(latency=0.0)
    client.submit(requests_for(2500))
    assert [row["number"] for row in client.billed()] == list(range(1, 2501))
