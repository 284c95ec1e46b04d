"""OpenAI's published description judges all three: the emulator, our client, and what the real service once said.

The description and the recordings are no part of this repository: see `tests.shared`.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import jsonschema_rs
import orjson
import pytest

from blocks.batch import BatchPhase
from blocks.emulator import EmulatorOptions, running_emulator
from blocks.errors import UnknownOutcome
from tests.blocks.contract import (
    CREATE,
    FORM,
    PROMPTS,
    WAYS,
    Exchange,
    breaking,
    client_of,
    encode_prompts,
    pass_on,
    wait_for,
    wired,
)
from tests.blocks.emulator.dialects.openai_client import Json, OpenAi, jsonl, rows_for
from tests.shared import require_shared

SPEC = require_shared("specs/openai-files-batches.nullable.json")
Start = Callable[..., OpenAi]


@contextmanager
def started(**options: Any) -> Iterator[OpenAi]:
    with running_emulator(EmulatorOptions(dialect="openai", **options)) as emulator, OpenAi(emulator) as client:
        yield client


@pytest.fixture(scope="module")
def plain() -> Iterator[OpenAi]:
    """An emulator without faults, whose batches end at the first look; shared by the tests of this module."""
    with started(latency=0.0) as client:
        yield client


class Description:
    """What the description says of calls. Errors are ValueErrors of the validator, or assertions."""

    def __init__(self, content: Json) -> None:
        self._paths: Json = content["paths"]
        self._components: Json = content["components"]

    def check(self, name: str, value: object) -> None:
        """Whether a value fits the schema of that name."""
        self._validate({"$ref": f"#/components/schemas/{name}"}, value)

    def check_exchange(self, exchange: Exchange) -> str:
        """Whether both sides keep to the description; returns which operation it was."""
        address = urlsplit(exchange.path)
        template, operation = self._operation(exchange.method.lower(), address.path.removeprefix("/v1"))
        known = {each["name"]: each["schema"] for each in operation.get("parameters", []) if each["in"] == "query"}
        for name, text in parse_qsl(address.query):
            self._validate(known[name], int(text) if known[name].get("type") == "integer" else text)
        asked = operation.get("requestBody", {}).get("content", {})
        if "application/json" in asked:
            self._validate(asked["application/json"]["schema"], orjson.loads(exchange.body))
        (answer,) = operation["responses"]["200"]["content"].values()
        is_text = answer["schema"].get("type") == "string"
        self._validate(answer["schema"], exchange.answer.decode() if is_text else orjson.loads(exchange.answer))
        return f"{exchange.method} {template}"

    def _operation(self, method: str, path: str) -> tuple[str, Json]:
        for template, methods in self._paths.items():
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) and method in methods:
                return template, methods[method]
        raise AssertionError(f"{method} {path} is not described")

    def _validate(self, schema: Json, value: object) -> None:
        jsonschema_rs.validate({**schema, "components": self._components}, value)


@pytest.fixture(scope="module")
def description() -> Description:
    return Description(orjson.loads(SPEC.read_bytes()))


# --- the emulator

ENDS = {"completed", "expired", "failed", "cancelled"}


def test_batches_of_every_kind_fit(description: Description) -> None:
    """Whatever state they are in, single or listed, the service's own description accepts them."""
    with started(latency=1.0, fail_batch_every=4, expire_every=3, failure_rate=0.2) as client:
        ids = [client.submit(rows_for(20), metadata={"a": "b"}) for _ in range(4)]
        ids.append(client.submit(b"x\n"))
        seen = {client.cancel(client.submit(rows_for(5))).json()["status"]}
        while not seen >= ENDS:
            listed = client.http.get("/batches").json()
            description.check("ListBatchesResponse", listed)
            for batch in [*listed["data"], *map(client.batch, ids)]:
                description.check("Batch", batch)
                seen.add(batch["status"])
        assert {"validating", "in_progress", "finalizing", "cancelling"} & seen


def test_files_fit(plain: OpenAi, description: Description) -> None:
    """Single, listed and deleted, by the service's own description."""
    batch = plain.batch(plain.submit(rows_for(2)))
    description.check("OpenAIFile", plain.http.get(f"/files/{batch['output_file_id']}").json())
    description.check("ListFilesResponse", plain.http.get("/files").json())
    description.check("DeleteFileResponse", plain.http.delete(f"/files/{batch['input_file_id']}").json())


# --- our client


