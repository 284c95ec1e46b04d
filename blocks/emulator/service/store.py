"""Everything the emulator knows, in one SQLite file, committed before anything is answered.

Its own ledger is the table `billed`: one row for each billed answer, written in the transaction that ends the batch.
To ask it:

    -- what was paid twice: prompts that had been answered well before
    SELECT * FROM (
        SELECT *, min(number) FILTER (WHERE valid) OVER (PARTITION BY prompt_hash, model) AS first FROM billed
    ) WHERE number > first;
    -- what became of all requests of ended batches
    SELECT outcome, count(*) FROM results GROUP BY outcome;

A request's place is its batch's number times 2^24 plus its position in the order in which the batch is worked on; a
result has the place of its request, so that a page of results is two ranges of neighbouring rows, however many batches
are kept.
"""

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any
from uuid import uuid4

from blocks.emulator.service.batch import (
    Batch,
    Ending,
    Item,
    NewBatch,
    Outcome,
    Request,
    Result,
    Schedule,
    Status,
    StoredRequest,
    attempt_of,
    hash_prompt,
)
from blocks.emulator.service.files import FILE_TABLES, Files, FileWriter, OpenFile

VERSION = 3  # 2: files; 3: what later dialects keep of requests and files, and deleted batches
PLACES = 1 << 24  # places that a batch has
ROWS_AT_ONCE = 1000
TABLES = """
CREATE TABLE batches (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, model TEXT NOT NULL, details TEXT NOT NULL,
    total INTEGER NOT NULL, body_hash BLOB NOT NULL, idempotency_key TEXT UNIQUE, dropped INTEGER NOT NULL,
    created_at REAL NOT NULL, duration REAL NOT NULL, ending TEXT NOT NULL,
    status TEXT, ended_at REAL NOT NULL DEFAULT 0, progress INTEGER NOT NULL DEFAULT 0,
    succeeded INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, missing INTEGER NOT NULL DEFAULT 0,
    input_tokens INTEGER NOT NULL DEFAULT 0, output_tokens INTEGER NOT NULL DEFAULT 0, error TEXT
) STRICT;
CREATE INDEX open_batches ON batches (number) WHERE status IS NULL;
CREATE TABLE requests (
    place INTEGER PRIMARY KEY, custom_id TEXT NOT NULL, prompt TEXT NOT NULL, model TEXT NOT NULL, schema TEXT,
    prompt_hash INTEGER NOT NULL, attempt INTEGER NOT NULL, counted INTEGER NOT NULL
) STRICT;
CREATE INDEX requests_by_custom_id ON requests (custom_id);
CREATE INDEX requests_by_prompt ON requests (prompt_hash) WHERE counted;
CREATE TABLE results (
    place INTEGER PRIMARY KEY, outcome TEXT NOT NULL, text TEXT NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL
) STRICT;
CREATE TABLE billed (
    number INTEGER PRIMARY KEY, batch_id TEXT NOT NULL, custom_id TEXT NOT NULL, attempt INTEGER NOT NULL,
    prompt_hash INTEGER NOT NULL, model TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    valid INTEGER NOT NULL, at REAL NOT NULL
) STRICT;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
"""
LATER_COLUMNS = """
ALTER TABLE requests ADD COLUMN max_tokens INTEGER;
ALTER TABLE requests ADD COLUMN rejection TEXT;
ALTER TABLE requests ADD COLUMN note TEXT;
ALTER TABLE files ADD COLUMN details TEXT NOT NULL DEFAULT '{}';
ALTER TABLE batches ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0;
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT
"""
SELECT_BATCHES = """SELECT number, id, model, details, total, body_hash, created_at, duration, ending,
    status, ended_at, progress, succeeded, failed, missing, input_tokens, output_tokens, error FROM batches"""
SELECT_ITEMS = """SELECT custom_id, prompt, model, outcome, text, input_tokens, output_tokens,
    prompt_hash, attempt, rejection, note FROM results JOIN requests USING (place)"""
