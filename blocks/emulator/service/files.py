"""Files that clients upload and that batches leave behind: in pieces, in the emulator's one SQLite file."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import IO, NamedTuple
from uuid import uuid4

PIECE_BYTES = 1 << 18
PIECES = 1 << 24  # pieces that a file has room for
SELECT_FILES = "SELECT number, id, name, purpose, bytes, created_at, expires_at, details FROM files"
LIVING = "(expires_at IS NULL OR expires_at > ?)"


class NewFile(NamedTuple):
    """A file to keep; without `expires_at` it is kept for good.

    `details` is the dialect's own JSON text, returned unchanged; `id` is the dialect's choice, if it has one.
    """

    name: str
    purpose: str
    created_at: float
    expires_at: float | None = None
    details: str = "{}"
    id: str | None = None


class StoredFile(NamedTuple):
    """A file as kept, without its content."""

    number: int
    id: str
    name: str
    purpose: str
    bytes: int
    created_at: float
    expires_at: float | None
    details: str


class FileWriter:
    """Writes one file within a transaction. A file to which nothing is written is not created."""

    def __init__(self, connection: sqlite3.Connection, new: NewFile) -> None:
        self._connection = connection
        self._new = new
        self._buffer = bytearray()
        self._number = 0
        self._pieces = 0
        self._bytes = 0
        self.id: str | None = None

    def write(self, content: bytes) -> None:
        """Append to the file."""
        self._buffer += content
        if len(self._buffer) >= PIECE_BYTES:
            self._write_piece()

    def close(self, *, even_empty: bool = False) -> None:
        """Write what is left. From here on `id` is known, if there is a file."""
        if self._buffer or even_empty:
            self._write_piece()
        if self.id is not None:
            self._connection.execute("UPDATE files SET bytes = ? WHERE number = ?", (self._bytes, self._number))

    def _write_piece(self) -> None:
        if self.id is None:
            self._insert()
        place = self._number * PIECES + self._pieces
        self._connection.execute("INSERT INTO pieces VALUES (?, ?)", (place, self._buffer))
        self._pieces += 1
        self._bytes += len(self._buffer)
        self._buffer = bytearray()

    def _insert(self) -> None:
        *values, chosen_id = self._new
        self.id = chosen_id or f"file-{uuid4().hex[:24]}"
        cursor = self._connection.execute(
            "INSERT INTO files (id, name, purpose, created_at, expires_at, details, bytes) "
            "VALUES (?, ?, ?, ?, ?, ?, 0)",
            (self.id, *values),
        )
        self._number = cursor.lastrowid or 0


OpenFile = Callable[[NewFile], FileWriter]
Connected = Callable[[], AbstractContextManager[sqlite3.Connection]]


class Files:
    """The files that are kept; one that has expired is not found."""

    def __init__(self, transaction: Connected, reading: Connected) -> None:
        self._transaction = transaction
        self._reading = reading

    def add(self, new: NewFile, content: IO[bytes]) -> StoredFile:
        """Keep a file, even an empty one; `content` is read from where it stands."""
        with self._transaction() as connection:
            writer = FileWriter(connection, new)
            while piece := content.read(PIECE_BYTES):
                writer.write(piece)
            writer.close(even_empty=True)
            return StoredFile._make(connection.execute(f"{SELECT_FILES} WHERE id = ?", (writer.id,)).fetchone())

    def find(self, file_id: str, now: float) -> StoredFile | None:
        """None for a file that is unknown or has expired."""
        with self._reading() as connection:
            row = connection.execute(f"{SELECT_FILES} WHERE id = ? AND {LIVING}", (file_id, now)).fetchone()
            return StoredFile._make(row) if row else None

    def newest(self, purpose: str | None, before: int | None, limit: int, now: float) -> list[StoredFile]:
        """Newest first; only those with a lower number than `before`, if one is given."""
        query = (
            f"{SELECT_FILES} WHERE number < ? AND (? IS NULL OR purpose = ?) AND {LIVING} ORDER BY number DESC LIMIT ?"
        )
        values = (before or PIECES**2, purpose, purpose, now, limit)
        with self._reading() as connection:
            return [StoredFile._make(row) for row in connection.execute(query, values)]

    def delete(self, file: StoredFile) -> None:
        """Remove a file and its content."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM files WHERE number = ?", (file.number,))
            first = file.number * PIECES
            connection.execute("DELETE FROM pieces WHERE place >= ? AND place < ?", (first, first + PIECES))

    def content(self, file: StoredFile) -> Iterator[bytes]:
        """Piece by piece, so a slow reader holds nothing open. Raises LookupError if the file is deleted meanwhile."""
        place, left = file.number * PIECES, file.bytes
        while left:
            with self._reading() as connection:
                row = connection.execute("SELECT content FROM pieces WHERE place = ?", (place,)).fetchone()
            if row is None:
                raise LookupError(f"{file.id} was deleted while it was read")
            yield row[0]
            place, left = place + 1, left - len(row[0])
