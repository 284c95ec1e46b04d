"""Everything the emulator knows, in one SQLite file, committed before anything is answered."""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, LifoQueue

from blocks.emulator.service.batch import Batch, Ending, Item, NewBatch, Schedule
from blocks.emulator.service.files import Files
from blocks.emulator.service.ledger import Ledger
from blocks.emulator.service.rows import (
    SELECT_BATCHES,
    Decide,
    Publish,
    batch_of,
    end_batch,
    insert_batch,
    insert_requests,
    next_number,
    places,
    publish_files,
    select_batch,
    select_items,
    to_batch,
)
from blocks.emulator.service.tables import PLACES, create_tables


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
        self.ledger = Ledger(self._reading)
        self._writer = self._connect()
        with self._transaction() as connection:
            create_tables(connection, path)
        self._counters.update(self._writer.execute("SELECT name, value FROM counters"))

    def close(self) -> None:
        """Write the counters and close all connections."""
        self.keep_counters()
        self._writer.close()
        while not self._idle.empty():
            self._idle.get().close()

    def claim(self, dialect: str) -> None:
        """Raises ValueError if another dialect wrote this state: it would not understand what is kept in it."""
        with self._transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO settings VALUES ('dialect', ?)", (dialect,))
            (owner,) = connection.execute("SELECT value FROM settings WHERE name = 'dialect'").fetchone()
        if owner != dialect:
            raise ValueError(f"{self.path} was written by the dialect {owner!r}, not {dialect!r}: use another state")

    def count(self, name: str) -> int:
        """Add one to a counter, which is kept in memory until the next commit. Returns the new figure."""
        with self._counting:
            self._counters[name] = self._counters.get(name, 0) + 1
            return self._counters[name]

    def keep_counters(self) -> None:
        """Write the counters now."""
        with self._transaction():
            pass  # every commit takes them along

    def counters(self) -> dict[str, int]:
        """The counters by name; one that was never counted is absent."""
        with self._counting:
            return dict(self._counters)

    def add_batch(
        self,
        new: NewBatch,
        schedule: Callable[[int], Schedule],
        drops: Callable[[int], bool],
        order: Callable[[int], Sequence[int]],
    ) -> tuple[Batch, bool]:
        """The batch of a create, and whether it is new: the same idempotency key finds the first one again.

        The functions are given the new batch's number. Raises KeyReusedError.
        """
        with self._transaction() as connection:
            earlier = batch_of_key(connection, new)
            if earlier is not None:
                return earlier, False
            number = next_number(connection)
            insert_batch(connection, number, new, schedule(number), dropped=drops(number))
            insert_requests(connection, number, new, order(number))
            return batch_of(connection, number), True

    def settle(self, batch: Batch, ending: Ending, decide: Decide, publish: Publish | None = None) -> Batch:
        """End a batch exactly once: results, bill, files and final state in one transaction. An ended one stays."""
        with self._transaction() as connection:
            current = batch_of(connection, batch.number)
            if current.status is not None:
                return current
            end_batch(connection, batch, ending, decide)
            if publish is not None:
                publish_files(connection, batch_of(connection, batch.number), publish)
            return batch_of(connection, batch.number)

    def batch(self, batch_id: str) -> Batch | None:
        """None if there is no batch of that id."""
        with self._reading() as connection:
            return select_batch(connection, "id = ?", batch_id)

    def newest_batches(self, before: int | None, created_until: float, limit: int) -> list[Batch]:
        """Newest first; only those with a lower number than `before`, if one is given."""
        where = "number < ? AND created_at <= ? ORDER BY number DESC LIMIT ?"
        return self._batches(where, before or PLACES**2, created_until, limit)

    def open_batches(self, ended_until: float) -> list[Batch]:
        """Batches whose time is over by then, but that have not been ended yet; oldest first."""
        return self._batches("status IS NULL AND created_at + duration <= ? ORDER BY number", ended_until)

    def items(self, batch: Batch, offset: int, limit: int) -> list[Item]:
        """A page of a batch's results without gaps: missing ones are skipped."""
        if batch.missing:
            where = "place >= ? AND place < ? AND outcome != 'missing' ORDER BY place LIMIT ? OFFSET ?"
            return self._items(where, *places(batch, 0, batch.total), limit, offset)
        return self._items("place >= ? AND place < ? ORDER BY place", *places(batch, offset, limit))

    def _batches(self, where: str, *values: float) -> list[Batch]:
        with self._reading() as connection:
            return [to_batch(row) for row in connection.execute(f"{SELECT_BATCHES} WHERE {where}", values)]

    def _items(self, where: str, *values: int) -> list[Item]:
        with self._reading() as connection:
            return list(select_items(connection, where, *values))

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


def batch_of_key(connection: sqlite3.Connection, new: NewBatch) -> Batch | None:
    """The earlier batch of a create's idempotency key. Raises KeyReusedError if its body was another."""
    if new.idempotency_key is None:
        return None
    batch = select_batch(connection, "idempotency_key = ?", new.idempotency_key)
    if batch is not None and batch.body_hash != new.body_hash:
        raise KeyReusedError
    return batch


def write_counters(connection: sqlite3.Connection, counters: dict[str, int]) -> None:
    """Write all counters."""
    connection.executemany("INSERT OR REPLACE INTO counters VALUES (?, ?)", counters.items())