SELECT_REQUESTS = """SELECT place, custom_id, prompt, model, schema, prompt_hash, attempt,
    max_tokens, rejection FROM requests WHERE place >= ? AND place < ? ORDER BY place"""
INSERT_BILLED = """INSERT INTO billed
    (batch_id, custom_id, attempt, prompt_hash, model, input_tokens, output_tokens, valid, at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
PAID_TWICE = """SELECT count(*) FROM (
        SELECT number, min(number) FILTER (WHERE valid) OVER (PARTITION BY prompt_hash, model) AS first FROM billed
    ) WHERE number > first"""
TOTALS = {
    "batches": "SELECT count(*) FROM batches",
    "files": "SELECT count(*) FROM files",
    "batches_open": "SELECT count(*) FROM batches WHERE status IS NULL",
    "creates_dropped": "SELECT coalesce(sum(dropped), 0) FROM batches",
    "requests_received": "SELECT coalesce(sum(total), 0) FROM batches",
    "distinct_prompts": "SELECT count(DISTINCT prompt_hash) FROM requests",
    "billed_items": "SELECT count(*) FROM billed",
    "billed_invalid": "SELECT count(*) FROM billed WHERE NOT valid",
    "paid_twice": PAID_TWICE,
    "input_tokens": "SELECT coalesce(sum(input_tokens), 0) FROM billed",
    "output_tokens": "SELECT coalesce(sum(output_tokens), 0) FROM billed",
}

Decide = Callable[[int, StoredRequest], Result]  # what becomes of the request at this position
# Writes the files of an ended batch with its results; returns the batch's details, with what is to be kept in them.
Publish = Callable[[Batch, Iterator[Item], OpenFile], str]


class KeyReusedError(Exception):
    """An idempotency key came again with another body."""


class Store:
    """One file; one writer at a time, readers beside it. Safe to use from many threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = threading.Lock()
        self._counting = threading.Lock()
        self._idle: LifoQueue[sqlite3.Connection] = LifoQueue()
        self._counters: dict[str, int] = {}
        self.files = Files(self._transaction, self._reading)
        self._writer = self._connect()
        with self._transaction() as connection:
            prepare_tables(connection, path)
        self._counters.update(self._writer.execute("SELECT name, value FROM counters"))

    def close(self) -> None:
        with self._transaction():
            pass  # takes the counters along
        self._writer.close()
        while not self._idle.empty():
            self._idle.get().close()

    def count(self, name: str) -> int:
        """Counts one more; kept in memory and written with the next commit. Returns the new figure."""
        with self._counting:
            self._counters[name] = self._counters.get(name, 0) + 1
            return self._counters[name]

    def keep_counters(self) -> None:
        with self._transaction():
            pass

    def counters(self) -> dict[str, int]:
        with self._counting:
            return dict(self._counters)

    def add_batch(
        self,
        new: NewBatch,
        schedule: Callable[[int], Schedule],
        drops: Callable[[int], bool],
        order: Callable[[int], Sequence[int]],
    ) -> tuple[Batch, bool]:
        """The batch of a create, and whether it is a new one: the same idempotency key finds the first one again."""
        with self._transaction() as connection:
            earlier = self._batch_of_key(connection, new)
            if earlier is not None:
                return earlier, False
            number = next_number(connection)
            insert_batch(connection, number, new, schedule(number), dropped=drops(number))
            insert_requests(connection, number, new, order(number))
            return batch_of(connection, number), True

    def settle(self, batch: Batch, ending: Ending, decide: Decide, publish: Publish | None = None) -> Batch:
        """Ends a batch, exactly once: results, bill, files and final state in one transaction. An ended one stays."""
        with self._transaction() as connection:
            current = batch_of(connection, batch.number)
            if current.status is not None:
                return current
            end_batch(connection, batch, ending, decide)
            if publish is not None:
                publish_files(connection, batch_of(connection, batch.number), publish)
            return batch_of(connection, batch.number)

    def batch(self, batch_id: str) -> Batch | None:
        with self._reading() as connection:
            return select_batch(connection, "NOT deleted AND id = ?", batch_id)

    def delete_batch(self, batch: Batch) -> None:
        """Hides a batch from those who look for it; what it was billed stays."""
        with self._transaction() as connection:
            connection.execute("UPDATE batches SET deleted = 1 WHERE number = ?", (batch.number,))

    def batch_at(self, place: int) -> Batch | None:
        with self._reading() as connection:
            return select_batch(connection, "number = ?", place // PLACES)

    def newest_batches(self, before: int | None, created_until: float, limit: int) -> list[Batch]:
        """Newest first; only those with a lower number than `before`, if one is given."""
        with self._reading() as connection:
            rows = connection.execute(
                f"{SELECT_BATCHES} WHERE NOT deleted AND number < ? AND created_at <= ? ORDER BY number DESC LIMIT ?",
                (before or PLACES**2, created_until, limit),
            )
            return [to_batch(row) for row in rows]

    def next_batches(self, after: int, created_until: float, limit: int) -> list[Batch]:
        """Those that came next after that number, oldest first."""
        with self._reading() as connection:
            rows = connection.execute(
                f"{SELECT_BATCHES} WHERE NOT deleted AND number > ? AND created_at <= ? ORDER BY number LIMIT ?",
                (after, created_until, limit),
            )
            return [to_batch(row) for row in rows]

    def open_batches(self, ended_until: float) -> list[Batch]:
        """Batches whose time is over, but that nobody has looked at since."""
        with self._reading() as connection:
            rows = connection.execute(
                f"{SELECT_BATCHES} WHERE status IS NULL AND created_at + duration <= ? ORDER BY number",
                (ended_until,),
            )
            return [to_batch(row) for row in rows]

    def items(self, batch: Batch, offset: int, limit: int) -> list[Item]:
        """A page of a batch's results without gaps: those that are missing are passed over."""
        if batch.missing:
            where = "place >= ? AND place < ? AND outcome != 'missing' ORDER BY place LIMIT ? OFFSET ?"
            return self._items(where, *places(batch, 0, batch.total), limit, offset)
        return self._items("place >= ? AND place < ? ORDER BY place", *places(batch, offset, limit))

    def item_at(self, place: int) -> Item | None:
        found = self._items("place = ? AND outcome != 'missing'", place)
        return found[0] if found else None

    def places_of(self, custom_id: str) -> list[int]:
        """Where requests of this id are, newest first."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT place FROM requests WHERE custom_id = ? ORDER BY place DESC", (custom_id,)
            )
            return [place for (place,) in rows]

    def claim(self, dialect: str) -> None:
        """ValueError if another dialect wrote this state: it would not understand what is kept in it."""
        with self._transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO settings VALUES ('dialect', ?)", (dialect,))
            (owner,) = connection.execute("SELECT value FROM settings WHERE name = 'dialect'").fetchone()
        if owner != dialect:
            raise ValueError(f"{self.path} was written by the dialect {owner!r}, not {dialect!r}: use another state")

    def totals(self) -> dict[str, int]:
        with self._reading() as connection:
            return {name: connection.execute(query).fetchone()[0] for name, query in TOTALS.items()}

    def outcomes(self) -> dict[str, int]:
        with self._reading() as connection:
            counted = dict(connection.execute("SELECT outcome, count(*) FROM results GROUP BY outcome"))
        return {outcome.value: counted.get(outcome.value, 0) for outcome in Outcome}

    def billed_rows(self) -> Iterator[dict[str, object]]:
        """The rows of `billed`, oldest first, a thousand at a time: a slow reader holds nothing open."""
        last = 0
        while True:
            with self._reading() as connection:
                cursor = connection.execute(
                    "SELECT * FROM billed WHERE number > ? ORDER BY number LIMIT ?", (last, ROWS_AT_ONCE)
                )
                names = [column[0] for column in cursor.description]
                rows = cursor.fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield from (dict(zip(names, row, strict=True)) for row in rows)

    def _items(self, where: str, *values: int) -> list[Item]:
        with self._reading() as connection:
            return list(select_items(connection, where, *values))

    @staticmethod
    def _batch_of_key(connection: sqlite3.Connection, new: NewBatch) -> Batch | None:
        if new.idempotency_key is None:
            return None
        batch = select_batch(connection, "idempotency_key = ?", new.idempotency_key)
        if batch is not None and batch.body_hash != new.body_hash:
            raise KeyReusedError
        return batch

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -8000")
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                write_counters(self._writer, self.counters())
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._idle.get_nowait()
        except Empty:
            connection = self._connect()
        try:
            yield connection
        finally:
            self._idle.put(connection)


def prepare_tables(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise ValueError(f"{path} was written by a newer emulator (format {version}, this one reads {VERSION})")
    for tables in (TABLES, FILE_TABLES, LATER_COLUMNS)[version:]:
        for statement in tables.split(";"):
            connection.execute(statement)
    if version < VERSION:
        connection.execute(f"PRAGMA user_version = {VERSION}")


def write_counters(connection: sqlite3.Connection, counters: dict[str, int]) -> None:
    connection.executemany("INSERT OR REPLACE INTO counters VALUES (?, ?)", counters.items())


def next_number(connection: sqlite3.Connection) -> int:
    (last,) = connection.execute("SELECT coalesce(max(number), 0) FROM batches").fetchone()
    return int(last) + 1


def places(batch: Batch, offset: int, limit: int) -> tuple[int, int]:
    """First place of a range of positions, and the place after its last."""
    first = batch.number * PLACES
    return first + offset, first + min(offset + limit, batch.total)


def insert_batch(
    connection: sqlite3.Connection, number: int, new: NewBatch, schedule: Schedule, *, dropped: bool
) -> None:
    connection.execute(
        """INSERT INTO batches (number, id, model, details, total, body_hash, idempotency_key, dropped,
            created_at, duration, ending) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            number,
            new.id or f"batch_{uuid4().hex}",
            new.model,
            new.details,
            len(new.requests),
            new.body_hash,
            new.idempotency_key,
            dropped,
            schedule.created_at,
            schedule.duration,
            schedule.ending,
        ),
    )


