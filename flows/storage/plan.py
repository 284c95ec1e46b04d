"""The plan: which request each row asks for, and the new requests frozen to disk, numbered in order of appearance.

Two passes over the input. The first turns rows into keys; DuckDB finds, on keys and numbers alone, which are new. The
second renders the new ones: a row that can't be rendered or is too large for the provider is known before anything
is sent, and every request's size is exact. Texts never go through a sort or a join.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from blocks.batch import BatchFormat
from blocks.errors import StateError, UsageError
from flows.domain.keys import row_keys
from flows.domain.prompts import Prompt, Unrenderable, blank
from flows.domain.ranges import Ranges
from flows.domain.tokens import OVERHEAD, estimate_tokens
from flows.storage.files import NumberedTable, NumberedWriter, Numbers, replacing
from flows.storage.source import Source, SourceFile, column_values

VALUE = "value:"  # prefix of the columns that the prompt uses
LONGEST_ID = "x" * 40  # stands for a custom_id when a request is measured
FRESH_ROWS = 1_000_000  # new requests whose keys are in memory at once: 24 bytes each
SAMPLES_A_WINDOW = 24  # prompts whose tokens are estimated piece by piece
MANY_SAMPLES = 240  # from so many on, one a window
NOT_SELECTED = "not selected by --where"

Flags = np.ndarray[Any, np.dtype[np.bool_]]

ROWS_SCHEMA = pa.schema(
    [
        ("request", pa.int64()),  # null for a row that asks for nothing
        ("first", pa.bool_()),  # whether it is the first row that asks for this request
        ("skipped", pa.string()),  # why nothing is sent for it, as the job wants it
        ("unsendable", pa.string()),  # why nothing can be sent for it
    ]
)


@dataclass(frozen=True, slots=True)
class Question:
    """All that turns rows into requests."""

    source: Source
    prompt: Prompt
    digest: bytes  # of the form; part of every key
    format: BatchFormat
    skip_empty: tuple[str, ...]
    max_request_bytes: int | None
    limit: int | None
    where: str | None

    @property
    def identity(self) -> str:
        """Names this plan: the same question about the same file needs no second plan."""
        parts = [
            self.source.identity,
            self.digest.hex(),
            self.skip_empty,
            self.max_request_bytes,
            self.limit,
            self.where,
        ]
        return orjson.dumps(parts).decode()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a plan found. `known` requests were asked for by an earlier one."""

    rows: int  # rows that come out
    total_rows: int  # rows of the input
    skipped: int
    unsendable: int
    requests: int  # distinct ones that the rows ask for
    known: int
    start: int  # numbers of the new ones
    stop: int
    tokens_per_byte: float  # estimated tokens a byte of an encoded request
    bytes: int  # of all requests that the rows ask for
    first_prompt: str | None
    first_problem: str | None = None  # why the first row that can't be sent can't be

    @property
    def duplicates(self) -> int:
        """Rows that share another row's request."""
        return self.rows - self.skipped - self.unsendable - self.requests


def read_plan(rows_file: Path, question: Question) -> Plan | None:
    """The plan on disk, if it answers this question."""
    if not rows_file.exists():
        return None
    try:
        with NumberedTable(rows_file) as rows:
            metadata = rows.metadata
    except pa.ArrowInvalid:
        return None  # damaged: a new plan finds the same requests by their keys
    if metadata.get(b"identity", b"").decode() != question.identity:
        return None
    return Plan(**orjson.loads(metadata[b"plan"]))


def wanted_requests(rows_file: Path, memory: str) -> Ranges:
    """The numbers of the requests that the rows of the plan ask for."""
    with TemporaryDirectory(prefix="plan-", dir=rows_file.parent) as scratch, _connected(scratch, memory) as db:
        groups = db.execute(
            # Consecutive numbers have the same difference to their place in the order.
            "SELECT min(request), max(request) + 1 FROM ("
            "  SELECT request, request - row_number() OVER (ORDER BY request) AS island"
            "  FROM read_parquet(?, hive_partitioning = false) WHERE first"
            ") GROUP BY island ORDER BY 1",
            [_literal(rows_file)],
        ).fetchall()
    return Ranges(groups)


