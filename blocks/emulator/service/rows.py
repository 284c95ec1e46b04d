"""Batches, requests and results as rows: what the store writes and reads within its transactions."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
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
from blocks.emulator.service.files import FileWriter, OpenFile
from blocks.emulator.service.ledger import ROWS_AT_ONCE, insert_bill
from blocks.emulator.service.tables import PLACES

SELECT_BATCHES = """SELECT number, id, model, details, total, body_hash, created_at, duration, ending,
    status, ended_at, progress, succeeded, failed, missing, input_tokens, output_tokens, error FROM batches"""
SELECT_ITEMS = """SELECT custom_id, prompt, model, outcome, text, input_tokens, output_tokens,
    prompt_hash, attempt, rejection, note FROM results JOIN requests USING (place)"""
SELECT_REQUESTS = """SELECT place, custom_id, prompt, model, schema, prompt_hash, attempt,
    max_tokens, rejection FROM requests WHERE place >= ? AND place < ? ORDER BY place"""

Decide = Callable[[int, StoredRequest], Result]  # what becomes of the request at this position
# Writes the files of an ended batch from its results; returns the batch's details, with what is to be kept in them.
Publish = Callable[[Batch, Iterator[Item], OpenFile], str]


def places(batch: Batch, offset: int, limit: int) -> tuple[int, int]:
    """The first place of a range of positions, and the place after its last."""
    first = batch.number * PLACES
    return first + offset, first + min(offset + limit, batch.total)


def next_number(connection: sqlite3.Connection) -> int:
    """The number of the batch that comes next."""
    (last,) = connection.execute("SELECT coalesce(max(number), 0) FROM batches").fetchone()
    return int(last) + 1


def insert_batch(
    connection: sqlite3.Connection, number: int, new: NewBatch, schedule: Schedule, *, dropped: bool
) -> None:
    """Write a new batch, without its requests."""
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
    """Write a batch's requests in the order in which it will process them."""
    first = number * PLACES
    rows = (request_row(connection, first, position, new.requests[index]) for position, index in enumerate(order))
    connection.executemany("INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def request_row(connection: sqlite3.Connection, first: int, position: int, request: Request) -> tuple[object, ...]:
    """The attempt is the one in the id, else counted: one more than earlier batches asked this prompt."""
    custom_id, prompt, model, schema, *rest, _ = request
    attempt = attempt_of(custom_id)
    counted = attempt is None
    if attempt is None:
        prompt_hash = hash_prompt(prompt, schema)
        attempt = 1 + times_asked(connection, prompt_hash, first)
    else:  # an answer may have to repeat the id: without it the prompt is the same on every attempt
        prompt_hash = hash_prompt(prompt.replace(custom_id, ""), schema and schema.replace(custom_id, ""))
    return first + position, custom_id, prompt, model, schema, prompt_hash, attempt, counted, *rest


def times_asked(connection: sqlite3.Connection, prompt_hash: int, before: int) -> int:
    """How often a prompt whose id has no attempt was asked before, whatever became of it."""
    query = "SELECT count(*) FROM requests WHERE counted AND prompt_hash = ? AND place < ?"
    return int(connection.execute(query, (prompt_hash, before)).fetchone()[0])


def select_batch(connection: sqlite3.Connection, where: str, value: object) -> Batch | None:
    """The one batch of a condition."""
    row = connection.execute(f"{SELECT_BATCHES} WHERE {where}", (value,)).fetchone()
    return to_batch(row) if row else None


def batch_of(connection: sqlite3.Connection, number: int) -> Batch:
    """Raises KeyError if there is no batch of that number."""
    batch = select_batch(connection, "number = ?", number)
    if batch is None:
        raise KeyError(number)
    return batch


def to_batch(row: tuple[Any, ...]) -> Batch:
    """A batch from a row of `SELECT_BATCHES`."""
    number, batch_id, model, details, total, body_hash, created_at, duration, ending, status, *rest = row
    schedule = Schedule(created_at, duration, Status(ending))
    return Batch(
        number, batch_id, model, details, total, body_hash, schedule, Status(status) if status else None, *rest
    )


def select_items(connection: sqlite3.Connection, where: str, *values: int) -> Iterator[Item]:
    """Results with their requests."""
    rows = connection.execute(f"{SELECT_ITEMS} WHERE {where}", values)
    for custom_id, prompt, model, outcome, *rest in rows:
        yield Item(custom_id, prompt, model, Outcome(outcome), *rest)


def end_batch(connection: sqlite3.Connection, batch: Batch, ending: Ending, decide: Decide) -> None:
    """Write the results and the bill of a batch, a thousand rows at a time, and at last its final state."""
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
    """Write what became of requests."""
    rows = [(place, outcome.value, text, read, written) for place, outcome, text, read, written in results]
    connection.executemany("INSERT INTO results VALUES (?, ?, ?, ?, ?)", rows)


def publish_files(connection: sqlite3.Connection, batch: Batch, publish: Publish) -> None:
    """Write the files of an ended batch, and the dialect's details with them."""
    where = "place >= ? AND place < ? AND outcome != 'missing' ORDER BY place"
    items = select_items(connection, where, *places(batch, 0, batch.total))
    details = publish(batch, items, partial(FileWriter, connection))
    connection.execute("UPDATE batches SET details = ? WHERE number = ?", (details, batch.number))


def write_ending(connection: sqlite3.Connection, number: int, ending: Ending, tally: Counter[str]) -> None:
    """Write a batch's final state and its figures."""
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
