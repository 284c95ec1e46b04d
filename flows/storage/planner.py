"""Making a plan: which request each row asks for, and the new requests frozen to disk.

Two passes over the input. The first turns rows into keys; which of them are new is decided on keys alone. The second
renders the new requests, so that every request's size is exact. Numbers follow the first appearance.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from blocks.errors import UsageError
from flows.domain.keys import row_keys
from flows.domain.prompts import blank
from flows.storage.files import replacing
from flows.storage.freezing import Freezer
from flows.storage.key_tables import Halves, KeyTables
from flows.storage.plan import ROWS_SCHEMA, Plan, Question, plan_metadata
from flows.storage.requests import count_requests
from flows.storage.source import column_values
from flows.storage.sql import connect
from flows.storage.tables import Flags, NumberedWriter
from flows.storage.where import NOT_SELECTED, selected_rows


def make_plan(question: Question, frozen: list[Path], new: Path, rows_file: Path, memory: str) -> Plan:
    """Freeze the requests that `frozen` does not have into the folder `new`, and write `rows_file`.

    `memory`: the limit of DuckDB, as it writes sizes; what does not fit goes to disk beside `rows_file`.
    """
    with TemporaryDirectory(prefix="plan-", dir=rows_file.parent) as scratch, connect(scratch, memory) as db:
        keys = KeyTables(db, Path(scratch))
        _read_keys(question, keys)
        keys.add_frozen(frozen)
        freezer = Freezer(question, keys, start=count_requests(frozen))
        generation = freezer.freeze(new)
        if generation is not None:
            keys.add_frozen([generation])
        return _write_rows(rows_file, question, keys.rows(), freezer)


def _read_keys(question: Question, keys: KeyTables) -> None:
    """The first pass: the key of each row, or why it is skipped."""
    names = list(dict.fromkeys([*question.prompt.columns, *question.skip_empty]))
    unselected, start = _unselected(question), 0
    for window in question.source.windows(names, question.limit):
        values = {name: column_values(window.column(name)) for name in names}
        stop = start + window.num_rows
        reasons = _blank_reasons(values, question.skip_empty, window.num_rows)
        if unselected is not None:
            pairs = zip(unselected[start:stop], reasons, strict=True)
            reasons = [NOT_SELECTED if left_out else reason for left_out, reason in pairs]
        asks = np.array([reason is None for reason in reasons], dtype=np.bool_)
        rows, (hi, lo) = np.arange(start, stop, dtype=np.int64), _keys_of(question, values)
        keys.add_rows(rows[asks], hi[asks], lo[asks])
        if not asks.all():
            keys.add_skipped(rows[~asks], [reason for reason in reasons if reason is not None])
        start = stop


def _unselected(question: Question) -> Flags | None:
    """Which rows `--where` leaves out; None without a condition."""
    if question.where is None:
        return None
    unselected = np.ones(question.source.rows, dtype=np.bool_)
    unselected[selected_rows(question.source, question.where)] = False
    return unselected


def _keys_of(question: Question, values: dict[str, list[Any]]) -> tuple[Halves, Halves]:
    names = question.prompt.columns
    try:
        keys = row_keys(question.digest, names, [values[name] for name in names])
    except TypeError as error:
        raise UsageError(f"the prompt uses a column that can't be text: {error}") from error
    halves = np.frombuffer(b"".join(keys), dtype=">u8").reshape(-1, 2).astype(np.uint64)
    return halves[:, 0], halves[:, 1]


def _blank_reasons(values: dict[str, list[Any]], skip_empty: tuple[str, ...], rows: int) -> list[str | None]:
    reasons: list[str | None] = [None] * rows
    for name in skip_empty:
        for index, value in enumerate(values[name]):
            if blank(value):
                reasons[index] = f"{name} is empty"
    return reasons


def _write_rows(rows_file: Path, question: Question, reader: pa.RecordBatchReader, freezer: Freezer) -> Plan:
    """Write the request of each row, and the plan's figures as metadata of the file."""
    seen = np.zeros(freezer.stop, dtype=np.bool_)  # a byte per request
    counts: Counter[str] = Counter()
    with replacing(rows_file) as temporary, NumberedWriter(temporary, ROWS_SCHEMA) as writer:
        for batch in reader:
            rows = pa.Table.from_batches([batch])
            for name in ("skipped", "unsendable"):
                counts[name] += len(rows) - rows.column(name).null_count
            counts["rows"] += len(rows)
            writer.write(rows.add_column(1, "first", pa.array(_first_of_each(rows.column("request"), seen))))
        plan = Plan(
            rows=counts["rows"],
            total_rows=question.source.rows,
            skipped=counts["skipped"],
            unsendable=counts["unsendable"],
            requests=int(seen.sum()),
            start=freezer.start,
            stop=freezer.stop,
            tokens_per_byte=freezer.tokens.per_byte,
            counted_with=question.vocabulary.name if question.vocabulary and question.vocabulary.is_exact else None,
            spread=freezer.tokens.spread,
            first_prompt=freezer.first_prompt,
            first_problem=freezer.first_problem,
        )
        writer.add_metadata(plan_metadata(question, plan))
    return plan


def _first_of_each(requests: pa.ChunkedArray, seen: Flags) -> Flags:
    """Which of these rows are the first that ask for their request; `seen` is updated."""
    numbers = requests.fill_null(-1).to_numpy()
    found, at = np.unique(numbers, return_index=True)
    found, at = found[found >= 0], at[found >= 0]
    first = np.zeros(len(numbers), dtype=np.bool_)
    first[at[~seen[found]]] = True
    seen[found] = True
    return first