def generations(*folders: Path) -> list[Path]:
    """The frozen requests in these folders, oldest first."""
    return sorted((path for folder in folders for path in folder.glob("*.pq")), key=lambda path: path.name)


def make_plan(question: Question, frozen: list[Path], new: Path, rows_file: Path, memory: str) -> Plan:
    """Freeze the requests that `frozen` does not have into the folder `new`, and write `rows_file`.

    `memory`: what DuckDB may use, as it writes sizes; what does not fit goes to disk beside `rows_file`.
    """
    with TemporaryDirectory(prefix="plan-", dir=rows_file.parent) as scratch, _connected(scratch, memory) as db:
        return _Planner(question, frozen, new, rows_file, db, Path(scratch)).plan()


@contextmanager
def _connected(scratch: str, memory: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Raises StateError where the memory is not enough."""
    config: dict[str, Any] = {
        "memory_limit": memory,
        "temp_directory": scratch,
        "preserve_insertion_order": False,
        "threads": 2,
    }
    try:
        with duckdb.connect(config=config) as db:
            yield db
    except duckdb.OutOfMemoryException as error:
        raise StateError(
            f"the plan needs more memory than {memory}",
            next_step="give it more, for example --memory-limit 1GB; nothing was sent",
        ) from error


class _Planner:
    def __init__(
        self,
        question: Question,
        frozen: list[Path],
        new: Path,
        rows_file: Path,
        db: duckdb.DuckDBPyConnection,
        scratch: Path,
    ) -> None:
        self.question = question
        self.frozen = frozen
        self.new = new
        self.rows_file = rows_file
        self.db = db
        self.scratch = scratch
        self.samples = 0
        self.sampled_tokens = 0.0
        self.sampled_bytes = 0
        self.first_prompt: str | None = None
        self.first_problem: str | None = None

    def plan(self) -> Plan:
        unselected = self._unselected()
        self.db.execute("CREATE TABLE keys (row BIGINT, hi UBIGINT, lo UBIGINT)")
        self.db.execute("CREATE TABLE skipped (row BIGINT, reason VARCHAR)")
        self._read_keys(unselected)
        start = self._find_new()
        stop = self._freeze(start)
        return self._write_rows(start, stop)

    # --- first pass: rows → keys

    def _unselected(self) -> Flags | None:
        """Which rows `--where` leaves out."""
        if self.question.where is None:
            return None
        selected = selected_rows(self.question.source, self.question.where)
        mask = np.ones(self.question.source.rows, dtype=np.bool_)
        mask[selected] = False
        return mask

    def _read_keys(self, unselected: Flags | None) -> None:
        question, names = self.question, self.question.prompt.columns
        needed = list(dict.fromkeys([*names, *question.skip_empty]))
        row = 0
        for window in question.source.windows(needed, question.limit):
            values = {name: column_values(window.column(name)) for name in needed}
            keys = self._keys(names, values)
            reasons = _blank_reasons(values, question.skip_empty, window.num_rows)
            left_out = None if unselected is None else unselected[row : row + window.num_rows]
            self._insert(row, keys, reasons, left_out)
            row += window.num_rows

    def _keys(self, names: list[str], values: dict[str, list[Any]]) -> np.ndarray[Any, Any]:
        try:
            keys = row_keys(self.question.digest, names, [values[name] for name in names])
        except TypeError as error:
            raise UsageError(f"the prompt uses a column that can't be text: {error}") from error
        return np.frombuffer(b"".join(keys), dtype=">u8").reshape(-1, 2).astype(np.uint64)

    def _insert(
        self, row: int, keys: np.ndarray[Any, Any], reasons: list[str | None], left_out: np.ndarray[Any, Any] | None
    ) -> None:
        if left_out is not None:
            reasons = [NOT_SELECTED if out else why for out, why in zip(left_out, reasons, strict=True)]
        numbers = np.arange(row, row + len(keys), dtype=np.int64)
        asks = np.array([why is None for why in reasons], dtype=np.bool_)
        chunk = pa.table({"row": numbers[asks], "hi": keys[asks, 0], "lo": keys[asks, 1]})
        self.db.register("chunk", chunk)
        self.db.execute("INSERT INTO keys SELECT row, hi, lo FROM chunk")
        if not asks.all():
            said = [why for why in reasons if why is not None]
            self.db.register("chunk", pa.table({"row": numbers[~asks], "reason": said}))
            self.db.execute("INSERT INTO skipped SELECT row, reason FROM chunk")
        self.db.unregister("chunk")

    # --- between: which keys are new

    def _find_new(self) -> int:
        """Make the tables `first` (first row of each key) and `known`; returns the next request number."""
        self.db.execute("CREATE TABLE first AS SELECT hi, lo, min(row) AS row FROM keys GROUP BY hi, lo")
        self.db.execute("CREATE TABLE known (hi UBIGINT, lo UBIGINT, request BIGINT)")
        if self.frozen:
            self._know(self.frozen)
        self.db.execute("CREATE TABLE unsendable (hi UBIGINT, lo UBIGINT, reason VARCHAR)")
        return self._number("SELECT coalesce(max(request) + 1, 0) FROM known")

    def _know(self, files: list[Path]) -> None:
        self.db.execute(
            "INSERT INTO known SELECT hi, lo, request FROM read_parquet(?, hive_partitioning = false)",
            [[_literal(path) for path in files]],
        )

    # --- second pass: new requests → frozen

    def _freeze(self, start: int) -> int:
        names = self.question.prompt.columns
        fresh = self._fresh()
        upcoming = next(fresh, None)
        if upcoming is None:
            return start
        path = self.new / f"{start:012d}.pq"
        with replacing(path) as temporary:
            writer = NumberedWriter(temporary, _requests_schema(self.question.source.schema, names))
            number, row = start, 0
            for window in self.question.source.windows(names, self.question.limit):
                end = row + window.num_rows
                while upcoming is not None and upcoming[0][0] < end:
                    here = upcoming[0] < end
                    number = self._freeze_rows(window, row, [part[here] for part in upcoming], number, writer)
                    rest = [part[~here] for part in upcoming]
                    upcoming = rest if len(rest[0]) else next(fresh, None)
                row = end
            writer.close({})
        if number == start:
            path.unlink()  # nothing could be sent: no generation
        return number

    def _fresh(self) -> Iterator[list[np.ndarray[Any, Any]]]:
        """(row, hi, lo) of the first rows of new keys, ascending, in chunks that fit into memory."""
        self.db.execute(
            "COPY (SELECT row, hi, lo FROM first ANTI JOIN known USING (hi, lo) ORDER BY row)"  # noqa: S608  # our own path
            f" TO {_quoted(str(self.scratch / 'fresh.parquet'))} (FORMAT parquet, ROW_GROUP_SIZE 122880)"
        )
        self.db.execute("DROP TABLE first")
        with pq.ParquetFile(self.scratch / "fresh.parquet", pre_buffer=False) as file:
            for batch in file.iter_batches(FRESH_ROWS, use_threads=False):
                yield [batch.column(i).to_numpy() for i in range(3)]

    def _freeze_rows(
        self, window: pa.Table, offset: int, fresh: list[np.ndarray[Any, Any]], number: int, writer: NumberedWriter
    ) -> int:
        rows, high, low = fresh
        taken = plain(window.select(self.question.prompt.columns)).take(pa.array(rows - offset))
        prompts = self._render(taken)
        sizes, problems = self._measure(prompts)
        good = np.array([problem is None for problem in problems], dtype=np.bool_)
        self._sample([p for p in prompts if isinstance(p, str)])
        if not good.all():
            why = [problem for problem in problems if problem is not None]
            self.first_problem = self.first_problem or why[0]
            self.db.register("chunk", pa.table({"hi": high[~good], "lo": low[~good], "reason": why}))
            self.db.execute("INSERT INTO unsendable SELECT hi, lo, reason FROM chunk")
            self.db.unregister("chunk")
        count = int(good.sum())
        if count:
            kept = taken.filter(pa.array(good))
            columns = {
                "request": pa.array(np.arange(number, number + count, dtype=np.int64)),
                "hi": pa.array(high[good]),
                "lo": pa.array(low[good]),
                "bytes": pa.array(sizes[good]),
            } | {f"{VALUE}{name}": kept.column(name) for name in kept.schema.names}
            writer.write(pa.table(columns))
        return number + count

    def _render(self, taken: pa.Table) -> list[str | Unrenderable]:
        return self.question.prompt.render([column_values(column) for column in taken.columns])

    def _measure(self, prompts: list[str | Unrenderable]) -> tuple[Numbers, list[str | None]]:
        """The size of each request, 0 for one without a prompt; and why it can't be sent, if it can't."""
        encode, most = self.question.format.encode, self.question.max_request_bytes
        lengths = [0 if isinstance(prompt, Unrenderable) else len(encode(LONGEST_ID, prompt)) for prompt in prompts]
        sizes = np.array(lengths, dtype=np.int64)
        sizes[sizes > 0] += len(self.question.format.separator)
        problems = [prompt.reason if isinstance(prompt, Unrenderable) else None for prompt in prompts]
        if most is not None:
            for index in np.flatnonzero(sizes > most):
                problems[index] = f"the request has {sizes[index]:,} bytes, the provider takes {most:,}"
        return sizes, problems

    def _sample(self, prompts: list[str]) -> None:
        if self.first_prompt is None and prompts:
            self.first_prompt = prompts[0]
        most = SAMPLES_A_WINDOW if self.samples < MANY_SAMPLES else 1
        step = max(1, len(prompts) // most)
        for prompt in prompts[::step][:most]:
            encoded = self.question.format.encode(LONGEST_ID, prompt[:20_000])
            self.samples += 1
            self.sampled_tokens += estimate_tokens(_inner_text(encoded)) + OVERHEAD
            self.sampled_bytes += len(encoded)

    # --- last: what each row asks for

    def _write_rows(self, start: int, stop: int) -> Plan:
        """One join and one sort: what DuckDB can do with little memory, which several joins at once are not."""
        if stop > start:
            self._know([self.new / f"{start:012d}.pq"])
        self.db.execute(
            "CREATE TABLE asked AS SELECT keys.row, known.request, unsendable.reason AS unsendable FROM keys"
            " LEFT JOIN known USING (hi, lo) LEFT JOIN unsendable USING (hi, lo)"
        )
        self.db.execute("DROP TABLE keys")
        relation = self.db.sql(
            "SELECT request, skipped, unsendable FROM ("
            "  SELECT row, request, NULL::VARCHAR AS skipped, unsendable FROM asked"
            "  UNION ALL SELECT row, NULL, reason, NULL FROM skipped"
            ") ORDER BY row"
        )
        return self._write_sorted(relation.to_arrow_reader(65_536), start, stop)

    def _write_sorted(self, reader: pa.RecordBatchReader, start: int, stop: int) -> Plan:
        seen = np.zeros(stop, dtype=np.bool_)  # a byte a request
        counts: Counter[str] = Counter()
        with replacing(self.rows_file) as temporary:
            writer = NumberedWriter(temporary, ROWS_SCHEMA)
            for batch in reader:
                rows = pa.Table.from_batches([batch])
                for name in ("skipped", "unsendable"):
                    counts[name] += len(rows) - rows.column(name).null_count
                counts["rows"] += len(rows)
                writer.write(rows.add_column(1, "first", pa.array(_first_of_each(rows.column("request"), seen))))
            plan = self._summary(counts, seen, start, stop)
            values = {name: getattr(plan, name) for name in Plan.__dataclass_fields__}
            writer.close({"identity": self.question.identity, "plan": orjson.dumps(values).decode()})
        return plan

    def _summary(self, counts: Counter[str], seen: Flags, start: int, stop: int) -> Plan:
        wanted = int(seen.sum())
        return Plan(
            rows=counts["rows"],
            total_rows=self.question.source.rows,
            skipped=counts["skipped"],
            unsendable=counts["unsendable"],
            requests=wanted,
            known=wanted - (stop - start),
            start=start,
            stop=stop,
            tokens_per_byte=self._tokens_per_byte(),
            bytes=self._bytes_of(seen),
            first_prompt=self.first_prompt,
            first_problem=self.first_problem,
        )

    def _bytes_of(self, wanted: Flags) -> int:
        total = 0
        for path in sorted({*self.frozen, *generations(self.new)}):
            with pq.ParquetFile(path, pre_buffer=False) as file:
                for batch in file.iter_batches(65_536, columns=["request", "bytes"], use_threads=False):
                    numbers, sizes = (column.to_numpy() for column in batch.columns)
                    total += int(sizes[wanted[numbers]].sum())
        return total

    def _number(self, sql: str) -> int:
        ((found,),) = self.db.sql(sql).fetchall()
        return int(found or 0)

    def _tokens_per_byte(self) -> float:
        if self.sampled_bytes:
            return self.sampled_tokens / self.sampled_bytes
        return 0.25


def _first_of_each(requests: pa.ChunkedArray, seen: Flags) -> Flags:
    """Which of these rows are the first that ask for their request; `seen` is brought up to date."""
    numbers = requests.fill_null(-1).to_numpy()
    found, at = np.unique(numbers, return_index=True)
    found, at = found[found >= 0], at[found >= 0]
    first = np.zeros(len(numbers), dtype=np.bool_)
    first[at[~seen[found]]] = True
    seen[found] = True
    return first


def selected_rows(source: Source, where: str, *, only_check: bool = False) -> Numbers:
    """The numbers of the rows for which a SQL condition holds, evaluated by DuckDB over the input alone."""
    found, offset = [np.zeros(0, dtype=np.int64)], 0
    with duckdb.connect(config={"memory_limit": "256MB"}) as db:
        paths = [text for file in source.files for text in (str(file.path), _literal(file.path))]
        db.execute(f"SET allowed_paths = [{', '.join(map(_quoted, paths))}]")
        db.execute("SET enable_external_access = false")
        for file in source.files[:1] if only_check else source.files:
            found.append(_selected_in(db, file, where, "LIMIT 0" if only_check else "ORDER BY 1") + offset)
            offset += file.rows
    return np.concatenate(found)


def _selected_in(db: duckdb.DuckDBPyConnection, file: SourceFile, where: str, order: str) -> Numbers:
    """The row numbers within one file; what stands in the names of its folders can be asked for like a column."""
    values = "".join(
        f", {'NULL' if value is None else _quoted(value)} AS {_name(key)}" for key, value in file.partition.items()
    )
    try:
        found = db.sql(
            f"SELECT file_row_number FROM (SELECT *{values} FROM"  # noqa: S608  # the user's own condition
            " read_parquet(?, file_row_number = true, hive_partitioning = false))"
            f" WHERE ({where}\n) {order}",
            params=[_literal(file.path)],
        ).to_arrow_table()
    except duckdb.Error as error:
        raise UsageError(
            f"--where is not a condition on the input's rows: {str(error).splitlines()[0]}",
            next_step="write it as SQL would after WHERE, for example --where \"language = 'de'\"",
        ) from error
    numbers: Numbers = found.column(0).to_numpy()
    return numbers


def _literal(path: Path) -> str:
    """A path for DuckDB, which would read a name such as `part[1].pq` as a pattern."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _blank_reasons(values: dict[str, list[Any]], skip_empty: tuple[str, ...], rows: int) -> list[str | None]:
    reasons: list[str | None] = [None] * rows
    for name in skip_empty:
        for index, value in enumerate(values[name]):
            if blank(value):
                reasons[index] = f"{name} is empty"
    return reasons


def _requests_schema(source: pa.Schema, names: list[str]) -> pa.Schema:
    fields = [
        pa.field("request", pa.int64()),
        pa.field("hi", pa.uint64()),
        pa.field("lo", pa.uint64()),
        pa.field("bytes", pa.int64()),
    ]
    return pa.schema([*fields, *(pa.field(f"{VALUE}{name}", _plain(source.field(name).type)) for name in names)])


def plain(table: pa.Table) -> pa.Table:
    """The same values in types that rows can be taken from; no views, which Arrow can't take from, no dictionaries."""
    return table.cast(pa.schema([pa.field(field.name, _plain(field.type)) for field in table.schema]))


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_plain(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([part.with_type(_plain(part.type)) for part in kind])
    return kind


def _inner_text(encoded: bytes) -> str:
    """The texts of an encoded request, with its escapes undone."""
    value = orjson.loads(encoded)
    return " ".join(_strings(value))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
