"""Gemini's files: uploaded by the resumable protocol, and shown as JSON (§5)."""

import base64
from uuid import uuid4

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as Call
from starlette.responses import Response

from blocks.emulator.dialects.gemini.errors import StatusError
from blocks.emulator.dialects.gemini.operations import time_json, without_empty
from blocks.emulator.service.files import NewFile, StoredFile
from blocks.emulator.service.service import Service
from blocks.emulator.wire.calls import JsonResponse, parse_json, read_body
from blocks.emulator.wire.lines import Json, dump, member
from blocks.emulator.wire.resumable import (
    GRANULARITY,
    Announced,
    ResumableUpload,
    ResumableUploads,
    UploadError,
    commands_of,
)

MAX_BYTES = 2 << 30  # of an upload
MAX_BEGIN_BYTES = 1 << 16  # of the call that begins one
FILE_SECONDS = 48 * 3600
JSONL = "application/jsonl"


class Uploads:
    """The uploads of one emulator."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._open = ResumableUploads(service.store, service.options.max_bytes or MAX_BYTES)

    def begin(self, call: Call, body: bytes | None) -> Response:
        """The answer to an upload's first call: it names the address for the content. Raises StatusError."""
        protocol = call.headers.get("x-goog-upload-protocol")
        if protocol != "resumable" or commands_of(call.headers) != {"start"} or body is None:
            raise StatusError(400, "Uploads are resumable ones here, and begin with the command start.")
        try:
            upload_id = self._open.begin(read_announced(call, body))
        except UploadError as error:
            raise StatusError(400, str(error)) from None
        url = f"{call.url.replace(query='')}?upload_id={upload_id}&upload_protocol=resumable"
        headers = {
            "x-goog-upload-url": url,
            "x-goog-upload-control-url": url,
            "x-goog-upload-chunk-granularity": str(GRANULARITY),
        }
        return JsonResponse({}, headers={**upload_status("active"), **headers})

    async def go_on(self, call: Call, upload_id: str) -> Response:
        """The answer to a call that brings content: the file after the last one. Raises StatusError."""
        upload = self._open.find(upload_id)
        if upload is None:
            await read_body(call, limit=0)
            raise StatusError(404, "There is no such upload.")
        commands = commands_of(call.headers)
        try:
            await upload.take(call, commands)
        except UploadError as error:
            raise StatusError(400, str(error)) from None
        if "finalize" not in commands:
            return JsonResponse({}, headers=upload_status("active"))
        file = await run_in_threadpool(self._keep, upload)
        self._open.forget(upload_id)
        return JsonResponse({"file": file_json(file, call)}, headers=upload_status("final"))

    def _keep(self, upload: ResumableUpload) -> StoredFile:
        upload.spool.seek(0)
        announced, now = upload.announced, self._service.now()
        hashed = base64.b64encode(upload.sha256.encode()).decode()
        details = dump({"mimeType": announced.mime_type, "sha256Hash": hashed})
        new = NewFile(announced.display_name, "UPLOADED", now, now + FILE_SECONDS, details, uuid4().hex[:12])
        return self._service.store.files.add(new, upload.spool)


def read_announced(call: Call, body: bytes) -> Announced:
    """What the first call says about the file; its names come in snake_case from us, in camelCase from the SDK."""
    file = member(parse_json(body) if body else {}, "file")
    name = file.get("displayName") or file.get("display_name") or ""
    size = call.headers.get("x-goog-upload-header-content-length", "")
    kind = call.headers.get("x-goog-upload-header-content-type") or file.get("mimeType") or JSONL
    return Announced(name, kind, int(size) if size.isascii() and size.isdigit() else None)


def upload_status(status: str) -> dict[str, str]:
    """The header that says how far an upload is."""
    return {"x-goog-upload-status": status}


def file_json(file: StoredFile, call: Call) -> Json:
    """A File."""
    uri = f"{str(call.base_url).rstrip('/')}/v1beta/files/{file.id}"
    shown = {
        "name": f"files/{file.id}",
        "displayName": file.name,
        **orjson.loads(file.details),
        "sizeBytes": str(file.bytes),
        "createTime": time_json(file.created_at),
        "updateTime": time_json(file.created_at),
        "expirationTime": None if file.expires_at is None else time_json(file.expires_at),
        "uri": uri,
        "state": "ACTIVE",
        "source": file.purpose,
    }
    return without_empty(shown)
