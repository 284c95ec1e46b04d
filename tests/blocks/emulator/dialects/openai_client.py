"""A plain HTTP client for the tests of the OpenAI dialect."""

from collections.abc import Sequence
from typing import Any, Self

import httpx
import orjson

from blocks.emulator import RunningEmulator
from tests.blocks.emulator.client import PATIENCE, SCHEMA, wait_until

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
MODEL = "gpt-4.1-mini"
Json = dict[str, Any]


def chat_body(prompt: str, schema: object = SCHEMA, model: str = MODEL) -> Json:
    form = {"type": "json_schema", "json_schema": {"name": "label", "strict": True, "schema": schema}}
    messages = [{"role": "system", "content": "You label reviews."}, {"role": "user", "content": prompt}]
    return {"model": model, "messages": messages, **({"response_format": form} if schema else {})}


def response_body(prompt: str, schema: object = SCHEMA, model: str = MODEL) -> Json:
    form = {"format": {"type": "json_schema", "name": "label", "strict": True, "schema": schema}}
    return {"model": model, "instructions": "You label reviews.", "input": prompt, "text": form}


def row(custom_id: str, body: Json, url: str = CHAT) -> Json:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def rows_for(count: int, attempt: int = 1, first: int = 0) -> list[Json]:
    """Different prompts with a schema; the ids say which attempt it is."""
    return [
        row(f"testrun0-{number}-{attempt}", chat_body(f"Review {number}: the sound is great"))
        for number in range(first, first + count)
    ]


def jsonl(rows: Sequence[Json]) -> bytes:
    return b"".join(orjson.dumps(each, option=orjson.OPT_APPEND_NEWLINE) for each in rows)


class OpenAi:
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

    def send(self, content: bytes, name: str = "batch.jsonl", **fields: str) -> httpx.Response:
        return self.http.post("/files", data={"purpose": "batch", **fields}, files={"file": (name, content)})

    def upload(self, content: bytes, name: str = "batch.jsonl") -> str:
        response = self.send(content, name)
        assert response.status_code == 200, response.text
        return str(response.json()["id"])

    def create(self, file_id: str, **fields: Any) -> httpx.Response:
        wanted = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h", **fields}
        return self.http.post("/batches", json=wanted)

    def submit(self, content: bytes | Sequence[Json], **fields: Any) -> str:
        """Uploads and creates; the batch's id."""
        response = self.create(self.upload(content if isinstance(content, bytes) else jsonl(content)), **fields)
        assert response.status_code == 200, response.text
        return str(response.json()["id"])

    def batch(self, batch_id: str) -> Json:
        response = self.http.get(f"/batches/{batch_id}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    def wait_for(self, batch_id: str, status: str = "completed") -> Json:
        wait_until(lambda: self.batch(batch_id)["status"] == status)
        return self.batch(batch_id)

    def content(self, file_id: str) -> bytes:
        response = self.http.get(f"/files/{file_id}/content")
        assert response.status_code == 200, response.text
        return response.content

    def lines(self, file_id: str | None) -> list[Json]:
        """Of an output or error file; none if there is no file."""
        return [orjson.loads(line) for line in self.content(file_id).splitlines()] if file_id else []

    def results(self, batch_id: str) -> tuple[list[Json], list[Json]]:
        """Lines of the output file and of the error file."""
        batch = self.batch(batch_id)
        return self.lines(batch["output_file_id"]), self.lines(batch["error_file_id"])

    def cancel(self, batch_id: str) -> httpx.Response:
        return self.http.post(f"/batches/{batch_id}/cancel")

    def ledger(self) -> Json:
        return dict(httpx.get(f"{self.emulator.url}/emulator/ledger", timeout=PATIENCE).json())
