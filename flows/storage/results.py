"""Results: one part (file) per collected batch, ordered by request number, written once and never changed.

When there are many, small ones are replaced by one compacted part with all their rows, by request, oldest first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import StateError
from flows.domain.batches import Batch
from flows.domain.judging import JudgedBatch
from flows.domain.ledger import Ledger
from flows.domain.outcomes import Outcome
from flows.domain.ranges import Range
from flows.domain.schema import FieldType, ListOf, OutputSchema, Scalar, Struct
from flows.storage.files import make_folder
from flows.storage.state import StateDirectory
from flows.storage.tables import NumberedTable, write_table

_TAGS = b"tags"
_SCALARS = {"string": pa.string(), "json": pa.string(), "int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}


def arrow_type(kind: FieldType) -> pa.DataType:
    """The type of a column for these values."""
    match kind:
        case Scalar(name):
            return _SCALARS[name]
        case ListOf(item):
            return pa.list_(arrow_type(item))
        case Struct(fields):
            return pa.struct([pa.field(name, arrow_type(inner)) for name, inner in fields])


def answer_type(schema: OutputSchema) -> pa.StructType:
    """The typed values of one answer."""
    return pa.struct([pa.field(name, arrow_type(kind)) for name, kind in schema.fields.items()])


def part_schema(schema: OutputSchema) -> pa.Schema:
    """The columns of the part of one batch."""
    return pa.schema(
        [
            ("request", pa.int64()),
            ("attempt", pa.int32()),
            ("outcome", pa.string()),
            ("error", pa.string()),
            ("answer", answer_type(schema)),
            ("raw", pa.string()),  # the text of an answer that was rejected
            ("input_tokens", pa.int64()),
            ("output_tokens", pa.int64()),
            ("cost", pa.int64()),  # pico-dollars; null: unknown
            ("copied", pa.int64()),  # part of it that an accidental copy of the batch took
        ]
    )


def compacted_schema(schema: OutputSchema) -> pa.Schema:
    """The columns of a compacted part; any part is read with them."""
    return part_schema(schema).insert(1, pa.field("batch", pa.int64()))


def part_table(judged: JudgedBatch, schema: OutputSchema) -> pa.Table:
    """The content of a batch's part."""
    outcomes, usages, answers, _, errors, raw, *_ = zip(*judged.verdicts, strict=True)
    tokens = ([usage and usage[place] for usage in usages] for place in (0, 1))
    columns = [judged.requests, judged.attempts, outcomes, errors, answers, raw, *tokens, judged.costs, judged.copied]
    fields = part_schema(schema)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, fields, strict=True)]
    return pa.Table.from_arrays(arrays, schema=fields)


def tags_metadata(batches: Iterable[Batch]) -> dict[bytes, bytes]:
    """What a part says of its batches: their tags, which no batch of another output or time has."""
    return {_TAGS: orjson.dumps([batch.tag for batch in batches])}


@dataclass(frozen=True, slots=True)
class Part:
    """A results file, and the batches that are read from it, oldest first."""

    path: Path
    batches: tuple[Batch, ...]
    rows: int  # of the complete file: rows of lost batches are in it, but not read
    is_compacted: bool = False

    @property
    def span(self) -> Range:
        """The lowest request number and one more than the highest."""
        starts, stops = zip(*(batch.span for batch in self.batches), strict=True)
        return min(starts), max(stops)

    @property
    def label(self) -> str:
        """Its name in messages: `batch 7`, `batches 1 to 64`."""
        first, last = self.batches[0].number, self.batches[-1].number
        return f"batch {first}" if first == last else f"batches {first} to {last}"


