"""Uploaded forms with a file: a file of any size is never in memory as a whole."""

from tempfile import TemporaryFile
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from blocks.emulator.service.store import Store
from blocks.emulator.wire.calls import read_body

FIELD_BYTES = 1 << 12  # of a field beside the file


def temporary(store: Store) -> IO[bytes]:
    """A file beside the state: the default folder for temporary files may be in memory."""
    return TemporaryFile(dir=store.path.parent, prefix=".upload-")


class UploadForm:
    """A form with one file, written to `spool` up to `max_bytes`; `size` is its true length.

    The parser is driven directly: Starlette's form would copy each file in small steps through a thread.
    """

    def __init__(self, max_bytes: int, spool: IO[bytes]) -> None:
        self._max_bytes = max_bytes
        self._spool = spool
        self._header = b""
        self._value = b""
        self._part = ""
        self._ended = False
        self.fields: dict[str, bytearray] = {}
        self.filename: str | None = None
        self.size = 0

    async def read(self, request: Request) -> str | None:
        """Read the body to its end, even if it is invalid. Returns what is wrong with the form."""
        kind, parameters = parse_options_header(request.headers.get("content-type"))
        if kind != b"multipart/form-data" or not parameters.get(b"boundary"):
            await read_body(request, limit=0)
            return "the content type must be multipart/form-data with a boundary"
        problem = None
        parser = self._parser(parameters[b"boundary"])
        async for chunk in request.stream():
            problem = problem or feed(parser, chunk)
        return problem or (None if self._ended else "the body ends before its last boundary")

    @property
    def too_long(self) -> bool:
        """Whether the file is longer than allowed; its end is then not in the spool."""
        return self.size > self._max_bytes

    def text(self, name: str) -> str:
        """A field's value; empty if there is no such field."""
        return self.fields.get(name, b"").decode(errors="replace")

    def _parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part,
                "on_header_field": self._on_header,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_data,
                "on_end": self._on_end,
            },
        )

    def _on_part(self) -> None:
        self._part, self._header, self._value = "", b"", b""

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        header, value = self._header.lower(), self._value
        self._header = self._value = b""
        if header != b"content-disposition":
            return
        _, parameters = parse_options_header(value)
        self._part = parameters.get(b"name", b"").decode(errors="replace")
        if self._part in self.fields:
            raise FormParserError(f"the field {self._part!r} is repeated")
        self.fields[self._part] = bytearray()
        if self._part == "file" and b"filename" in parameters:
            self.filename = parameters[b"filename"].decode(errors="replace")

    def _on_headers_finished(self) -> None:
        if not self._part:
            raise FormParserError("a part has no name")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._part == "file":
            self.size += end - start
            if not self.too_long:
                self._spool.write(memoryview(data)[start:end])
        elif len(self.fields[self._part]) + end - start <= FIELD_BYTES:
            self.fields[self._part] += data[start:end]
        else:
            raise FormParserError(f"the field {self._part!r} is too long")

    def _on_end(self) -> None:
        self._ended = True


def feed(parser: MultipartParser, chunk: bytes) -> str | None:
    """Parse a chunk. Returns what is wrong with it."""
    try:
        parser.write(chunk)
    except FormParserError as error:
        return str(error)
    return None
