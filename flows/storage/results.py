"""Results: one part per collected batch, ordered by request number, written once and never changed.

Where they grow many, small ones are replaced by one compacted part: all their rows, by request and then oldest first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.batch import Answer, Failure, FailureKind, Usage
from blocks.errors import StateError
from flows.domain.events import Slice
from flows.domain.ledger import Batch, Ledger
from flows.domain.money import ModelPrice
from flows.domain.outcomes import OUTCOMES, Outcome, after_failure, merged
from flows.domain.ranges import Range
from flows.domain.schema import FieldType, ListOf, OutputSchema, Scalar, Struct
from flows.storage.files import NumberedTable, write_part
from flows.storage.state import StateDirectory

_SCALARS = {"string": pa.string(), "json": pa.string(), "int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}
_BILLED = {
    Outcome.OK,
    Outcome.REJECTED,
    Outcome.CUT_OFF,
    Outcome.GONE,
}  # what is paid for, also where no usage was said
_MISSING = Failure(FailureKind.PASSING, "missing", "the provider returned no answer for this request")
_NOT_RUN = Failure(FailureKind.EXCUSED, "not_run", "the batch ended before this request ran")


def arrow_type(kind: FieldType) -> pa.DataType:
    """The Arrow type of a column that holds such values."""
    match kind:
        case Scalar(name):
            return _SCALARS[name]
        case ListOf(item):
            return pa.list_(arrow_type(item))
        case Struct(fields):
            return pa.struct([pa.field(name, arrow_type(part)) for name, part in fields])


def answer_type(schema: OutputSchema) -> pa.StructType:
    """The typed values of one answer."""
    return pa.struct([pa.field(name, arrow_type(kind)) for name, kind in schema.fields.items()])


def part_schema(schema: OutputSchema) -> pa.Schema:
    """The columns of a results part."""
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
            ("cost", pa.int64()),  # pico-dollars; null where it is not known
        ]
    )


def compacted_schema(schema: OutputSchema) -> pa.Schema:
    """The columns of a compacted part, which are those that any part is read with."""
    return part_schema(schema).insert(1, pa.field("batch", pa.int64()))


@dataclass(frozen=True, slots=True)
class Judge:
    """What decides over an answer."""

    schema: OutputSchema
    price: ModelPrice | None
    max_attempts: int


@dataclass(slots=True)
class Gathered:
    """What the journal has to know of a collected batch."""

    ok: int
    again: list[Slice]
    final: list[Slice]
    outcomes: dict[str, int]
    input_tokens: int
    output_tokens: int
    cost: int | None
    single_cost: int | None
    rejected_cost: int | None
    unmetered: int
    strays: int
    cached_tokens: int


class _Verdict(NamedTuple):
    """What became of a request in its batch. `values`: a good answer; `raw`: the text of a rejected one."""

    outcome: Outcome
    usage: Usage | None
    values: dict[str, Any] | None = None
    kind: FailureKind | None = None  # of what is not a good answer
    error: str | None = None
    raw: str | None = None


class Gatherer:
    """Takes the answers of one batch, in any order, and makes its results part."""

    def __init__(self, batch: Batch, judge: Judge) -> None:
        self._batch = batch
        self._judge = judge
        self._expected = {number: part for part in batch.slices for number in range(part.start, part.stop)}
        self._rows: dict[int, _Verdict] = {}
        self._strays = 0
        self._prefix = f"{batch.tag}-"

    def take(self, answers: Iterable[Answer]) -> None:
        """Judge answers; only their typed values are kept."""
        for answer in answers:
            number = self._number(answer.custom_id)
            if number is None or number in self._rows:
                self._strays += 1
            else:
                self._rows[number] = self._verdict(answer)

    def take_copy(self, answers: Iterable[Answer]) -> None:
        """Answers of another batch with the same requests: they are paid as well, and fill in for what failed."""
        for answer in answers:
            number = self._number(answer.custom_id)
            if number is None:
                continue
            verdict, before = self._verdict(answer), self._rows.get(number)
            if before is not None:
                used = _added(before.usage, verdict.usage)
                useful = before.outcome is not Outcome.OK and verdict.outcome is Outcome.OK
                verdict = (verdict if useful else before)._replace(usage=used)
            self._rows[number] = verdict

    def _number(self, custom_id: str) -> int | None:
        """The request an answer belongs to; None for one of another batch, request or attempt."""
        if not custom_id.startswith(self._prefix):
            return None
        number, _, attempt = custom_id[len(self._prefix) :].partition("-")
        if not (number.isdecimal() and attempt.isdecimal()):
            return None
        expected = self._expected.get(int(number))
        return int(number) if expected is not None and expected.attempt == int(attempt) else None

    def _verdict(self, answer: Answer) -> _Verdict:
        failure = answer.failure
        if failure is not None:
            return _Verdict(OUTCOMES[failure.kind], answer.usage, kind=failure.kind, error=_said(failure))
        values, reason = self._judge.schema.read(answer.text or "")
        if values is not None:
            return _Verdict(Outcome.OK, answer.usage, values)
        return _Verdict(Outcome.REJECTED, answer.usage, None, FailureKind.PASSING, reason, answer.text)

    def finish(
        self, *, failed: str | None = None, final: bool = False, gone: str | None = None
    ) -> tuple[pa.Table, Gathered]:
        """The results part, and what became of every request of the batch.

        `failed`: why the whole batch has no answers; `final`: its requests will never have one. `gone`: why answers
        that were paid can't be had any more.
        """
        if gone is not None:
            self._count_missing(Outcome.GONE, Failure(FailureKind.FINAL, "gone", gone))
        elif failed is not None:
            kind = FailureKind.FINAL if final else FailureKind.EXCUSED
            self._count_missing(OUTCOMES[kind], Failure(kind, "batch_failed", failed))
        elif self._batch.early:
            self._count_missing(OUTCOMES[_NOT_RUN.kind], _NOT_RUN)
        else:
            self._count_missing(Outcome.MISSING, _MISSING)
        numbers = sorted(self._rows)
        table = self._table(numbers)
        return table, self._gathered(numbers, table)

    def _count_missing(self, outcome: Outcome, lost: Failure) -> None:
        for number in self._expected.keys() - self._rows.keys():
            self._rows[number] = _Verdict(outcome, None, kind=lost.kind, error=_said(lost))

    def _table(self, numbers: list[int]) -> pa.Table:
        rows = [self._rows[number] for number in numbers]
        outcome, usages, answer, _, error, raw = zip(*rows, strict=True)
        schema = part_schema(self._judge.schema)
        attempts = [self._expected[number].attempt for number in numbers]
        tokens = [[usage and usage[place] for usage in usages] for place in (0, 1)]
        costs = [self._cost(usage) for usage in usages]
        columns = [numbers, attempts, outcome, error, answer, raw, *tokens, costs]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _cost(self, usage: Usage | None) -> int | None:
        price = self._judge.price
        return None if price is None or usage is None else price.tier(usage[0]).batch.cost(usage)

    def _gathered(self, numbers: list[int], table: pa.Table) -> Gathered:
        again: list[tuple[int, Slice]] = []
        final: list[tuple[int, Slice]] = []
        for number in numbers:
            if (kind := self._rows[number].kind) is not None:
                goes_again, terms = after_failure(self._expected[number], kind, self._judge.max_attempts)
                (again if goes_again else final).append((number, terms))
        return Gathered(
            ok=len(numbers) - len(again) - len(final),
            again=merged(again, self._batch.number),
            final=merged(final, self._batch.number),
            outcomes=dict(Counter(str(row.outcome) for row in self._rows.values())),
            strays=self._strays,
            **self._money(table),
        )

    def _money(self, table: pa.Table) -> dict[str, Any]:
        """Sums over the part; requests that were not answered cost nothing, answered ones without usage are counted."""
        price, usages = self._judge.price, [row.usage for row in self._rows.values() if row.usage is not None]
        tokens = {
            "input_tokens": sum(usage[0] for usage in usages),
            "output_tokens": sum(usage[1] for usage in usages),
            "cached_tokens": sum(usage[2] for usage in usages),
            "unmetered": sum(row.usage is None and row.outcome in _BILLED for row in self._rows.values()),
        }
        sums: dict[str, int | None] = {"cost": None, "single_cost": None, "rejected_cost": None}
        if price is not None:
            useless = np.array(table.column("outcome").to_pylist()) != Outcome.OK
            costs = table.column("cost").fill_null(0).to_numpy()
            sums = {
                "cost": int(costs.sum()),
                "single_cost": sum(price.tier(usage[0]).single.cost(usage) for usage in usages),
                "rejected_cost": int(costs[useless].sum()),
            }
        return {**tokens, **sums}


def _added(first: Usage | None, second: Usage | None) -> Usage | None:
    """What two answers to the same request used; one that did not say is counted nowhere."""
    if first is None or second is None:
        return first or second
    return Usage(*map(sum, zip(first, second, strict=True)))


def _said(failure: Failure) -> str:
    return f"{failure.code}: {failure.message}" if failure.message else failure.code


@dataclass(frozen=True, slots=True)
class Part:
    """A file of results, with the batches that are read from it, oldest first."""

    path: Path
    batches: tuple[Batch, ...]
    rows: int  # that it has when it is whole: those of batches that are lost are there, but not read
    is_compacted: bool = False

    @property
    def span(self) -> Range:
        """The lowest request number and one more than the highest."""
        starts, stops = zip(*(batch.span for batch in self.batches), strict=True)
        return min(starts), max(stops)

    @property
    def label(self) -> str:
        """What is told of it: `batch 7`, `batches 1 to 64`."""
        first, last = self.batches[0].number, self.batches[-1].number
        return f"batch {first}" if first == last else f"batches {first} to {last}"


class PartTable(NumberedTable):
    """A part, read by position. Rows know their batch, also those of a part that does not store its number."""

    def __init__(self, part: Part) -> None:
        super().__init__(part.path)
        self._stores_batch = part.is_compacted
        self._batches = pa.array([batch.number for batch in part.batches], pa.int64())
        self._has_others = part.is_compacted and self.rows != sum(batch.requests for batch in part.batches)

    def requests(self) -> pa.ChunkedArray:
        """The request of each row by its position, also of those that are not read."""
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
    """Open a part to read it. Raises StateError where it is damaged, and says what to do."""
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

    def save(self, batch: int, table: pa.Table) -> None:
        """Write a batch's part, whole or not at all."""
        path = self._state.part(self.schema_id, batch)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_part(path, table)

    def parts(self, ledger: Ledger) -> list[Part]:
        """The parts of this schema that batches are read from, by their oldest batches."""
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
        """The part that is, was or would be the batch's alone."""
        return Part(self._state.part(self.schema_id, batch.number), (batch,), batch.requests)

    def is_whole(self, part: Part) -> bool:
        """Whether the part is there and has a row for each request of its batches."""
        try:
            with NumberedTable(part.path) as table:
                return bool(table.rows == part.rows)
        except (OSError, pa.ArrowInvalid):
            return False

    def compacted(self, name: str) -> Path:
        """Where a compacted part is."""
        return self._state.results(self.schema_id) / f"{name}.pq"

    def corrections(self, batch: Batch) -> dict[int, str]:
        """Why answers of a batch were rejected, by request number: what the model is told when they are asked again."""
        part = Part(self._place(batch), (batch,), batch.requests, is_compacted=bool(batch.compacted))
        found: dict[int, str] = {}
        if not part.path.exists():
            return found  # lost: the request goes again without a reason
        start, stop = part.span
        with reading(part) as table:
            for group, (low, high) in enumerate(table.spans("request")):
                if low < stop and high >= start:
                    found.update(_reasons(table.read_group(group, ["request", "outcome", "error"])))
        return found

    def remove_leftovers(self, ledger: Ledger) -> None:
        """Delete parts that compacted ones replaced, and what dead processes left behind; only while nobody writes."""
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
