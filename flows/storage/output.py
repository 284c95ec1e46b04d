"""What an output is: the files of the input, each with columns for the answers, their status and their cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
import pyarrow as pa

from flows.domain.schema import OutputSchema
from flows.storage.results import answer_type
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
OK, FAILED, SKIPPED, PENDING = "ok", "failed", "skipped", "pending"  # values of `_status`


@dataclass(frozen=True, slots=True)
class OutputLayout:
    """How the files of an output are laid out, and what they call the model."""

    schema: OutputSchema
    rename: Mapping[str, str]  # output column → name in the file
    model: str  # value of `_model`
    compression: str
    row_group_rows: int

    def values(self) -> list[str]:
        """All of it as text, for fingerprints."""
        schema = orjson.dumps(self.schema.schema).decode()
        renamed = orjson.dumps(dict(self.rename), option=orjson.OPT_SORT_KEYS).decode()
        return [schema, renamed, self.model, self.compression, str(self.row_group_rows)]

    def arrow_schema(self, source: pa.Schema) -> pa.Schema:
        """The input's columns, then the answer's, then the status columns; the input's metadata stays."""
        added = [*((column.name, column.type) for column in answer_type(self.schema)), *STATUS_COLUMNS.items()]
        fields = [pa.field(self.rename.get(name, name), kind) for name, kind in added]
        return pa.schema([*source, *fields], metadata=source.metadata)


@dataclass(slots=True)
class OutputSummary:
    """Summary of an output or one of its files. Money in pico-dollars."""

    statuses: Counter[str] = field(default_factory=Counter)  # rows by status
    rows_cost: int = 0  # the sum of its cost column
    shared_cost: int = 0  # what duplicate rows would have cost again
    good_cost: int = 0  # of the answers that the rows show, part of `rows_cost`
    repeated_cost: int = 0  # of further good answers to the same requests, part of `rows_cost`
    notes: list[str] = field(default_factory=list)  # what a user should know of files that were not written

    def add(self, other: OutputSummary) -> None:
        """Add what other rows hold."""
        self.statuses.update(other.statuses)
        self.rows_cost += other.rows_cost
        self.shared_cost += other.shared_cost
        self.good_cost += other.good_cost
        self.repeated_cost += other.repeated_cost

    @property
    def rows(self) -> int:
        """Rows of the output."""
        return self.statuses.total()


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file of the output: a file of the input and the rows that it has in the plan, from `start` up to `stop`."""

    source: SourceFile
    start: int
    stop: int


def output_files(source: Source, limit: int | None = None) -> list[OutputFile]:
    """The files of the output, in the order of the input's; at least one. `limit`: rows of all files together."""
    found: list[OutputFile] = []
    start, left = 0, source.rows if limit is None else limit
    for file in source.files:
        if left > 0 or not found:
            found.append(OutputFile(file, start, start + min(file.rows, max(left, 0))))
        left -= file.rows
        start += file.rows
    return found
