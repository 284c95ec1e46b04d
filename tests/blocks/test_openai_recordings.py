"""Answers that the real services gave, replayed through the codec.

The recordings are no part of this repository: see `tests.shared`.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from blocks.batch import BatchPhase, RequestForm
from blocks.errors import Incomplete
from blocks.providers.lenient import id_of
from blocks.providers.openai.batches import OpenAI
from blocks.providers.openai.codec import CHAT, read_page, read_row, read_status
from tests.blocks.scripted import Say, serving
from tests.shared import require_shared

FORM = RequestForm("gpt-4.1-mini", None, None, 200)
RECORDED = require_shared("recorded")

STATES = ["state-capitals", "state-name", "state-capitals-groq", "state-capitals-groq-structured"]
CAPITALS = ["Des Moines", "Albany", "Sacramento", "Austin"]


def exchanges(pattern: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The recorded (request, response) pairs of the files that match."""
    paths = sorted((RECORDED / "openai").glob(pattern))
    assert paths, f"no recording is called {pattern}"
    for path in paths:
        for exchange in json.loads(path.read_text()):
            yield exchange["request"], exchange["response"]


def batches() -> Iterator[dict[str, Any]]:
    """Every batch object on record, alone or in a list."""
    for _, response in exchanges("batches_*.json"):
        body = response["body"]
        found = body["data"] if body["object"] == "list" else [body]
        yield from (item for item in found if item["object"] == "batch")


def state(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RECORDED / "states" / f"{name}.json").read_text())
    return content


def test_every_recorded_batch_is_read() -> None:
    """Its id, its time, and a phase that fits its files."""
    seen = set()
    for batch in batches():
        status = read_status(batch)
        assert (status.id, status.wording, status.error, status.obstacle) == (
            batch["id"], batch["status"], None, None,
        )  # fmt: skip
        assert status.created_at is not None
        assert status.created_at.timestamp() == batch["created_at"]
        assert (status.phase is BatchPhase.RUNNING) == (status.wording in {"validating", "in_progress", "cancelling"})
        seen.add(status.wording)
    assert {"validating", "cancelling", "cancelled", "completed"} <= seen


def test_recorded_lists_are_pages() -> None:
    """With more to come; the last of one is where the next goes on."""
    lists = [response["body"] for request, response in exchanges("batches_list.json") if request["method"] == "GET"]
    assert lists
    for body in lists:
        items, more = read_page(body)
        assert more is body["has_more"]
        assert id_of(items[-1]) == body["last_id"]
        assert [item["created_at"] for item in items] == sorted((i["created_at"] for i in items), reverse=True)


def test_recorded_uploads_name_an_id() -> None:
    """Which the recorded batch is made from."""
    uploaded = {id_of(response["body"]) for request, response in exchanges("*.json") if request["path"] == "/v1/files"}
    assert "" not in uploaded
    ((order, _),) = exchanges("batches_create.json")
    assert order["body"]["input_file_id"] in uploaded
    assert order["body"]["endpoint"] == CHAT
    assert {"input_file_id", "endpoint", "completion_window"} == set(order["body"])


def test_the_recorded_answers_are_what_the_client_understands() -> None:
    """Over a socket: poll, cancel, and a file that has no answers in it, which says nothing about the requests."""
    ((_, batch),) = exchanges("batches_retrieve.json")
    ((_, cancelled),) = exchanges("batches_cancel.json")
    ((_, content),) = exchanges("files_content.json")
    ended = {**batch["body"], "status": "completed", "output_file_id": "file-1"}
    script = [Say(body=batch["body"]), Say(body=cancelled["body"]), Say(body=ended), Say(body=content["body"].encode())]
    with serving(*script) as server:
        provider = OpenAI("sk-test", f"{server.url}/v1")
        assert provider.poll(batch["body"]["id"]).wording == "validating"
        assert provider.cancel(cancelled["body"]["id"]).wording == "cancelling"
        with pytest.raises(Incomplete, match="in which no line names a request"):
            list(provider.results("batch_1", FORM))
        provider.close()


@pytest.mark.parametrize("name", STATES)
def test_recorded_results_are_answers(name: str) -> None:
    """Chat completions of Groq and responses of OpenAI, with `{}` where the service said null."""
    recorded = state(name)
    status = read_status(recorded["batch"])
    assert (status.phase, status.error) == (BatchPhase.ENDED, None)
    tokens = [0, 0]
    for number, (result, capital) in enumerate(zip(recorded["results"], CAPITALS, strict=True)):
        line = {"id": "batch_req_1", "custom_id": f"run-{number}-1", "response": result, "error": {}}
        answer = read_row(line, FORM)
        assert answer is not None
        assert (answer.custom_id, answer.failure) == (f"run-{number}-1", None)
        assert capital in (answer.text or "")
        assert answer.usage is not None
        tokens = [tokens[0] + answer.usage.input_tokens, tokens[1] + answer.usage.output_tokens]
        assert answer.usage.cached_input_tokens == 0
    if "usage" in recorded["batch"]:
        told = recorded["batch"]["usage"]
        assert tokens == [told["input_tokens"], told["output_tokens"]]
