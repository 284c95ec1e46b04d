"""The bodies of batches: frozen requests, rendered and encoded to a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path

import pyarrow as pa

from blocks.batch import BatchCodec, EncodedBatch
from blocks.errors import StateError
from flows.domain.corrections import corrected
from flows.domain.custom_ids import LONGEST_ID, custom_id
from flows.domain.events import Slice
from flows.domain.prompts import Prompt, Unrenderable
from flows.storage.files import open_plain
from flows.storage.requests import FrozenRequests
from flows.storage.source import column_values

Corrections = Callable[[int], Mapping[int, str]]  # by batch: by request, what was wrong with its answer
_NONE: dict[int, str] = {}


# JSON takes them as they are, and some servers split lines at them.
_LINE_ENDS = (("\u2028".encode(), rb"\u2028"), ("\u2029".encode(), rb"\u2029"), ("\u0085".encode(), rb"\u0085"))


def request_bytes(codec: BatchCodec, prompt: str) -> int:
    """Bytes that a request with this prompt takes in a batch, under the longest custom_id."""
    return len(without_line_ends(codec.encode(LONGEST_ID, prompt))) + len(codec.separator)


def without_line_ends(encoded: bytes) -> bytes:
    """The same JSON with signs escaped that only some readers take for the end of a line."""
    if encoded.isascii():
        return encoded
    for sign, escaped in _LINE_ENDS:
        encoded = encoded.replace(sign, escaped)
    return encoded


def _corrected(prompt: str, reason: str | None) -> str:
    return prompt if reason is None else corrected(prompt, reason)


class BatchWriter:
    """Renders and encodes batches. The same slices always give the same bytes."""

    def __init__(self, requests: FrozenRequests, corrections: Corrections, prompt: Prompt, codec: BatchCodec) -> None:
        self._requests = requests
        self._corrections = corrections
        self._prompt = prompt
        self._codec = codec

    def write(self, path: Path, tag: str, slices: list[Slice]) -> EncodedBatch:
        """Write the body of the batch with this tag."""
        digest, size = sha256(), 0
        with os.fdopen(open_plain(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            for chunk in self._chunks(tag, slices):
                digest.update(chunk)
                size += file.write(chunk)
        return EncodedBatch(path, sum(piece.requests for piece in slices), size, digest.hexdigest(), tag)

    def _chunks(self, tag: str, slices: list[Slice]) -> Iterator[bytes]:
        separator = self._codec.separator
        yield without_line_ends(self._codec.head)
        lead = b""
        for lines in self._encoded(tag, slices):
            yield lead + without_line_ends(separator.join(lines))
            lead = separator
        yield self._codec.tail

    def _encoded(self, tag: str, slices: list[Slice]) -> Iterator[list[bytes]]:
        encode = self._codec.encode
        failed = {piece.after for piece in slices if piece.after is not None}  # few, and each is a file to read
        corrections = {batch: self._corrections(batch) for batch in failed}
        for table, numbered in self._requests.read_values(slices, self._prompt.columns):
            yield [
                encode(
                    custom_id(tag, number, piece.attempt),
                    _corrected(prompt, corrections.get(piece.after or 0, _NONE).get(number)),
                    longer=piece.longer,
                )
                for prompt, (number, piece) in zip(self._prompts(table), numbered, strict=True)
            ]

    def _prompts(self, table: pa.Table) -> list[str]:
        prompts = self._prompt.render([column_values(column) for column in table.columns])
        for prompt in prompts:
            if isinstance(prompt, Unrenderable):
                raise StateError(f"a planned request can no longer be rendered: {prompt.reason}")
        return [prompt for prompt in prompts if isinstance(prompt, str)]
