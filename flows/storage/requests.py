"""Frozen requests, read by number: their sizes for cutting batches, their values for rendering prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import StateError
from flows.domain.events import Slice
from flows.storage.plan import VALUE
from flows.storage.tables import NumberedTable, Numbers, fitting_rows

Numbered = tuple[int, Slice]  # a request and the slice that it is part of
CACHED_GROUPS = 32  # row groups whose single sizes and tokens are in memory, 256 KB each
BYTES, TOKENS = 0, 1  # what is measured of each request
CHUNK_BYTES = 4 * 1024 * 1024  # of values that are rendered and encoded together: a few times as much is in memory


class FrozenRequests:
    """All generations of requests of an output. Numbers are consecutive over all of them."""

    def __init__(self, generations: list[Path]) -> None:
        self._generations = generations
        self._groups = _read_groups(generations)
        self._within = lru_cache(maxsize=CACHED_GROUPS)(self._read_within)

    def fit(self, start: int, stop: int, size: int) -> int:
        """The highest number up to `stop` so that requests from `start` below it take at most `size` bytes."""
        limit = self._before(start) + size
        if self._before(stop) <= limit:
            return stop
        before = self._groups.before[BYTES]
        group = int(np.searchsorted(before, limit, side="right")) - 1
        inside = int(np.searchsorted(self._within(group)[BYTES], limit - before[group], side="right")) - 1
        return max(start, min(stop, int(self._groups.start[group]) + inside))

    def total(self, start: int, stop: int) -> int:
        """Bytes of the requests from `start` up to `stop`."""
        return self._before(stop) - self._before(start)

    def tokens(self, start: int, stop: int) -> int:
        """Input tokens of the requests from `start` up to `stop`, as counted or estimated when they were frozen."""
        return self._before(stop, TOKENS) - self._before(start, TOKENS)

    @property
    def largest(self) -> int:
        """Bytes of the largest request."""
        return self._groups.largest

    def columns(self, request: int) -> list[str]:
        """The names of the columns that a request was frozen with."""
        with _reading(self._path(self._group_of(request))) as table:
            names = table.schema.names
        return [name.removeprefix(VALUE) for name in names if name.startswith(VALUE)]

    def read_values(self, slices: list[Slice], columns: list[str]) -> Iterator[tuple[pa.Table, list[Numbered]]]:
        """The values of the slices' requests in these columns, chunk by chunk, and whose they are, row by row."""
        names = [f"{VALUE}{name}" for name in columns]
        for group, members in groupby(self._pieces(slices), key=lambda member: member[0]):
            numbered = [(number, piece) for _, piece in members for number in range(piece.start, piece.stop)]
            with _reading(self._path(group)) as table:
                rows = table.read_group(int(self._groups.group[group]), names)
            rows, offset = rows.select(names), int(self._groups.start[group])  # in the order of the prompt's columns
            step = fitting_rows(rows, CHUNK_BYTES)
            for start in range(0, len(numbered), step):
                chunk = numbered[start : start + step]
                yield rows.take(pa.array([number - offset for number, _ in chunk])), chunk

    def _pieces(self, slices: list[Slice]) -> Iterator[tuple[int, Slice]]:
        """The slices cut at the ends of row groups, each with its row group."""
        for piece in slices:
            start = piece.start
            while start < piece.stop:
                group = self._group_of(start)
                stop = min(piece.stop, int(self._groups.start[group + 1]))
                yield group, piece._replace(start=start, stop=stop)
                start = stop

    def _before(self, request: int, measure: int = BYTES) -> int:
        """Bytes, or tokens, of all requests below this one."""
        group = self._group_of(request)
        before, inside = int(self._groups.before[measure][group]), request - int(self._groups.start[group])
        return before + (int(self._within(group)[measure][inside]) if inside else 0)

    def _group_of(self, request: int) -> int:
        return int(np.searchsorted(self._groups.start, request, side="right")) - 1

    def _path(self, group: int) -> Path:
        return self._generations[int(self._groups.generation[group])]

    def _read_within(self, group: int) -> Numbers:
        """At n, the bytes and the tokens of the group's first n requests."""
        with _reading(self._path(group)) as table:
            measured = table.read_group(int(self._groups.group[group]), ["bytes", "tokens"])
        sums = [np.cumsum(column.to_numpy()) for column in measured.columns]
        return np.pad(np.array(sums, dtype=np.int64), ((0, 0), (1, 0)))


def count_requests(generations: Sequence[Path]) -> int:
    """How many requests these files hold: the number that the next one gets."""
    total = 0
    for path in generations:
        with _reading(path) as table:
            total += table.rows
    return total


@contextmanager
def _reading(path: Path) -> Iterator[NumberedTable]:
    """Open a generation. Raises StateError if it is damaged where it is read."""
    try:
        with NumberedTable(path) as table:
            yield table
    except (OSError, pa.ArrowInvalid) as error:
        raise StateError(
            f"the frozen requests in {path} are damaged: {str(error).splitlines()[0]}",
            next_step="restore the state directory from a backup; nothing was sent since",
        ) from error


class _Groups(NamedTuple):
    """The row groups of all generations in order, with the end as one more: a few bytes for each."""

    start: Numbers  # number of the first request
    before: Numbers  # bytes and tokens of all requests below it: two rows
    generation: Numbers
    group: Numbers  # within the file of its generation
    largest: int  # bytes of a request


def _read_groups(generations: list[Path]) -> _Groups:
    found, before, number, largest = [(0, 0, 0)], [np.zeros(2, dtype=np.int64)], 0, 0
    for generation, path in enumerate(generations):
        if int(path.stem) != number:
            raise StateError(f"requests before number {int(path.stem)} are missing from {path.parent}")
        with _reading(path) as table:
            for group in range(table.groups):
                found[-1] = (number, generation, group)
                measured = table.read_group(group, ["bytes", "tokens"])
                number += len(measured)
                largest = max(largest, pc.max(measured.column("bytes")).as_py() or 0)
                before.append(before[-1] + [pc.sum(column).as_py() for column in measured.columns])
                found.append((number, 0, 0))
    start, generations_of, group_of = np.array(found, dtype=np.int64).T
    return _Groups(start, np.array(before).T, generations_of, group_of, largest)
