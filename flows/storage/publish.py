"""The output: each input row with the result of its request. A pure function of input, plan and results.

Output mirrors input, file by file. The input is streamed in windows; the answers a window needs are taken by request
number from the parts whose span overlaps it, so memory is bounded by a window and a row group, never by the dataset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.domain.ledger import Ledger
from flows.domain.outcomes import Outcome
from flows.domain.schema import OutputSchema
from flows.storage.files import Behind, NumberedTable, Numbers, decoded_bytes, replacing
from flows.storage.results import ResultsStore, answer_type, compacted_schema, reading
from flows.storage.source import Source, SourceFile

COST = pa.decimal128(18, 12)  # USD; as many places as a pico-dollar needs
STATUS_COLUMNS: dict[str, pa.DataType] = {
    "_status": pa.string(),
    "_error": pa.string(),
    "_model": pa.string(),
    "_attempts": pa.int32(),
    "_input_tokens": pa.int64(),
    "_output_tokens": pa.int64(),
    "_cost_usd": COST,
}
OK, FAILED, SKIPPED, PENDING = "ok", "failed", "skipped", "pending"
LOST = "its answer was lost; --retry-failed asks for it again"  # a failure that has no result to say why
CACHED_GROUPS = 4  # row groups of parts that neighbouring windows share
COMPARED_ROWS = 1_000_000  # of the plan, that are in memory at once when a file is compared with what it holds
ROW_GROUP_BYTES = 32 * 1024 * 1024  # in memory; a row group is written when either is reached


@dataclass(frozen=True, slots=True)
class Publication:
    """What an output shows, beside its rows."""

    schema: OutputSchema
    rename: Mapping[str, str]  # output column → name in the file
    model: str  # as it stands in `_model`
    compression: str
    row_group_rows: int

    def parts(self) -> list[str]:
        """All of it, for comparing."""
        schema = orjson.dumps(self.schema.schema).decode()
        renamed = orjson.dumps(dict(self.rename), option=orjson.OPT_SORT_KEYS).decode()
        return [schema, renamed, self.model, self.compression, str(self.row_group_rows)]


@dataclass(slots=True)
class Published:
    """What an output holds: rows by status; pico-dollars on its rows, and those that duplicates did not have to pay."""

    statuses: Counter[str] = field(default_factory=Counter)
    rows_cost: int = 0
    shared_cost: int = 0

    def add(self, other: Published) -> None:
        """Add a window of rows."""
        self.statuses.update(other.statuses)
        self.rows_cost += other.rows_cost
        self.shared_cost += other.shared_cost

    @property
    def rows(self) -> int:
        """Rows of the output."""
        return self.statuses.total()


def output_schema(source: pa.Schema, publication: Publication) -> pa.Schema:
    """All of the input's columns, then the answer's, then the status columns; the input's metadata stays."""
    added = [*((field.name, field.type) for field in answer_type(publication.schema)), *STATUS_COLUMNS.items()]
    fields = [pa.field(publication.rename.get(name, name), kind) for name, kind in added]
    return pa.schema([*source, *fields], metadata=source.metadata)


@dataclass(frozen=True, slots=True)
class Section:
    """A file of the input with its place in the plan: rows from `start` up to `stop`, counted over all files."""

    file: SourceFile
    start: int
    stop: int


def sections(source: Source, limit: int | None = None) -> list[Section]:
    """The files that come out, with the rows of each that do."""
    found: list[Section] = []
    start, left = 0, source.rows if limit is None else limit
    for file in source.files:
        if left > 0 or not found:
            stop = start + min(file.rows, max(left, 0))
            found.append(Section(file, start, stop))
        left -= file.rows
        start += file.rows
    return found


class Publisher:
    """Writes files of an output from the plan's rows and the results that the ledger lists."""

    def __init__(self, rows_file: Path, results: ResultsStore, ledger: Ledger, publication: Publication) -> None:
        self._rows = NumberedTable(rows_file)
        self._answers = _Answers(results, ledger, publication.schema)
        self._publication = publication

    def content(self, section: Section) -> str:
        """Names all that decides how the file comes out: with the same content it needs no second writing."""
        digest = blake2b(digest_size=16)
        for name in (section.file.identity, *self._publication.parts()):
            digest.update(f"{name}\0".encode())
        for start in range(section.start, section.stop, COMPARED_ROWS):
            asked = self._rows.read(start, min(start + COMPARED_ROWS, section.stop))
            request = asked.column("request").fill_null(-1).to_numpy()
            digest.update(request.tobytes())
            digest.update(asked.column("first").to_numpy().astype(np.bool_).tobytes())
            for name in ("skipped", "unsendable"):
                column = asked.column(name)
                if column.null_count < len(column):
                    digest.update(orjson.dumps(column.to_pylist()))
            digest.update(self._answers.content(_distinct(request)))
        return digest.hexdigest()

    def write(
        self, section: Section, output: Path, before_replacing: Callable[[Path], None] = lambda _: None
    ) -> Published:
        """Write a file in one step and say what it holds. `before_replacing` sees the whole file before that."""
        file, start, sums = section.file, section.start, Published()
        schema = output_schema(file.schema, self._publication)
        with replacing(output) as temporary:
            with _RowGroups(temporary, schema, self._publication) as writer:
                for window in file.windows(limit=section.stop - section.start):
                    asked = self._rows.read(start, start + window.num_rows)
                    added, held = _added_columns(asked, self._answers, self._publication)
                    sums.add(held)
                    writer.write(pa.Table.from_arrays([*window.columns, *added], schema=schema))
                    start += window.num_rows
            before_replacing(temporary)
        return sums

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()


