"""Files on their way in and out, never in memory as a whole."""

from tempfile import TemporaryFile
from typing import IO

from starlette.requests import Request as Call
from starlette.responses import Response, StreamingResponse

from blocks.emulator.service.files import StoredFile
from blocks.emulator.service.service import Service
from blocks.emulator.service.store import Store
from blocks.emulator.wire.calls import CutResponse, read_body
from blocks.emulator.wire.multipart import MultipartError, MultipartReader, Part

FIELD_BYTES = 1 << 12  # of a field beside the file


def temporary(store: Store) -> IO[bytes]:
    """A file beside the state: what else there is for temporary files may be kept in memory."""
    return TemporaryFile(dir=store.path.parent, prefix=".upload-")


def answer_file(service: Service, file: StoredFile) -> Response:
    """A file's content, which breaks off in the middle if so switched."""
    kind = CutResponse if service.download_is_cut() else StreamingResponse
    name = file.name.encode("ascii", "replace").decode().replace('"', "'")
    headers = {"content-length": str(file.bytes), "content-disposition": f'attachment; filename="{name}"'}
    return kind(service.store.files.content(file), headers=headers, media_type="application/octet-stream")


class UploadForm:
    """A form with one file, which is kept up to `max_bytes`; `size` is how long it really was."""

    def __init__(self, max_bytes: int, spool: IO[bytes]) -> None:
        self._max_bytes = max_bytes
        self._spool = spool
        self._part = ""
        self.fields: dict[str, bytearray] = {}
        self.filename: str | None = None
        self.size = 0

    async def read(self, call: Call) -> MultipartError | None:
        """To its end in any case: who is still writing hears no answer. Returns what is wrong with the form."""
        try:
            reader = MultipartReader(call.headers.get("content-type", ""))
        except MultipartError as error:
            await read_body(call, most=0)
            return error
        problem = None
        async for chunk in call.stream():
            problem = problem or self._feed(reader, chunk)
        return problem or reader.problem()

    @property
    def too_long(self) -> bool:
        return self.size > self._max_bytes

    def text(self, name: str) -> str:
        """Empty where there is no such field."""
        return self.fields.get(name, b"").decode(errors="replace")

    def _feed(self, reader: MultipartReader, chunk: bytes) -> MultipartError | None:
        try:
            for event in reader.feed(chunk):
                if isinstance(event, Part):
                    self._begin(event)
                else:
                    self._take(event)
        except MultipartError as error:
            return error
        return None

    def _begin(self, part: Part) -> None:
        if part.name in self.fields:
            raise MultipartError(f"the field {part.name!r} comes twice")
        self.fields[part.name] = bytearray()
        self._part = part.name
        if part.name == "file":
            self.filename = part.filename

    def _take(self, content: bytes) -> None:
        if self._part == "file":
            self.size += len(content)
            if not self.too_long:
                self._spool.write(content)
        elif len(self.fields[self._part]) + len(content) <= FIELD_BYTES:
            self.fields[self._part] += content
        else:
            raise MultipartError(f"the field {self._part!r} is too long")
