"""Answers that the real service gave, replayed through the codec and over a socket.

The recordings are no part of this repository: see `tests.shared`.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from blocks.batch import BatchPhase, EncodedBatch, Found, RequestForm, Usage
from blocks.errors import AuthenticationFailed, NotFound, UnknownOutcome
from blocks.providers.anthropic.batches import Anthropic
from blocks.providers.anthropic.codec import AnswerReader, AnthropicCodec, read_page, read_status, size_of
from blocks.providers.lenient import id_of
from tests.blocks.scripted import Say, serving
from tests.shared import require_shared

FORM = RequestForm("claude-3-haiku-20240307", None, None, 100)
RECORDED = require_shared("recorded")

CAPITALS = ["Des Moines", "Albany", "Sacramento", "Austin"]


def exchanges(pattern: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The recorded (request, response) pairs of the files that match."""
    paths = sorted((RECORDED / "anthropic").glob(pattern))
    assert paths, f"no recording is called {pattern}"
    for path in paths:
        for exchange in json.loads(path.read_text()):
            yield exchange["request"], exchange["response"]


def first(pattern: str) -> tuple[dict[str, Any], Say]:
    """The first exchange: what was asked, and the answer to be given again."""
    request, response = next(exchanges(pattern))
    body = response["body"]
    return request, Say(response["status"], body.encode() if isinstance(body, str) else body)


def batches() -> Iterator[dict[str, Any]]:
    """Every batch object on record, alone or in a list."""
    for _, response in exchanges("*.json"):
        body = response["body"]
        found = body.get("data", [body]) if isinstance(body, dict) else []
        yield from (item for item in found if item["type"] == "message_batch")


def test_every_recorded_batch_is_read() -> None:
    """Its id, its time, a phase that fits its results, and a size that its counters add up to."""
    seen = set()
    for batch in batches():
        status = read_status(batch)
        assert (status.id, status.wording, status.error) == (batch["id"], batch["processing_status"], None)
        assert status.created_at == datetime.fromisoformat(batch["created_at"])
        assert (status.phase is BatchPhase.ENDED) == (batch["results_url"] is not None)
        assert size_of(batch) == sum(batch["request_counts"].values())
        seen.add(status.wording)
    assert seen == {"in_progress", "canceling", "ended"}


def test_recorded_lists_are_pages() -> None:
    """Newest first; the last of one is where the next goes on."""
    for pattern in ("*batch_messages_list.json", "batch_list*.json"):
        for _, response in exchanges(pattern):
            items, more = read_page(response["body"])
            assert more is response["body"]["has_more"]
            assert (id_of(items[0]), id_of(items[-1])) == (response["body"]["first_id"], response["body"]["last_id"])
            times = [str(item["created_at"]) for item in items]
            assert times == sorted(times, reverse=True)


def test_our_requests_have_the_form_of_recorded_ones() -> None:
    """The service took these bodies; ours is the same, to the last name."""
    for pattern in ("batch_create.json", "2024-10_batch_messages.json"):
        request, _ = first(pattern)
        recorded = request["body"]["requests"]
        models = [(item["params"]["model"], item["params"]["max_tokens"]) for item in recorded]
        forms = [AnthropicCodec(RequestForm(model, max_output_tokens=most)) for model, most in models]
        items = [
            form.encode(item["custom_id"], item["params"]["messages"][0]["content"])
            for form, item in zip(forms, recorded, strict=True)
        ]
        assert json.loads(forms[0].head + forms[0].separator.join(items) + forms[0].tail) == request["body"]


def test_the_recorded_answers_are_what_the_client_understands(tmp_path: Path) -> None:
    """Over a socket: create, poll, cancel, results, and results asked for too early."""
    names = ["batch_create.json", "batch_get.json", "batch_cancel.json"]
    requests, answers = zip(*map(first, names), strict=True)
    _, ended = first("2024-10_batch_messages_get.json")
    _, results = first("2024-10_batch_messages_results.json")
    _, early = first("batch_results.json")
    body = json.dumps(requests[0]["body"]).encode()
    (tmp_path / "body").write_bytes(body)
    with serving(*answers, ended, results, ended, early) as server:
        provider = Anthropic("sk-ant-test", server.url)
        assert provider.submit(EncodedBatch(tmp_path / "body", 2, len(body), "hash", "t"), FORM).startswith("msgbatch_")
        assert provider.poll(requests[1]["path"].split("/")[-1]).wording == "in_progress"
        assert provider.cancel(requests[2]["path"].split("/")[-2]).wording == "canceling"
        found = list(provider.results("msgbatch_1", FORM))
        with pytest.raises(NotFound, match="no available results"):
            list(provider.results("msgbatch_1", FORM))
        provider.close()
    asked = [(asked.method, asked.path) for asked in server.asked]
    assert asked[:3] == [(request["method"], request["path"]) for request in requests]
    assert server.asked[0].body == body
    assert [answer.custom_id for answer in found] == ["first-prompt-in-my-batch", "second-prompt-in-my-batch"]
    assert [answer.usage for answer in found] == [Usage(20, 80), Usage(20, 61)]
    assert all(answer.text and "fun" in answer.text for answer in found)


@pytest.mark.parametrize("name", ["error_logging.json", "http_post_with_error_response.json"])
def test_a_recorded_refusal_is_understood(name: str) -> None:
    """A wrong key."""
    with serving(first(name)[1]) as server:
        provider = Anthropic("sk-ant-test", server.url)
        with pytest.raises(AuthenticationFailed, match="invalid x-api-key") as caught:
            provider.poll("msgbatch_1")
        assert caught.value.code == "authentication_error"
        provider.close()


def test_a_batch_is_found_in_a_recorded_list() -> None:
    """Once the ones that run have ended; their results are the recorded ones."""
    _, page = first("batch_list.json")
    _, results = first("2024-10_batch_messages_results.json")
    running = [item for item in page.body["data"] if item["results_url"] is None]
    ended = [item for item in page.body["data"] if item["results_url"] is not None]
    sent = datetime.fromisoformat(running[0]["created_at"]).timestamp()
    lost = EncodedBatch(Path("body"), 2, 9, "hash", "first-prompt", sent_at=sent)
    with serving(Say(body={"data": running, "has_more": False})) as server:
        provider = Anthropic("sk-ant-test", server.url)
        with pytest.raises(UnknownOutcome, match=running[0]["id"]):
            provider.find(lost, FORM)
        provider.close()
    with serving(Say(body={"data": ended[:1], "has_more": False}), results) as server:
        provider = Anthropic("sk-ant-test", server.url)
        assert provider.find(lost, FORM) == Found(ended[0]["id"])
        provider.close()


def test_recorded_results_are_answers() -> None:
    """Of Claude Sonnet 5, with `{}` where the service said null."""
    recorded = json.loads((RECORDED / "states" / "state-capitals-anthropic.json").read_text())
    status = read_status(recorded["batch"])
    assert (status.phase, status.error) == (BatchPhase.ENDED, None)
    reader = AnswerReader(FORM)
    for number, (result, capital) in enumerate(zip(recorded["results"], CAPITALS, strict=True)):
        answer = reader.read({"custom_id": f"run-{number}-1", "result": result})
        assert answer is not None
        assert (answer.custom_id, answer.failure) == (f"run-{number}-1", None)
        assert capital in (answer.text or "")
        told = result["message"]["usage"]
        assert answer.usage == Usage(told["input_tokens"], told["output_tokens"])