class _RowGroups:
    """A Parquet file that is written in row groups, whatever the size of the tables that come in."""

    def __init__(self, path: Path, schema: pa.Schema, publication: Publication) -> None:
        self._writer = pq.ParquetWriter(path, schema, compression=publication.compression)
        self._behind = Behind()
        self._most = publication.row_group_rows
        self._pending: list[pa.Table] = []

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        self._pending.append(table)
        while sum(part.num_rows for part in self._pending) >= self._most:
            whole = pa.concat_tables(self._pending)
            self._flush(whole.slice(0, self._most))
            self._pending = [whole.slice(self._most)] if whole.num_rows > self._most else []
        if sum(map(decoded_bytes, self._pending)) >= ROW_GROUP_BYTES:
            self._flush(pa.concat_tables(self._pending))
            self._pending = []

    def _flush(self, table: pa.Table) -> None:
        self._behind.call(self._writer.write_table, table, row_group_size=self._most)

    def __enter__(self) -> _RowGroups:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._pending:
            self._flush(pa.concat_tables(self._pending))
        try:
            self._behind.wait()
        finally:
            self._writer.close()


class _Answers:
    """The results of the requests that rows ask for."""

    def __init__(self, results: ResultsStore, ledger: Ledger, schema: OutputSchema) -> None:
        self._parts = results.parts(ledger)
        self._spans = [part.span for part in self._parts]
        batches = (batch for part in self._parts for batch in part.batches)
        slices = [(part.start, part.stop, batch.number) for batch in batches for part in batch.slices]
        self._slices = np.array(slices, dtype=np.int64).reshape(-1, 3)
        self._schema = compacted_schema(schema)
        self._final = np.array(list(ledger.final_numbers()), dtype=np.int64).reshape(-1, 2)
        self._group = lru_cache(maxsize=CACHED_GROUPS)(self._read_group)

    def content(self, requests: Numbers) -> bytes:
        """Which batches have results of these requests (ascending, distinct), and which of them failed for good."""
        batches = np.unique(self._slices[_hit(self._slices, requests), 2])
        final = requests[self.is_final(requests)] if len(requests) else requests
        return batches.tobytes() + b"|" + final.tobytes()

    def of(self, requests: Numbers) -> pa.Table:
        """All results of these requests (ascending, distinct), by request and then oldest first."""
        found = [self._schema.empty_table()]
        if len(requests):
            low, high = int(requests[0]), int(requests[-1])
            for index, (start, stop) in enumerate(self._spans):
                if start <= high and stop > low:
                    found.extend(self._matching(index, requests))
        table = pa.concat_tables(found).combine_chunks()
        order = np.lexsort((table.column("batch").to_numpy(), table.column("request").to_numpy()))
        return table.take(pa.array(order))

    def is_final(self, requests: Numbers) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which of these failed for good."""
        ranges = self._final
        at = np.searchsorted(ranges[:, 0], requests, side="right") - 1
        return (at >= 0) & (requests < ranges[np.maximum(at, 0), 1]) if len(ranges) else np.zeros(len(requests), bool)

    def _matching(self, index: int, requests: Numbers) -> Iterator[pa.Table]:
        for group, (low, high) in enumerate(self._group_spans(index)):
            if low <= requests[-1] and high >= requests[0]:
                table = self._group(index, group)
                inside = np.isin(table.column("request").to_numpy(), requests)
                if inside.any():
                    yield table if inside.all() else table.filter(pa.array(inside))

    @cache  # noqa: B019  # lives as long as one publishing
    def _group_spans(self, index: int) -> list[tuple[int, int]]:
        with NumberedTable(self._parts[index].path) as table:
            return table.spans("request")

    def _read_group(self, index: int, group: int) -> pa.Table:
        with reading(self._parts[index]) as table:
            return table.read_group(group, self._schema.names)


def _hit(ranges: Numbers, requests: Numbers) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which ranges hold any of the requests (ascending)."""
    return np.searchsorted(requests, ranges[:, 0]) < np.searchsorted(requests, ranges[:, 1])


