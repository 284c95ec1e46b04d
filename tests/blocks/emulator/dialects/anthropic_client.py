"""A plain HTTP client for the tests of the Anthropic dialect."""

from collections.abc import Sequence
from typing import Any, Self

import httpx
import orjson

from blocks.emulator import RunningEmulator
from tests.blocks.emulator.client import PATIENCE, SCHEMA, wait_until

BATCHES = "/v1/messages/batches"
MODEL = "claude-haiku-4-5"
VERSION, OLD_VERSION = "2026-10-21", "2023-06-01"
Json = dict[str, Any]


def params_for(prompt: str = "Review: the sound is great", schema: object = SCHEMA, **fields: Any) -> Json:
    """Of a request that asks for an answer of that schema; fields that are None are left out."""
    asked = {
        "model": MODEL,
        "max_tokens": 500,
        "system": "You label reviews.",
        "messages": [{"role": "user", "content": prompt}],
        "output_config": {"format": {"type": "json_schema", "schema": schema}} if schema else None,
        **fields,
    }
    return {name: value for name, value in asked.items() if value is not None}


def one(custom_id: str = "a", **fields: Any) -> list[Json]:
    return [{"custom_id": custom_id, "params": params_for(**fields)}]


def rows_for(count: int, attempt: int = 1, first: int = 0, **fields: Any) -> list[Json]:
    """Different prompts with a schema; the ids say which attempt it is."""
    return [
        {"custom_id": f"testrun0-{number}-{attempt}", "params": params_for(f"Review {number}: great sound", **fields)}
        for number in range(first, first + count)
    ]


class Anthropic:
    """Talks to one emulator with a key that it accepts."""

    def __init__(self, emulator: RunningEmulator, key: str = "test-key", version: str = VERSION) -> None:
        self.emulator = emulator
        self.http = httpx.Client(
            base_url=emulator.base_url, headers={"x-api-key": key, "anthropic-version": version}, timeout=PATIENCE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def create(self, requests: Sequence[Json], **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(BATCHES, json={"requests": list(requests)}, headers=sent)

    def submit(self, requests: Sequence[Json], **headers: str) -> str:
        response = self.create(requests, **headers)
        assert response.status_code == 200, response.text
        return str(response.json()["id"])

    def batch(self, batch_id: str) -> Json:
        response = self.http.get(f"{BATCHES}/{batch_id}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    def wait_for(self, batch_id: str, status: str = "ended") -> Json:
        wait_until(lambda: self.batch(batch_id)["processing_status"] == status)
        return self.batch(batch_id)

    def download(self, batch_id: str) -> httpx.Response:
        return self.http.get(f"{BATCHES}/{batch_id}/results")

    def lines(self, batch_id: str) -> list[Json]:
        response = self.download(batch_id)
        assert response.status_code == 200, response.text
        return [orjson.loads(line) for line in response.content.splitlines()]

    def run(self, requests: Sequence[Json], **headers: str) -> dict[str, Json]:
        """Results by custom_id of a batch that is waited for."""
        batch_id = self.submit(requests, **headers)
        self.wait_for(batch_id)
        return {line["custom_id"]: line["result"] for line in self.lines(batch_id)}

    def cancel(self, batch_id: str) -> httpx.Response:
        return self.http.post(f"{BATCHES}/{batch_id}/cancel")

    def ledger(self) -> Json:
        return dict(httpx.get(f"{self.emulator.url}/emulator/ledger", timeout=PATIENCE).json())
