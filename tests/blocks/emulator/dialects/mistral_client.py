"""A plain HTTP client for the tests of the Mistral dialect."""

from collections.abc import Sequence
from typing import Any, Self

import httpx
import orjson

from blocks.emulator import RunningEmulator
from tests.blocks.emulator.client import PATIENCE, SCHEMA, wait_until
from tests.blocks.emulator.dialects.openai_client import jsonl

CHAT = "/v1/chat/completions"
MODEL = "mistral-small-latest"
Json = dict[str, Any]


def chat_body(prompt: str, schema: object = SCHEMA, **fields: Any) -> Json:
    form = {"type": "json_schema", "json_schema": {"name": "label", "strict": True, "schema": schema}}
    messages = [{"role": "system", "content": "You label reviews."}, {"role": "user", "content": prompt}]
    return {"messages": messages, **({"response_format": form} if schema else {}), **fields}


def row(custom_id: str | None, body: Json) -> Json:
    return {"custom_id": custom_id, "body": body}


def rows_for(count: int, attempt: int = 1, first: int = 0) -> list[Json]:
    """Different prompts with a schema; the ids say which attempt it is."""
    return [
        row(f"testrun0-{number}-{attempt}", chat_body(f"Review {number}: the sound is great"))
        for number in range(first, first + count)
    ]


class Mistral:
    """Talks to one emulator with a key that it accepts."""

    def __init__(self, emulator: RunningEmulator, key: str = "test-key") -> None:
        self.emulator = emulator
        self.http = httpx.Client(
            base_url=f"{emulator.base_url}/v1", headers={"authorization": f"Bearer {key}"}, timeout=PATIENCE
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

    def create(self, **fields: Any) -> httpx.Response:
        return self.http.post("/batch/jobs", json={"endpoint": CHAT, "model": MODEL, **fields})

    def submit(self, content: bytes | Sequence[Json], **fields: Any) -> str:
        """Uploads and creates; the job's id."""
        file_id = self.upload(content if isinstance(content, bytes) else jsonl(content))
        response = self.create(input_files=[file_id], **fields)
        assert response.status_code == 200, response.text
        return str(response.json()["id"])

    def job(self, job_id: str, **query: str) -> Json:
        response = self.http.get(f"/batch/jobs/{job_id}", params=query)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def jobs(self, **query: Any) -> Json:
        response = self.http.get("/batch/jobs", params=query)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def wait_for(self, job_id: str, status: str = "SUCCESS") -> Json:
        wait_until(lambda: self.job(job_id)["status"] == status)
        return self.job(job_id)

    def content(self, file_id: str) -> bytes:
        response = self.http.get(f"/files/{file_id}/content")
        assert response.status_code == 200, response.text
        return response.content

    def lines(self, file_id: str | None) -> list[Json]:
        """Of an output or error file; none if there is no file."""
        return [orjson.loads(line) for line in self.content(file_id).splitlines()] if file_id else []

    def results(self, job_id: str) -> tuple[list[Json], list[Json]]:
        """Lines of the output file and of the error file."""
        job = self.job(job_id)
        return self.lines(job["output_file"]), self.lines(job["error_file"])

    def ledger(self) -> Json:
        return dict(httpx.get(f"{self.emulator.url}/emulator/ledger", timeout=PATIENCE).json())