def test_everything_that_the_client_and_the_emulator_say_to_each_other_fits(
    tmp_path: Path, description: Description
) -> None:
    """Sent, lost, looked for in lists, polled, cancelled, read from both files."""
    way = next(way for way in WAYS if way.provider == "openai")
    options = EmulatorOptions(dialect="openai", latency=1.0, failure_rate=0.3)
    with running_emulator(options) as emulator, wired(emulator) as wire:
        provider = client_of(way, wire.base_url)
        batches = [encode_prompts(way.codec(FORM), tmp_path, PROMPTS) for _ in range(2)]
        sent = provider.submit(batches[0], FORM)
        wire.after = breaking(CREATE)
        with pytest.raises(UnknownOutcome):
            provider.submit(batches[1], FORM)
        wire.after = pass_on
        lost = provider.find(batches[1], FORM)
        assert lost is not None
        provider.cancel(lost.id)
        assert wait_for(provider, sent).phase is wait_for(provider, lost.id).phase is BatchPhase.ENDED
        assert len(list(provider.results(sent, FORM))) == len(PROMPTS)
        provider.close()
    operations = {description.check_exchange(exchange) for exchange in wire.seen}
    assert operations == {
        "POST /files", "GET /files/{file_id}/content",
        "POST /batches", "GET /batches", "GET /batches/{batch_id}", "POST /batches/{batch_id}/cancel",
    }  # fmt: skip


# --- the real service


def recorded_exchanges() -> Iterator[Exchange]:
    """Bodies of uploads are not on record as they were."""
    for path in sorted(require_shared("recorded/openai").glob("*.json")):
        for each in orjson.loads(path.read_bytes()):
            asked, said = each["request"], each["response"]
            answer = said["body"].encode() if isinstance(said["body"], str) else orjson.dumps(said["body"])
            yield Exchange(asked["method"], asked["path"], orjson.dumps(asked["body"]), said["status"], answer)


def test_every_recording_fits(description: Description) -> None:
    """So the description is fit to judge the emulator by."""
    exchanges = list(recorded_exchanges())
    assert {exchange.status for exchange in exchanges} == {200}
    assert {description.check_exchange(exchange) for exchange in exchanges} == {
        "POST /files", "GET /files/{file_id}", "DELETE /files/{file_id}", "GET /files/{file_id}/content",
        "POST /batches", "GET /batches", "GET /batches/{batch_id}", "POST /batches/{batch_id}/cancel",
    }  # fmt: skip


def test_a_mistake_does_not_fit(description: Description) -> None:
    """Every member that is required is missed, and a status must be one of those that there are."""
    exchange = next(each for each in recorded_exchanges() if each.path == "/v1/batches" and each.method == "POST")
    batch = orjson.loads(exchange.answer)
    for name in ("id", "object", "endpoint", "input_file_id", "completion_window", "status", "created_at"):
        with pytest.raises(jsonschema_rs.ValidationError):
            description.check("Batch", {key: value for key, value in batch.items() if key != name})
    with pytest.raises(jsonschema_rs.ValidationError):
        description.check("Batch", {**batch, "status": "reticulating"})
    with pytest.raises(jsonschema_rs.ValidationError):
        description.check("Batch", {**batch, "created_at": "2026-01-31"})


@pytest.mark.parametrize(
    ("recording", "ours"),
    [
        ("batches_create", lambda client: client.create(client.upload(jsonl(rows_for(1))))),
        ("batches_retrieve", lambda client: client.http.get(f"/batches/{client.submit(rows_for(1))}")),
        ("batches_list", lambda client: client.http.get("/batches")),
        ("files_upload_file", lambda client: client.send(b"{}")),
        ("files_retrieve", lambda client: client.http.get(f"/files/{client.upload(b'{}')}")),
        ("files_delete", lambda client: client.http.delete(f"/files/{client.upload(b'{}')}")),
    ],
)
def test_recorded_fields_are_there(plain: OpenAi, recording: str, ours: Callable[[OpenAi], httpx.Response]) -> None:
    """Headers, fields and their types are those that the real API was recorded with."""
    recorded = orjson.loads(require_shared(f"recorded/openai/{recording}.json").read_bytes())[-1]["response"]
    answer = ours(plain)
    assert answer.status_code == recorded["status"]
    assert recorded["headers"].keys() <= answer.headers.keys()
    assert recorded["body"].keys() <= answer.json().keys()
    for name, value in recorded["body"].items():
        assert value is None or isinstance(answer.json()[name], type(value)), name