def insert_requests(connection: sqlite3.Connection, number: int, new: NewBatch, order: Sequence[int]) -> None:
    first = number * PLACES
    rows = (request_row(connection, first, position, new.requests[index]) for position, index in enumerate(order))
    connection.executemany("INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def request_row(connection: sqlite3.Connection, first: int, position: int, request: Request) -> tuple[object, ...]:
    """The attempt is the one that the id carries, else counted: one more than earlier batches asked this prompt."""
    custom_id, prompt, model, schema, *rest = request
    attempt = attempt_of(custom_id)
    counted = attempt is None
    if attempt is None:
        prompt_hash = hash_prompt(prompt, schema)
        attempt = 1 + times_asked(connection, prompt_hash, first)
    else:  # an answer may have to repeat the id: without it the prompt is the same on every attempt
        prompt_hash = hash_prompt(prompt.replace(custom_id, ""), schema and schema.replace(custom_id, ""))
    return first + position, custom_id, prompt, model, schema, prompt_hash, attempt, counted, *rest


def times_asked(connection: sqlite3.Connection, prompt_hash: int, before: int) -> int:
    """How often a prompt whose id carries no attempt was asked before, whatever became of it."""
    query = "SELECT count(*) FROM requests WHERE counted AND prompt_hash = ? AND place < ?"
    return int(connection.execute(query, (prompt_hash, before)).fetchone()[0])


def select_batch(connection: sqlite3.Connection, where: str, value: object) -> Batch | None:
    row = connection.execute(f"{SELECT_BATCHES} WHERE {where}", (value,)).fetchone()
    return to_batch(row) if row else None


def batch_of(connection: sqlite3.Connection, number: int) -> Batch:
    """KeyError if there is none of that number."""
    batch = select_batch(connection, "number = ?", number)
    if batch is None:
        raise KeyError(number)
    return batch


def to_batch(row: tuple[Any, ...]) -> Batch:
    number, batch_id, model, details, total, body_hash, created_at, duration, ending, status, *rest = row
    schedule = Schedule(created_at, duration, Status(ending))
    return Batch(
        number, batch_id, model, details, total, body_hash, schedule, Status(status) if status else None, *rest
    )


def end_batch(connection: sqlite3.Connection, batch: Batch, ending: Ending, decide: Decide) -> None:
    """Results and bill of a batch, a thousand rows at a time, and at last its final state."""
    tally: Counter[str] = Counter()
    if ending.status is Status.FAILED:
        tally["failed"] = batch.total
    else:
        rows = connection.cursor().execute(SELECT_REQUESTS, places(batch, 0, batch.total))
        for start in range(0, batch.total, ROWS_AT_ONCE):
            requests = [StoredRequest._make(row) for row in islice(rows, ROWS_AT_ONCE)]
            results = [decide(position, request) for position, request in enumerate(requests, start)]
            insert_results(connection, results)
            tally.update(insert_bill(connection, batch.id, ending.ended_at, requests, results))
    write_ending(connection, batch.number, ending, tally)


def insert_results(connection: sqlite3.Connection, results: Sequence[Result]) -> None:
    rows = [(place, outcome.value, text, read, written) for place, outcome, text, read, written in results]
    connection.executemany("INSERT INTO results VALUES (?, ?, ?, ?, ?)", rows)


def insert_bill(
    connection: sqlite3.Connection,
    batch_id: str,
    ended_at: float,
    requests: Sequence[StoredRequest],
    results: Sequence[Result],
) -> dict[str, int]:
    """Writes the rows of what is billed. Returns what there is to add to the batch's figures."""
    billed = [
        (
            batch_id,
            request.custom_id,
            request.attempt,
            request.prompt_hash,
            request.model,
            result.input_tokens,
            result.output_tokens,
            result.outcome is Outcome.ANSWERED,
            ended_at,
        )
        for request, result in zip(requests, results, strict=True)
        if result.input_tokens
    ]
    connection.executemany(INSERT_BILLED, billed)
    missing = sum(result.outcome is Outcome.MISSING for result in results)
    return {
        "succeeded": len(billed),
        "missing": missing,
        "failed": len(results) - len(billed) - missing,
        "input_tokens": sum(result.input_tokens for result in results),
        "output_tokens": sum(result.output_tokens for result in results),
    }


def select_items(connection: sqlite3.Connection, where: str, *values: int) -> Iterator[Item]:
    rows = connection.execute(f"{SELECT_ITEMS} WHERE {where}", values)
    for custom_id, prompt, model, outcome, *rest in rows:
        yield Item(custom_id, prompt, model, Outcome(outcome), *rest)


def publish_files(connection: sqlite3.Connection, batch: Batch, publish: Publish) -> None:
    where = "place >= ? AND place < ? AND outcome != 'missing' ORDER BY place"
    items = select_items(connection, where, *places(batch, 0, batch.total))
    details = publish(batch, items, partial(FileWriter, connection))
    connection.execute("UPDATE batches SET details = ? WHERE number = ?", (details, batch.number))


def write_ending(connection: sqlite3.Connection, number: int, ending: Ending, tally: Counter[str]) -> None:
    connection.execute(
        """UPDATE batches SET status = ?, ended_at = ?, progress = ?, error = ?, succeeded = ?, failed = ?, missing = ?,
            input_tokens = ?, output_tokens = ? WHERE number = ?""",
        (
            ending.status.value,
            ending.ended_at,
            ending.progress,
            ending.error,
            tally["succeeded"],
            tally["failed"],
            tally["missing"],
            tally["input_tokens"],
            tally["output_tokens"],
            number,
        ),
    )
