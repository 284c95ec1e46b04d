"""Uploads in several calls, by Google's resumable protocol; what has come goes to disk at once.

Uploads under way are not part of the state: after a restart they begin again.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import IO, NamedTuple
from uuid import uuid4

from starlette.requests import Request as Call

from blocks.emulator.service.store import Store
from blocks.emulator.wire.calls import read_body
from blocks.emulator.wire.transfers import temporary

GRANULARITY = 1 << 18  # bytes; every chunk but the last is a multiple of it
UPLOADS_AT_ONCE = 64  # older ones are forgotten


class UploadError(Exception):
    """What is wrong with a call of an upload."""


class Begun(NamedTuple):
    """What the first call said of the file."""

    id: str | None
    display_name: str | None
    mime_type: str
    size: int | None


class ResumableUpload:
    """One file that comes in pieces."""

    def __init__(self, begun: Begun, spool: IO[bytes], max_bytes: int) -> None:
        self.begun = begun
        self.spool = spool
        self.received = 0
        self._max_bytes = max_bytes
        self._hash = sha256()

    async def take(self, call: Call, commands: frozenset[str]) -> None:
        """A call's body, read to its end in any case. UploadError leaves the upload as far as it came."""
        problem = self._problem(call.headers, commands)
        if problem is not None or "upload" not in commands:
            await read_body(call, most=0)
        else:
            async for chunk in call.stream():
                self._write(chunk)
            problem = self._problem_afterwards(commands)
        if problem is not None:
            raise UploadError(problem)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def _write(self, chunk: bytes) -> None:
        self.received += len(chunk)
        if self.received <= self._max_bytes:
            self.spool.write(chunk)
            self._hash.update(chunk)

    def _problem(self, headers: Mapping[str, str], commands: frozenset[str]) -> str | None:
        if not commands or not commands <= {"upload", "finalize"}:
            return f"the command must be upload, finalize, query or cancel, not {', '.join(sorted(commands))}"
        offset = headers.get("x-goog-upload-offset", "")
        if "upload" in commands and offset != str(self.received):
            return f"the offset is {offset or 'missing'}; so far {self.received} bytes have come"
        return None

    def _problem_afterwards(self, commands: frozenset[str]) -> str | None:
        if self.received > self._max_bytes:
            return f"the file has more than {self._max_bytes} bytes"
        if "finalize" not in commands:
            whole = self.received % GRANULARITY == 0
            return None if whole else f"a chunk that is not the last must be a multiple of {GRANULARITY} bytes"
        declared = self.begun.size
        if declared is not None and declared != self.received:
            return f"{declared} bytes were announced, {self.received} have come"
        return None


class ResumableUploads:
    """Those under way, by id."""

    def __init__(self, store: Store, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._open: dict[str, ResumableUpload] = {}

    def begin(self, begun: Begun) -> str:
        """UploadError if the file would be too long. Returns the upload's id."""
        if begun.size is not None and begun.size > self._max_bytes:
            raise UploadError(f"the file has more than {self._max_bytes} bytes")
        while len(self._open) >= UPLOADS_AT_ONCE:
            self.forget(next(iter(self._open)))
        upload_id = uuid4().hex
        self._open[upload_id] = ResumableUpload(begun, temporary(self._store), self._max_bytes)
        return upload_id

    def find(self, upload_id: str) -> ResumableUpload | None:
        return self._open.get(upload_id)

    def forget(self, upload_id: str) -> None:
        self._open.pop(upload_id).spool.close()


def commands_of(headers: Mapping[str, str]) -> frozenset[str]:
    words = headers.get("x-goog-upload-command", "").lower().split(",")
    return frozenset(word.strip() for word in words if word.strip())
