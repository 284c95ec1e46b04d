"""Frozen requests, read by number: their sizes for cutting batches, their values for rendering prompts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blocks.batch import BatchFormat, EncodedBatch
from blocks.errors import StateError
from flows.domain.events import Slice
from flows.domain.prompts import Prompt, Unrenderable
from flows.storage.files import NUMBERED_ROWS, NumberedTable
from flows.storage.plan import VALUE
from flows.storage.results import ResultsStore
from flows.storage.source import column_values

Numbered = tuple[int, Slice]  # a request and the slice that it is part of
_NONE: dict[int, str] = {}
CHUNK_BYTES = 4 * 1024 * 1024  # of values that are rendered and encoded together: a few times as much is in memory


class FrozenRequests:
    """All generations of requests of an output. Numbers are consecutive over all of them."""

    def __init__(self, files: list[Path]) -> None:
        self._generations = [(int(path.stem), path) for path in files]
        self._sizes = self._cumulated_sizes()

    def fit(self, start: int, stop: int, size: int) -> int:
        """The highest number up to `stop` so that requests from `start` below it take at most `size` bytes."""
        end = int(np.searchsorted(self._sizes, self._sizes[start] + size, side="right")) - 1
        return max(start, min(stop, end))

    def total(self, start: int, stop: int) -> int:
        """Bytes of the requests from `start` up to `stop`."""
        return int(self._sizes[stop] - self._sizes[start])

    def columns(self, request: int) -> list[str]:
        """The names of the columns that a request was frozen with."""
        starts = [start for start, _ in self._generations]
        _, path = self._generations[bisect_right(starts, request) - 1]
        names = pq.read_schema(path).names
        return [name.removeprefix(VALUE) for name in names if name.startswith(VALUE)]

    def gather(self, slices: list[Slice], columns: list[str]) -> Iterator[tuple[pa.Table, list[Numbered]]]:
        """The frozen values of the slices' requests, in their order, with whose they are."""
        names = [f"{VALUE}{name}" for name in columns]
        for (generation, group), members in groupby(self._pieces(slices), key=lambda piece: piece[0]):
            first, path = self._generations[generation]
            numbered = [(number, part) for _, part in members for number in range(part.start, part.stop)]
            with NumberedTable(path) as table:
                rows = table.read_group(group, names).select(names)  # in the order that the prompt takes them
            offset = first + group * NUMBERED_ROWS
            step = max(1, min(len(numbered), CHUNK_BYTES * rows.num_rows // max(1, rows.nbytes)))
            for start in range(0, len(numbered), step):
                chunk = numbered[start : start + step]
                yield rows.take(pa.array([number - offset for number, _ in chunk])), chunk

    def _pieces(self, slices: list[Slice]) -> Iterator[tuple[tuple[int, int], Slice]]:
        """The slices cut where row groups end, each with its generation and row group."""
        starts = [start for start, _ in self._generations]
        ends = [*starts[1:], len(self._sizes) - 1]
        for part in slices:
            start = part.start
            while start < part.stop:
                generation = bisect_right(starts, start) - 1
                group = (start - starts[generation]) // NUMBERED_ROWS
                stop = min(part.stop, ends[generation], starts[generation] + (group + 1) * NUMBERED_ROWS)
                yield (generation, group), part._replace(start=start, stop=stop)
                start = stop

    def _cumulated_sizes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """At n, the bytes of all requests below n: eight bytes of memory a request."""
        parts = [np.zeros(1, dtype=np.int64)]
        for start, path in self._generations:
            if start != sum(map(len, parts)) - 1:
                raise StateError(f"requests before number {start} are missing from {path.parent}")
            parts.append(pq.read_table(path, columns=["bytes"]).column(0).to_numpy())
        return np.cumsum(np.concatenate(parts))


def custom_id(tag: str, request: int, attempt: int) -> str:
    """`<run8>-<batch>-<request>-<attempt>`: unique for ever, and proof of whose answer, and to which sending, it is."""
    return f"{tag}-{request}-{attempt}"


class BatchWriter:
    """Renders and encodes batches to disk. The same slices always give the same bytes."""

    def __init__(self, requests: FrozenRequests, results: ResultsStore, prompt: Prompt, form: BatchFormat) -> None:
        self._requests = requests
        self._results = results
        self._prompt = prompt
        self._format = form

    def write(self, path: Path, tag: str, slices: list[Slice]) -> EncodedBatch:
        """The body of a batch as a file, with its size and hash."""
        digest, size = sha256(), 0
        with path.open("wb") as file:
            for chunk in self._chunks(tag, slices):
                digest.update(chunk)
                size += file.write(chunk)
        return EncodedBatch(path, sum(part.requests for part in slices), size, digest.hexdigest(), tag)

    def _chunks(self, tag: str, slices: list[Slice]) -> Iterator[bytes]:
        separator = self._format.separator
        yield self._format.head
        lead = b""
        for lines in self._encoded(tag, slices):
            yield lead + separator.join(lines)
            lead = separator
        yield self._format.tail

    def _encoded(self, tag: str, slices: list[Slice]) -> Iterator[list[bytes]]:
        encode = self._format.encode
        corrections = {part.after: self._results.corrections(part.after) for part in slices if part.after is not None}
        for table, numbered in self._requests.gather(slices, self._prompt.columns):
            prompts = self._prompts(table)
            yield [
                encode(
                    custom_id(tag, number, part.attempt),
                    prompt,
                    corrections.get(part.after or 0, _NONE).get(number),
                    longer=part.longer,
                )
                for prompt, (number, part) in zip(prompts, numbered, strict=True)
            ]

    def _prompts(self, table: pa.Table) -> list[str]:
        prompts = self._prompt.render([column_values(column) for column in table.columns])
        for prompt in prompts:
            if isinstance(prompt, Unrenderable):
                raise StateError(f"a request that could be rendered when it was planned can't be now: {prompt.reason}")
        return [prompt for prompt in prompts if isinstance(prompt, str)]
