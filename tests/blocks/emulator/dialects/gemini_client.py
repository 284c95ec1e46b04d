"""A plain HTTP client for the tests of the Gemini dialect."""

from collections.abc import Sequence
from typing import Any, Self

import httpx
import orjson

from blocks.emulator import RunningEmulator
from tests.blocks.emulator.client import PATIENCE, SCHEMA, wait_until
from tests.blocks.emulator.dialects.openai_client import jsonl

MODEL = "gemini-2.5-flash"
Json = dict[str, Any]


def request(prompt: str, schema: object = SCHEMA, **config: Any) -> Json:
    """A GenerateContentRequest."""
    if schema:
        config |= {"responseMimeType": "application/json", "responseJsonSchema": schema}
    return {
        "systemInstruction": {"parts": [{"text": "You label reviews."}]},
        "contents": [{"role": "user", "parts": [{"text": prompt}]}],
        "generationConfig": config,
    }


def row(key: str, wanted: Json) -> Json:
    return {"key": key, "request": wanted}


def rows_for(count: int, attempt: int = 1, first: int = 0) -> list[Json]:
    """Different prompts with a schema; the keys say which attempt it is."""
    return [
        row(f"testrun0-{number}-{attempt}", request(f"Review {number}: the sound is great"))
        for number in range(first, first + count)
    ]


def inlined(rows: Sequence[Json]) -> list[Json]:
    """The same without a file."""
    return [{"request": each["request"], "metadata": {"key": each["key"]}} for each in rows]


class Gemini:
    """Talks to one emulator with a key that it accepts."""

    def __init__(self, emulator: RunningEmulator, key: str = "test-key", version: str = "v1beta") -> None:
        self.emulator = emulator
        self.version = version
        self.http = httpx.Client(base_url=emulator.base_url, headers={"x-goog-api-key": key}, timeout=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def begin_upload(self, size: int | None = None, **file: Any) -> httpx.Response:
        headers = {"x-goog-upload-protocol": "resumable", "x-goog-upload-command": "start"}
        if size is not None:
            headers["x-goog-upload-header-content-length"] = str(size)
        return self.http.post(f"/upload/{self.version}/files", headers=headers, json={"file": file})

    def send(self, url: str, content: bytes, offset: int = 0, command: str = "upload, finalize") -> httpx.Response:
        headers = {"x-goog-upload-command": command, "x-goog-upload-offset": str(offset)}
        return httpx.post(url, headers=headers, content=content, timeout=PATIENCE)

    def upload(self, content: bytes, **file: Any) -> Json:
        url = self.begin_upload(len(content), **file).headers["x-goog-upload-url"]
        response = self.send(url, content)
        assert response.status_code == 200, response.text
        return dict(response.json()["file"])

    def create(self, source: str | Sequence[Json], name: str = "run1-1", **batch: Any) -> httpx.Response:
        """Of a file by its name, or of rows without one."""
        config = {"fileName": source} if isinstance(source, str) else {"requests": {"requests": inlined(source)}}
        wanted = {"batch": {"displayName": name, "inputConfig": config, **batch}}
        return self.http.post(f"/{self.version}/models/{MODEL}:batchGenerateContent", json=wanted)

    def submit(self, source: str | Sequence[Json], name: str = "run1-1") -> str:
        response = self.create(source, name)
        assert response.status_code == 200, response.text
        return str(response.json()["name"])

    def submit_file(self, content: bytes | Sequence[Json], name: str = "run1-1") -> str:
        content = content if isinstance(content, bytes) else jsonl(content)
        return self.submit(str(self.upload(content)["name"]), name)

    def batch(self, name: str) -> Json:
        response = self.http.get(f"/{self.version}/{name}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    def state(self, name: str) -> str:
        return str(self.batch(name)["metadata"]["state"])

    def wait_for(self, name: str, state: str = "BATCH_STATE_SUCCEEDED") -> Json:
        wait_until(lambda: self.state(name) == state)
        return self.batch(name)

    def listed(self, **query: Any) -> Json:
        response = self.http.get(f"/{self.version}/batches", params=query)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def download(self, name: str) -> httpx.Response:
        return self.http.get(f"/{self.version}/{name}:download", params={"alt": "media"})

    def results(self, name: str) -> list[Json]:
        """Rows of a batch that has ended, by either way."""
        output = self.batch(name)["metadata"].get("output", {})
        if "responsesFile" in output:
            return [orjson.loads(line) for line in self.download(output["responsesFile"]).content.splitlines()]
        return list(output.get("inlinedResponses", {}).get("inlinedResponses", []))

    def ledger(self) -> Json:
        return dict(httpx.get(f"{self.emulator.url}/emulator/ledger", timeout=PATIENCE).json())
