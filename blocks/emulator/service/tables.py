"""The tables of the emulator's one SQLite file.

A request's place is its batch's number times 2^24 plus its position in the order in which the batch is processed. A
result has the place of its request, so that a page of results is two ranges of neighbouring rows, however many batches
are kept.
"""

import sqlite3
from pathlib import Path

VERSION = 4
PLACES = 1 << 24  # places that a batch has
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
    prompt_hash INTEGER NOT NULL, attempt INTEGER NOT NULL, counted INTEGER NOT NULL,
    max_tokens INTEGER, rejection TEXT, note TEXT
) STRICT;
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
CREATE TABLE files (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, purpose TEXT NOT NULL,
    bytes INTEGER NOT NULL, created_at REAL NOT NULL, expires_at REAL, details TEXT NOT NULL
) STRICT;
CREATE TABLE pieces (place INTEGER PRIMARY KEY, content BLOB NOT NULL) STRICT;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT
"""


def create_tables(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables of a new file. Raises ValueError for a file of another format."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, VERSION):
        raise ValueError(f"{path} was written by another emulator (format {version}, this one reads {VERSION})")
    if version == 0:
        for statement in TABLES.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