def _added_columns(asked: pa.Table, answers: _Answers, publication: Publication) -> tuple[list[pa.Array], Published]:
    """The answer's columns and the status columns for a window of rows, and what they hold."""
    request = asked.column("request").fill_null(-1).to_numpy()
    results = answers.of(_distinct(request))
    best = _best_results(results)
    place = _places(results, best, request)
    # Row by row the result of its request; nulls where there is none.
    taken = results.take(pa.array(best)).take(pa.array(np.maximum(place, 0), mask=place < 0))

    ok = np.array(taken.column("outcome").to_pylist(), dtype=object) == Outcome.OK
    status = np.where(ok, OK, np.where(answers.is_final(request), FAILED, PENDING)).astype(object)
    status[asked.column("skipped").is_valid().to_numpy()] = SKIPPED
    status[asked.column("unsendable").is_valid().to_numpy()] = FAILED

    answer = taken.column("answer").combine_chunks()
    empty = [pa.scalar(None, part.type) for part in answer.type]
    values = [pc.if_else(pa.array(ok), answer.field(i), null) for i, null in enumerate(empty)]
    reasons = [asked.column("skipped"), asked.column("unsendable"), taken.column("error")]
    lost = pc.if_else(pa.array(status == FAILED), LOST, pa.scalar(None, pa.string()))
    error = pc.coalesce(*reasons, lost).combine_chunks()
    model = pc.if_else(pa.array(place >= 0), publication.model, pa.scalar(None, pa.string()))
    attempts, tokens_in, tokens_out, cost = _sums(results, place)

    first = asked.column("first").to_numpy().astype(bool)
    own, shared = _split(cost, first)
    held = Published(Counter(status.tolist()), int(own.fill_null(0).to_numpy().sum()), shared)
    sums = [attempts, _split(tokens_in, first)[0], _split(tokens_out, first)[0], _usd(own)]
    return [*values, pa.array(status, pa.string()), error, model, *sums], held


def _best_results(results: pa.Table) -> Numbers:
    """Of each request's results the oldest that is ok, else the newest: their indices, by request."""
    request = results.column("request").to_numpy()
    ok = np.array(results.column("outcome").to_pylist(), dtype=object) == Outcome.OK
    index = np.arange(len(request))
    # By request, then ok before not ok, then by age: the oldest ok first, or the newest of the others.
    order = np.lexsort((np.where(ok, index, -index), ~ok, request))
    return order[_starts(request[order])]


def _distinct(requests: Numbers) -> Numbers:
    """The requests that rows ask for, ascending, each once; most often they come like that."""
    requests = requests[requests >= 0]
    if not (np.diff(requests) > 0).all():
        requests = np.sort(requests)
    return requests[_starts(requests)]


def _starts(ascending: Numbers) -> Numbers:
    """Where a new number begins."""
    return np.flatnonzero(np.diff(ascending, prepend=-1) != 0)


def _places(results: pa.Table, best: Numbers, request: Numbers) -> Numbers:
    """For each row the index of its request's result in `best`, -1 where there is none."""
    known = results.column("request").to_numpy()[best]
    if not len(known):
        return np.full(len(request), -1)
    at = np.minimum(np.searchsorted(known, request), len(known) - 1)
    return np.where(known[at] == request, at, -1)


def _sums(results: pa.Table, place: Numbers) -> list[pa.Array]:
    """By row: the attempts of its request, and input tokens, output tokens and cost (pico-dollars) of all of them.

    Null where nothing is known of it: not sent, or without usage.
    """
    starts = _starts(results.column("request").to_numpy())
    none = place < 0
    if not len(starts):
        return [pa.array(np.zeros(len(place)), pa.int32()), *(pa.nulls(len(place), pa.int64()) for _ in range(3))]
    attempts = np.maximum.reduceat(results.column("attempt").to_numpy(), starts)
    sums = [pa.array(np.where(none, 0, attempts[place]), pa.int32())]
    for name in ("input_tokens", "output_tokens", "cost"):
        column = results.column(name)
        total = np.add.reduceat(column.fill_null(0).to_numpy(), starts)
        known = np.logical_or.reduceat(column.is_valid().to_numpy(), starts)
        sums.append(pa.array(total[place], pa.int64(), mask=none | ~known[place]))
    return sums


def _split(values: pa.Array, first: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[pa.Array, int]:
    """Values on the first row of each request and 0 on its duplicates; and the sum that the duplicates would have."""
    numbers = values.fill_null(0).to_numpy()
    own = pa.array(np.where(first, numbers, 0), pa.int64(), mask=values.is_null().to_numpy(zero_copy_only=False))
    return own, int(numbers[~first].sum())


def _usd(pico: pa.Array) -> pa.Array:
    """Pico-dollars as exact dollars: the same digits, read twelve places further right."""
    digits = pico.cast(pa.decimal128(19, 0))
    return pa.Array.from_buffers(COST, len(digits), digits.buffers(), digits.null_count, digits.offset)
