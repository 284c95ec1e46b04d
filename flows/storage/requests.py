"""Frozen requests, read by number: their sizes for cutting batches, their values for rendering prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from blocks.batch import BatchFormat, EncodedBatch
from blocks.errors import StateError
from flows.domain.events import Slice
from flows.domain.prompts import Prompt, Unrenderable
from flows.storage.files import NumberedTable, Numbers, fitting_rows
from flows.storage.plan import VALUE
from flows.storage.source import column_values

Numbered = tuple[int, Slice]  # a request and the slice that it is part of
CACHED_GROUPS = 64  # whose single sizes are in memory: 128 KB each
Corrections = Callable[[int], Mapping[int, str]]  # by batch: by request, what was wrong with its answer
_NONE: dict[int, str] = {}
CHUNK_BYTES = 4 * 1024 * 1024  # of values that are rendered and encoded together: a few times as much is in memory


class FrozenRequests:
    """All generations of requests of an output. Numbers are consecutive over all of them."""

    def __init__(self, files: list[Path]) -> None:
        self._generations = [(int(path.stem), path) for path in files]
        self._groups = self._read_groups()
        self._within = lru_cache(maxsize=CACHED_GROUPS)(self._read_within)

    def fit(self, start: int, stop: int, size: int) -> int:
        """The highest number up to `stop` so that requests from `start` below it take at most `size` bytes."""
        most = self._before(start) + size
        if self._before(stop) <= most:
            return stop
        group = int(np.searchsorted(self._groups.before, most, side="right")) - 1
        inside = int(np.searchsorted(self._within(group), most - self._groups.before[group], side="right")) - 1
        return max(start, min(stop, int(self._groups.start[group]) + inside))

    def total(self, start: int, stop: int) -> int:
        """Bytes of the requests from `start` up to `stop`."""
        return self._before(stop) - self._before(start)

    def _before(self, request: int) -> int:
        """Bytes of all requests below this one."""
        group = self._group_of(request)
        first = int(self._groups.start[group])
        return int(self._groups.before[group]) + (int(self._within(group)[request - first]) if request > first else 0)

    def columns(self, request: int) -> list[str]:
        """The names of the columns that a request was frozen with."""
        names = pq.read_schema(self._path(self._group_of(request))).names
        return [name.removeprefix(VALUE) for name in names if name.startswith(VALUE)]

    def gather(self, slices: list[Slice], columns: list[str]) -> Iterator[tuple[pa.Table, list[Numbered]]]:
        """The frozen values of the slices' requests, in their order, with whose they are."""
        names = [f"{VALUE}{name}" for name in columns]
        for group, members in groupby(self._pieces(slices), key=lambda piece: piece[0]):
            numbered = [(number, part) for _, part in members for number in range(part.start, part.stop)]
            with NumberedTable(self._path(group)) as table:
                rows = table.read_group(int(self._groups.group[group]), names)
            rows, offset = rows.select(names), int(self._groups.start[group])  # in the order that the prompt takes them
            step = fitting_rows(rows, CHUNK_BYTES)
            for start in range(0, len(numbered), step):
                chunk = numbered[start : start + step]
                yield rows.take(pa.array([number - offset for number, _ in chunk])), chunk

    def _pieces(self, slices: list[Slice]) -> Iterator[tuple[int, Slice]]:
        """The slices cut where row groups end, each with its row group."""
        for part in slices:
            start = part.start
            while start < part.stop:
                group = self._group_of(start)
                stop = min(part.stop, int(self._groups.start[group + 1]))
                yield group, part._replace(start=start, stop=stop)
                start = stop

    def _group_of(self, request: int) -> int:
        return int(np.searchsorted(self._groups.start, request, side="right")) - 1

    def _path(self, group: int) -> Path:
        return self._generations[int(self._groups.generation[group])][1]

    def _read_groups(self) -> _Groups:
        found, number, size = [(0, 0, 0, 0)], 0, 0
        for generation, (start, path) in enumerate(self._generations):
            if start != number:
                raise StateError(f"requests before number {start} are missing from {path.parent}")
            with pq.ParquetFile(path) as file:
                for group in range(file.metadata.num_row_groups):
                    found[-1] = (number, size, generation, group)
                    number += file.metadata.row_group(group).num_rows
                    size += pc.sum(file.read_row_group(group, columns=["bytes"]).column(0)).as_py()
                    found.append((number, size, 0, 0))
        return _Groups(*np.array(found, dtype=np.int64).T)

    def _read_within(self, group: int) -> Numbers:
        """At n, the bytes of the group's first n requests."""
        with pq.ParquetFile(self._path(group)) as file:
            sizes = file.read_row_group(int(self._groups.group[group]), columns=["bytes"]).column(0).to_numpy()
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])


class _Groups(NamedTuple):
    """The row groups of all generations, in order, and the end as one more of them: a few bytes for each."""

    start: Numbers  # number of the first request
    before: Numbers  # bytes of all requests below it
    generation: Numbers
    group: Numbers  # within its generation's file


def custom_id(tag: str, request: int, attempt: int) -> str:
    """`<run8>-<batch>-<request>-<attempt>`: unique for ever, and proof of whose answer, and to which sending, it is."""
    return f"{tag}-{request}-{attempt}"


class BatchWriter:
    """Renders and encodes batches to disk. The same slices always give the same bytes."""

    def __init__(self, requests: FrozenRequests, corrections: Corrections, prompt: Prompt, form: BatchFormat) -> None:
        self._requests = requests
        self._corrections = corrections
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
        failed = {part.after for part in slices if part.after is not None}  # few, and each is a file to read
        corrections = {batch: self._corrections(batch) for batch in failed}
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
