"""What was billed: one row per billed answer, written in the transaction that ends the batch.

To query it in SQL:

    -- paid twice: prompts that already had a valid answer
    SELECT * FROM (
        SELECT *, min(number) FILTER (WHERE valid) OVER (PARTITION BY prompt_hash, model) AS first FROM billed
    ) WHERE number > first;
    -- outcomes of all requests of ended batches
    SELECT outcome, count(*) FROM results GROUP BY outcome;
"""

import sqlite3
from collections.abc import Iterator, Sequence

from blocks.emulator.service.batch import Outcome, Result, StoredRequest
from blocks.emulator.service.files import Connected

ROWS_AT_ONCE = 1000
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


class Ledger:
    """Read access to what was billed."""

    def __init__(self, reading: Connected) -> None:
        self._reading = reading

    def totals(self) -> dict[str, int]:
        """The figures of `TOTALS`."""
        with self._reading() as connection:
            return {name: connection.execute(query).fetchone()[0] for name, query in TOTALS.items()}

    def outcomes(self) -> dict[str, int]:
        """Requests of ended batches by outcome; every outcome is named."""
        with self._reading() as connection:
            counted = dict(connection.execute("SELECT outcome, count(*) FROM results GROUP BY outcome"))
        return {outcome.value: counted.get(outcome.value, 0) for outcome in Outcome}

    def rows(self) -> Iterator[dict[str, object]]:
        """The rows of `billed`, oldest first. Read a thousand at a time, so a slow reader holds nothing open."""
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


def insert_bill(
    connection: sqlite3.Connection,
    batch_id: str,
    ended_at: float,
    requests: Sequence[StoredRequest],
    results: Sequence[Result],
) -> dict[str, int]:
    """Write the rows of what is billed. Returns what to add to the batch's figures."""
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
