"""Gemini's files: uploaded with Google's resumable protocol in one piece, and shown as JSON (§5).

Uploads under way are not part of the state: after a restart they start again.
"""

import base64
from collections.abc import Mapping
from hashlib import sha256
from typing import IO, NamedTuple
from uuid import uuid4

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as Call
from starlette.responses import Response

from blocks.emulator.dialects.gemini.errors import StatusError
from blocks.emulator.dialects.gemini.operations import time_json, without_empty
from blocks.emulator.service.files import PIECE_BYTES, NewFile, StoredFile
from blocks.emulator.service.service import Service
from blocks.emulator.wire.calls import JsonResponse, parse_json, read_body, spool_body
from blocks.emulator.wire.lines import Json, dump, member
from blocks.emulator.wire.uploads import temporary

MAX_BYTES = 2 << 30  # of an upload
MAX_BEGIN_BYTES = 1 << 16  # of the call that starts an upload
GRANULARITY = 1 << 18  # bytes; a client that cuts its content keeps to multiples of it
MAX_OPEN = 64  # uploads under way; older ones are forgotten
FILE_SECONDS = 48 * 3600
JSONL = "application/jsonl"


class Announced(NamedTuple):
    """What the first call says about the file; `size` in bytes, if it says so."""

    display_name: str
    mime_type: str
    size: int | None


class Uploads:
    """The uploads under way, by id."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._max_bytes = service.options.max_bytes or MAX_BYTES
        self._open: dict[str, Announced] = {}

    def begin(self, call: Call, body: bytes | None) -> Response:
        """The answer to an upload's first call: it names the address for the content. Raises StatusError."""
        protocol = call.headers.get("x-goog-upload-protocol")
        if protocol != "resumable" or commands_of(call.headers) != {"start"} or body is None:
            raise StatusError(400, "Uploads are resumable ones here, and begin with the command start.")
        announced = read_announced(call, body)
        if announced.size is not None and announced.size > self._max_bytes:
            raise StatusError(400, f"The file has more than {self._max_bytes} bytes.")
        while len(self._open) >= MAX_OPEN:
            self._open.pop(next(iter(self._open)))
        upload_id = uuid4().hex
        self._open[upload_id] = announced
        url = f"{call.url.replace(query='')}?upload_id={upload_id}&upload_protocol=resumable"
        headers = {
            "x-goog-upload-status": "active",
            "x-goog-upload-url": url,
            "x-goog-upload-control-url": url,
            "x-goog-upload-chunk-granularity": str(GRANULARITY),
        }
        return JsonResponse({}, headers=headers)

    async def finish(self, call: Call, upload_id: str) -> Response:
        """The answer to the call that brings the content: the file. Raises StatusError; it may be sent again then."""
        announced = self._open.get(upload_id)
        if announced is None:
            await read_body(call, limit=0)
            raise StatusError(404, "There is no such upload.")
        with temporary(self._service.store) as spool:
            size = await spool_body(call, spool, self._max_bytes)
            if problem := self._problem(call.headers, announced, size):
                raise StatusError(400, problem)
            file = await run_in_threadpool(self._keep, announced, spool)
        self._open.pop(upload_id, None)
        return JsonResponse({"file": file_json(file, call)}, headers={"x-goog-upload-status": "final"})

    def _problem(self, headers: Mapping[str, str], announced: Announced, size: int) -> str | None:
        if commands_of(headers) != {"upload", "finalize"} or headers.get("x-goog-upload-offset") != "0":
            return "The emulator takes the content in one piece: upload, finalize at the offset 0."
        if size > self._max_bytes:
            return f"The file has more than {self._max_bytes} bytes."
        if announced.size not in (None, size):
            return f"{announced.size} bytes were announced, {size} have arrived."
        return None

    def _keep(self, announced: Announced, spool: IO[bytes]) -> StoredFile:
        now, hashed = self._service.now(), base64.b64encode(hash_of(spool).encode()).decode()
        details = dump({"mimeType": announced.mime_type, "sha256Hash": hashed})
        spool.seek(0)
        new = NewFile(announced.display_name, "UPLOADED", now, now + FILE_SECONDS, details, uuid4().hex[:12])
        return self._service.store.files.add(new, spool)


def hash_of(spool: IO[bytes]) -> str:
    """SHA-256 of a file in hexadecimal."""
    digest = sha256()
    spool.seek(0)
    while piece := spool.read(PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()


def read_announced(call: Call, body: bytes) -> Announced:
    """What the first call says about the file; its names come in snake_case from us, in camelCase from the SDK."""
    file = member(parse_json(body) if body else {}, "file")
    name = file.get("displayName") or file.get("display_name") or ""
    size = call.headers.get("x-goog-upload-header-content-length", "")
    kind = call.headers.get("x-goog-upload-header-content-type") or file.get("mimeType") or JSONL
    return Announced(name, kind, int(size) if size.isascii() and size.isdigit() else None)


def commands_of(headers: Mapping[str, str]) -> frozenset[str]:
    """The commands in `x-goog-upload-command`."""
    commands = headers.get("x-goog-upload-command", "").lower().split(",")
    return frozenset(command.strip() for command in commands if command.strip())


def file_json(file: StoredFile, call: Call) -> Json:
    """A File."""
    shown = {
        "name": f"files/{file.id}",
        "displayName": file.name,
        **orjson.loads(file.details),
        "sizeBytes": str(file.bytes),
        "createTime": time_json(file.created_at),
        "updateTime": time_json(file.created_at),
        "expirationTime": None if file.expires_at is None else time_json(file.expires_at),
        "uri": f"{str(call.base_url).rstrip('/')}/v1beta/files/{file.id}",
        "state": "ACTIVE",
        "source": file.purpose,
    }
    return without_empty(shown)
