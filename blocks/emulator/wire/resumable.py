"""Uploads in several calls, by Google's resumable protocol; what arrives goes to disk at once.

Uploads under way are not part of the state: after a restart they begin again.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import IO, NamedTuple
from uuid import uuid4

from starlette.requests import Request

from blocks.emulator.service.store import Store
from blocks.emulator.wire.calls import read_body
from blocks.emulator.wire.uploads import temporary

GRANULARITY = 1 << 18  # bytes; every chunk but the last is a multiple of it
UPLOADS_AT_ONCE = 64  # older ones are forgotten


class UploadError(Exception):
    """What is wrong with a call of an upload."""


class Announced(NamedTuple):
    """What the first call says about the file; `size` in bytes, if it says so."""

    display_name: str
    mime_type: str
    size: int | None


class ResumableUpload:
    """One file that arrives in pieces."""

    def __init__(self, announced: Announced, spool: IO[bytes], max_bytes: int) -> None:
        self.announced = announced
        self.spool = spool
        self.received = 0
        self._max_bytes = max_bytes
        self._hash = sha256()

    async def take(self, request: Request, commands: frozenset[str]) -> None:
        """Read a call's body to its end. Raises UploadError, which leaves the upload as far as it came."""
        problem = self._problem(request.headers, commands)
        if problem is not None or "upload" not in commands:
            await read_body(request, limit=0)
        else:
            async for chunk in request.stream():
                self._write(chunk)
            problem = self._problem_afterwards(commands)
        if problem is not None:
            raise UploadError(problem)

    @property
    def sha256(self) -> str:
        """Of the content, in hexadecimal."""
        return self._hash.hexdigest()

    def _write(self, chunk: bytes) -> None:
        self.received += len(chunk)
        if self.received <= self._max_bytes:
            self.spool.write(chunk)
            self._hash.update(chunk)

    def _problem(self, headers: Mapping[str, str], commands: frozenset[str]) -> str | None:
        if not commands or not commands <= {"upload", "finalize"}:
            return f"the command must be upload or finalize, not {', '.join(sorted(commands))}"
        offset = headers.get("x-goog-upload-offset", "")
        if "upload" in commands and offset != str(self.received):
            return f"the offset is {offset or 'missing'}; {self.received} bytes have arrived so far"
        return None

    def _problem_afterwards(self, commands: frozenset[str]) -> str | None:
        if self.received > self._max_bytes:
            return f"the file has more than {self._max_bytes} bytes"
        if "finalize" not in commands:
            whole = self.received % GRANULARITY == 0
            return None if whole else f"a chunk that is not the last must be a multiple of {GRANULARITY} bytes"
        size = self.announced.size
        if size is not None and size != self.received:
            return f"{size} bytes were announced, {self.received} have arrived"
        return None


class ResumableUploads:
    """The uploads under way, by id."""

    def __init__(self, store: Store, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._open: dict[str, ResumableUpload] = {}

    def begin(self, announced: Announced) -> str:
        """The id of a new upload. Raises UploadError if the file would be too long."""
        if announced.size is not None and announced.size > self._max_bytes:
            raise UploadError(f"the file has more than {self._max_bytes} bytes")
        while len(self._open) >= UPLOADS_AT_ONCE:
            self.forget(next(iter(self._open)))
        upload_id = uuid4().hex
        self._open[upload_id] = ResumableUpload(announced, temporary(self._store), self._max_bytes)
        return upload_id

    def find(self, upload_id: str) -> ResumableUpload | None:
        """None for one that is unknown, finished or forgotten."""
        return self._open.get(upload_id)

    def forget(self, upload_id: str) -> None:
        """Remove an upload and what arrived of it."""
        self._open.pop(upload_id).spool.close()


def commands_of(headers: Mapping[str, str]) -> frozenset[str]:
    """The words of `x-goog-upload-command`."""
    words = headers.get("x-goog-upload-command", "").lower().split(",")
    return frozenset(word.strip() for word in words if word.strip())
