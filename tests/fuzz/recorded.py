"""What an emulator said of one batch, played back with changes, without a socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from blocks.batch import Answer, BatchProvider, BatchStatus
from blocks.emulator import EmulatorOptions, running_emulator
from blocks.emulator.wire.tampering import tampered, tampered_rows
from tests.blocks.contract import FORM, KEY, PROMPTS, Way, client_of, encode_prompts, wait_for

FAULTS: dict[str, Any] = {
    "failure_rate": 0.1,
    "invalid_rate": 0.1,
    "length_rate": 0.1,
    "refusal_rate": 0.1,
    "duplicate_rate": 0.2,
}
Spoil = Callable[[str, bytes], bytes]  # (path, content)


@dataclass(frozen=True)
class Said:
    """One answer of the provider."""

    status: int
    headers: dict[str, str]
    content: bytes


class Recorder(httpx.BaseTransport):
    """Hands on, and keeps what was said last to each call."""

    def __init__(self) -> None:
        self.said: dict[str, Said] = {}
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
        content = response.read()
        kept = {name: value for name, value in response.headers.items() if name in {"content-type", "date"}}
        self.said[_call(request)] = Said(response.status_code, kept, content)
        return httpx.Response(response.status_code, headers=kept, stream=httpx.ByteStream(content))

    def close(self) -> None:
        """Called by httpx."""
        self._inner.close()


def _call(request: httpx.Request) -> str:
    return f"{request.method} {request.url.raw_path.decode()}"


@dataclass(frozen=True)
class Recorded:
    """A batch that has ended, and all that the provider says when it is looked at and its answers are read."""

    way: Way
    base_url: str
    batch_id: str
    said: dict[str, Said]
    answers: list[Answer]

    def client(self, spoil: Spoil) -> BatchProvider:
        """A client that hears all this, spoilt."""

        def play(request: httpx.Request) -> httpx.Response:
            said = self.said.get(_call(request))
            if said is None:
                return httpx.Response(404, stream=httpx.ByteStream(b'{"error": {"message": "no such thing"}}'))
            spoilt = httpx.ByteStream(spoil(_call(request), said.content))
            return httpx.Response(said.status, headers=said.headers, stream=spoilt)

        client = client_of(self.way, self.base_url)
        _replace(client, httpx.MockTransport(play))
        return client

    def read(self, spoil: Spoil) -> tuple[BatchStatus, list[Answer]]:
        """What the client makes of it. Raises ProviderErrors."""
        client = self.client(spoil)
        try:
            return client.poll(self.batch_id), list(client.results(self.batch_id, FORM))
        finally:
            client.close()


def _replace(client: BatchProvider, transport: httpx.BaseTransport) -> None:
    http = client._http  # type: ignore[attr-defined]  # of every client of ours
    inner = http._client
    http._client = httpx.Client(transport=transport, base_url=inner.base_url, headers=inner.headers)
    inner.close()


def tampered_answer(options: EmulatorOptions, content: bytes, reading: int) -> bytes:
    """An answer of the provider, its results changed as the emulator would, be they lines or rows within a JSON."""
    try:
        whole = orjson.loads(content)
    except orjson.JSONDecodeError:
        return tampered(options, content, reading)
    return orjson.dumps(_tampered_within(options, whole, reading))


def _tampered_within(options: EmulatorOptions, value: Any, reading: int) -> Any:
    if isinstance(value, list) and value and all(map(_is_result, value)):
        return tampered_rows(options, value, reading)
    if isinstance(value, dict):
        return {name: _tampered_within(options, each, reading) for name, each in value.items()}
    return value


def _is_result(row: Any) -> bool:
    return isinstance(row, dict) and bool({"custom_id", "key", "metadata"}.intersection(row))


def record(way: Way, folder: Path) -> Recorded:
    """Send a batch to an emulator with a few faults, and listen."""
    options = EmulatorOptions(dialect=way.dialect, key=KEY, latency=0, seed=4, state=folder / "state.sqlite", **FAULTS)
    with running_emulator(options) as emulator:
        client, recorder = client_of(way, emulator.base_url), Recorder()
        batch = encode_prompts(way.codec(FORM), folder, PROMPTS, "abcd2345-7")
        batch_id = client.submit(batch, FORM)
        wait_for(client, batch_id)
        _replace(client, recorder)
        client.poll(batch_id)
        answers = list(client.results(batch_id, FORM))
        client.close()
    return Recorded(way, emulator.base_url, batch_id, recorder.said, answers)
