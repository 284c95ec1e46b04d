"""What the output holds: why rows failed, how its fields are distributed, and examples; read in windows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from blocks.printable import printable
from flows.domain.remedies import reason_of, remedy_of
from flows.report.distributions import MOST_FIELDS, Distribution, leaves
from flows.storage.output import FAILED, OK
from flows.storage.tables import NumberedTable
from flows.storage.windows import windows_of

MOST_ROWS = 4_000_000  # that are read; of a larger output the first rows of each file
MOST_REASONS = 200  # that are counted each
SHOWN_REASONS = 10
EXAMPLES, GOOD_EXAMPLES = 2, 5  # rows of a reason, and good rows
SHOWN_TEXT = 400  # characters of a value in an example
SHOWN_COLUMNS = 8  # of the input in an example
REST = "other reasons"


@dataclass(frozen=True)
class Layout:
    """The columns that are looked at."""

    answers: Mapping[str, str]  # field of the answer → its column
    inputs: Sequence[str]  # columns that the prompt uses
    status: str
    error: str


class _Row(NamedTuple):
    file: Path
    number: int  # in the file


@dataclass
class _Reason:
    rows: int = 0
    error: str = ""  # the first
    examples: list[tuple[_Row, str]] = field(default_factory=list)


@dataclass
class Contents:
    """Counted over the rows that were read."""

    key: str = ""  # of what was read: the same files, looked at in the same way, hold the same
    rows: int = 0  # of the output
    rows_read: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    more_reasons: int = 0
    more_failed: int = 0  # rows that failed for these
    fields: list[dict[str, Any]] = field(default_factory=list)
    more_fields: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


class _Reading:
    def __init__(self, layout: Layout, apart: int) -> None:
        self._layout = layout
        self._apart = max(1, apart)  # good rows between two examples
        self._good = 0
        self._reasons: dict[str, _Reason] = {}
        self._fields: dict[str, Distribution] = {}
        self._more_fields: set[str] = set()
        self._examples: list[_Row] = []
        self.rows = 0

    def read(self, path: Path, most: int) -> None:
        """Count the first rows of a file."""
        at, layout = 0, self._layout
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for window in windows_of(path, file, [*layout.answers.values(), layout.status, layout.error]):
                rows = window.slice(0, most - at).combine_chunks()
                self._count(path, at, rows)
                at += rows.num_rows
                if at >= most:
                    break
        self.rows += at

    def _count(self, path: Path, at: int, rows: pa.Table) -> None:
        status = rows.column(self._layout.status)
        good = pc.indices_nonzero(pc.equal(status, OK))
        self._count_failures(path, at, rows, pc.indices_nonzero(pc.equal(status, FAILED)))
        due = self._good + (-self._good % self._apart)
        while due < self._good + len(good) and len(self._examples) < GOOD_EXAMPLES:
            self._examples.append(_Row(path, at + good[due - self._good].as_py()))
            due += self._apart
        self._good += len(good)
        answers = rows.take(good)
        for name, column in self._layout.answers.items():
            for leaf, values in leaves(name, answers.column(column).combine_chunks()):
                self._add(leaf, values)

    def _add(self, leaf: str, values: pa.Array) -> None:
        if leaf not in self._fields and len(self._fields) >= MOST_FIELDS:
            self._more_fields.add(leaf)
            return
        self._fields.setdefault(leaf, Distribution(leaf)).add(values)

    def _count_failures(self, path: Path, at: int, rows: pa.Table, failed: pa.Array) -> None:
        """Each different error of the window is looked at once."""
        errors = rows.column(self._layout.error).take(failed).fill_null("").combine_chunks()
        for pair in errors.value_counts():
            error = pair["values"].as_py()
            found = self._reason(error)
            found.rows += pair["counts"].as_py()
            if missing := EXAMPLES - len(found.examples):
                places = failed.take(pc.indices_nonzero(pc.equal(errors, pair["values"])).slice(0, missing))
                found.examples += [(_Row(path, at + place), error[: 2 * SHOWN_TEXT]) for place in places.to_pylist()]

    def _reason(self, error: str) -> _Reason:
        reason = reason_of(error)
        if reason not in self._reasons and len(self._reasons) >= MOST_REASONS:
            reason = REST
        return self._reasons.setdefault(reason, _Reason(error=error[:SHOWN_TEXT]))

    def contents(self, rows: int, command: str) -> Contents:
        """What was counted, with the examples' values."""
        reasons = sorted(self._reasons.items(), key=lambda pair: -pair[1].rows)
        shown, rest = reasons[:SHOWN_REASONS], reasons[SHOWN_REASONS:]
        failed = [row for _, found in shown for row, _ in found.examples]
        values = self._values_of([*self._examples, *failed])
        return Contents(
            rows=rows,
            rows_read=self.rows,
            failures=[self._failure(reason, found, command, values) for reason, found in shown],
            more_reasons=len(rest),
            more_failed=sum(found.rows for _, found in rest),
            fields=[found.details() for found in self._fields.values()],
            more_fields=len(self._more_fields),
            examples=[self._example(row, values[row], self._layout.answers) for row in self._examples],
        )

    def _values_of(self, rows: list[_Row]) -> dict[_Row, dict[str, Any]]:
        """The values of what an example shows; an answer is read with a failed row too, where it is empty."""
        inputs, found = self._layout.inputs[:SHOWN_COLUMNS], {}
        for file in {row.file for row in rows}:
            with NumberedTable(file) as table:
                columns = [*inputs, *self._layout.answers.values()]
                held = [name for name in columns if name in table.schema.names]  # not the values of a partition
                values = table.rows_at([row.number for row in rows if row.file == file], held)
            found.update({_Row(file, number): each for number, each in values.items()})
        return found

    def _failure(
        self, reason: str, found: _Reason, command: str, values: Mapping[_Row, dict[str, Any]]
    ) -> dict[str, Any]:
        remedy = remedy_of(found.error)
        return {
            "reason": printable(reason),
            "rows": found.rows,
            "remedy": remedy.text,
            "command": command if remedy.retries else None,
            "examples": [
                {**self._example(row, values[row], {}), "error": printable(error, SHOWN_TEXT)}
                for row, error in found.examples
            ],
        }

    def _example(self, row: _Row, values: dict[str, Any], answers: Mapping[str, str]) -> dict[str, Any]:
        inputs = self._layout.inputs[:SHOWN_COLUMNS]
        return {
            "file": printable(row.file.name),
            "row": row.number + 1,
            "input": {printable(name): _text(values[name]) for name in inputs if name in values},
            "more_columns": len(self._layout.inputs) - len(inputs),
            "answer": {printable(name): _text(values[column]) for name, column in answers.items()},
        }


def read_contents(files: Mapping[Path, int], layout: Layout, good: int, command: str) -> Contents:
    """The contents of these files, which have so many rows each. `command`: what sends failed rows again."""
    rows = sum(files.values())
    reading = _Reading(layout, good // GOOD_EXAMPLES)
    for path, count in files.items():
        reading.read(path, count if rows <= MOST_ROWS else max(1, count * MOST_ROWS // rows))
    return reading.contents(rows, command)


def _text(value: Any) -> str | None:
    """A value as it is shown: a text as it is, all others as JSON has them."""
    if value is None or isinstance(value, str):
        return None if value is None else printable(value, SHOWN_TEXT)
    return printable(json.dumps(value, ensure_ascii=False, default=str), SHOWN_TEXT)