class PartTable(NumberedTable):
    """A part, read by position, with a column `batch` even if the file does not store it."""

    def __init__(self, part: Part) -> None:
        super().__init__(part.path)
        self._stores_batch = part.is_compacted
        self._batches = pa.array([batch.number for batch in part.batches], pa.int64())
        self._has_others = part.is_compacted and self.rows != sum(batch.requests for batch in part.batches)

    def requests(self) -> pa.ChunkedArray:
        """The request of each row of the file, including rows that `read` leaves out."""
        return super().read(0, self.rows, ["request"]).column(0)

    def read(self, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows from `start` up to `stop`, without those of other batches."""
        return self._of_batches(super().read(start, stop, self._stored(columns)), columns)

    def read_group(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        """One row group, without rows of other batches."""
        return self._of_batches(super().read_group(group, self._stored(columns)), columns)

    def _stored(self, columns: Sequence[str] | None) -> list[str] | None:
        if columns is None:
            return None
        others = [name for name in columns if name != "batch"]
        return [*others, "batch"] if self._stores_batch else others

    def _of_batches(self, rows: pa.Table, columns: Sequence[str] | None) -> pa.Table:
        if not self._stores_batch:
            rows = rows.add_column(1, "batch", pa.repeat(self._batches[0], rows.num_rows))
        elif self._has_others:
            rows = rows.filter(pc.is_in(rows.column("batch"), self._batches))
        return rows if columns is None else rows.select(columns)


@contextmanager
def reading(part: Part) -> Iterator[PartTable]:
    """Open a part. Raises StateError if it is damaged."""
    try:
        with PartTable(part) as table:
            yield table
    except (OSError, pa.ArrowInvalid) as error:
        raise StateError(
            f"the results of {part.label} are damaged: {str(error).splitlines()[0]}",
            next_step=f"delete {part.path}; the next run fetches it again from the provider",
        ) from error


class ResultsStore:
    """The parts of one output schema. Only parts that the ledger lists are ever read."""

    def __init__(self, state: StateDirectory, schema_id: str) -> None:
        self._state = state
        self.schema_id = schema_id

    def save(self, batch: Batch, table: pa.Table) -> None:
        """Write a batch's part."""
        path = self._state.part(self.schema_id, batch.number)
        make_folder(path.parent)
        write_table(path, table.replace_schema_metadata(tags_metadata([batch])))

    def parts(self, ledger: Ledger) -> list[Part]:
        """The parts of this schema that batches are read from, in the order of their oldest batches."""
        rows: Counter[Path] = Counter()
        read: dict[Path, list[Batch]] = {}
        for _, batch in sorted(ledger.batches.items()):
            if batch.result is not None and batch.result.schema_id == self.schema_id:
                path = self._place(batch)
                rows[path] += batch.requests
                if not batch.lost:
                    read.setdefault(path, []).append(batch)
        return [
            Part(path, tuple(batches), rows[path], is_compacted=bool(batches[0].compacted))
            for path, batches in read.items()
        ]

    def own_part(self, batch: Batch) -> Part:
        """The part of this batch alone, whether it exists or not."""
        return Part(self._state.part(self.schema_id, batch.number), (batch,), batch.requests)

    def is_whole(self, part: Part) -> bool:
        """Whether the file exists, holds these very batches, and has a row for each of their requests."""
        try:
            with NumberedTable(part.path) as table:
                tags = set(orjson.loads(table.metadata.get(_TAGS, b"[]")))
                return bool(table.rows == part.rows) and all(batch.tag in tags for batch in part.batches)
        except (OSError, pa.ArrowInvalid):
            return False

    def compacted(self, name: str) -> Path:
        """The path of a compacted part."""
        return self._state.results(self.schema_id) / f"{name}.pq"

    def corrections(self, batch: Batch) -> dict[int, str]:
        """Why answers of a batch were rejected, by request number: sent to the model with the retry."""
        part = Part(self._place(batch), (batch,), batch.requests, is_compacted=bool(batch.compacted))
        found: dict[int, str] = {}
        if not part.path.exists():
            return found  # lost: the request is retried without a correction
        start, stop = part.span
        with reading(part) as table:
            for group, (low, high) in enumerate(table.spans("request")):
                if low < stop and high >= start:
                    found.update(_reasons(table.read_group(group, ["request", "outcome", "error"])))
        return found

    def remove_leftovers(self, ledger: Ledger) -> None:
        """Delete parts that compacted ones replaced, and what killed processes left behind. Nobody may be writing."""
        folder = self._state.results(self.schema_id)
        held = {batch.compacted for batch in ledger.batches.values()}
        replaced = {
            self._state.part(self.schema_id, batch.number).name
            for batch in ledger.batches.values()
            if batch.compacted and not batch.lost
        }
        for path in [*folder.glob("*.pq"), *folder.glob(".*.tmp")]:
            orphan = path.name.startswith("compacted-") and path.stem not in held
            if orphan or path.name in replaced or path.suffix == ".tmp":
                path.unlink()

    def _place(self, batch: Batch) -> Path:
        return self.compacted(batch.compacted) if batch.compacted else self._state.part(self.schema_id, batch.number)


def _reasons(rows: pa.Table) -> dict[int, str]:
    columns = (column.to_pylist() for column in rows.columns)
    return {number: error for number, outcome, error in zip(*columns, strict=True) if outcome == Outcome.REJECTED}
