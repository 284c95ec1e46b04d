"""A plain HTTP client for the tests: says what a test wants to say, hides nothing that a test is about."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import orjson

from blocks.emulator import RunningEmulator

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "sentiment": {"type": "string", "enum": ["positive", "negative", "neutral"]},
        "topics": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["sentiment", "topics"],
    "additionalProperties": False,
}
PATIENCE = 20.0  # seconds that a test waits for what should come at once


class Client:
    """Talks to one emulator with a key that it accepts."""

    def __init__(self, emulator: RunningEmulator, key: str = "test-key") -> None:
        self.emulator = emulator
        self.http = httpx.Client(
            base_url=emulator.base_url, headers={"authorization": f"Bearer {key}"}, timeout=PATIENCE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def create(self, requests: Sequence[dict[str, Any]], key: str | None = None, **fields: Any) -> httpx.Response:
        headers = {"idempotency-key": key} if key else {}
        return self.http.post("/batches", json={"requests": requests, "model": "gpt-4.1", **fields}, headers=headers)

    def submit(self, requests: Sequence[dict[str, Any]], **fields: Any) -> str:
        response = self.create(requests, **fields)
        assert response.status_code == 200, response.text
        return str(response.json()["batch_id"])

    def batch(self, batch_id: str) -> dict[str, Any]:
        response = self.http.get(f"/batches/{batch_id}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    def wait_for(self, batch_id: str, status: str = "completed") -> dict[str, Any]:
        wait_until(lambda: self.batch(batch_id)["status"] == status)
        return self.batch(batch_id)

    def page(self, batch_id: str, offset: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
        response = self.http.get(f"/batches/{batch_id}/results", params={"offset": offset, "limit": limit})
        assert response.status_code == 200, response.text
        return list(response.json()["results"])

    def run(self, requests: Sequence[dict[str, Any]], **fields: Any) -> dict[str, dict[str, Any]]:
        """Items by custom_id of a batch that is waited for."""
        batch_id = self.submit(requests, **fields)
        self.wait_for(batch_id)
        return {item["custom_id"]: item for item in self.page(batch_id)}

    def ledger(self) -> dict[str, Any]:
        return dict(self.http.get(f"{self.emulator.url}/emulator/ledger").json())

    def billed(self) -> list[dict[str, Any]]:
        response = httpx.get(f"{self.emulator.url}/emulator/ledger", params={"rows": 1}, timeout=PATIENCE)
        return [orjson.loads(line) for line in response.text.splitlines()]


def requests_for(count: int, attempt: int = 1, first: int = 0) -> list[dict[str, str]]:
    """Different prompts with a schema; the ids say which attempt it is."""
    return [
        {"custom_id": f"testrun0-{number}-{attempt}", "prompt": prompt_for(f"Review {number}: the sound is great")}
        for number in range(first, first + count)
    ]


def prompt_for(text: str, schema: object = SCHEMA) -> str:
    instruction = f"Answer as JSON that matches this JSON Schema:\n{orjson.dumps(schema).decode()}"
    return f"You label reviews.\n\n{text}\n\n{instruction}"


def peak_memory(emulator: RunningEmulator) -> int:
    """Most bytes that it ever had in memory; only Linux says that."""
    lines = Path(f"/proc/{emulator.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
