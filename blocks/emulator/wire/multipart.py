"""Takes a `multipart/form-data` body apart while it comes in: a file of any size is never in memory as a whole."""

from collections.abc import Iterator
from email.message import Message
from enum import Enum, auto
from typing import NamedTuple

HEADERS_AT_MOST = 1 << 14


class MultipartError(ValueError):
    """The body is no sound `multipart/form-data`."""


class Part(NamedTuple):
    """The head of a part; its content follows in pieces."""

    name: str
    filename: str | None


class At(Enum):
    """Where in the body the reader is."""

    CONTENT = auto()
    DELIMITER = auto()  # right behind one
    HEADERS = auto()
    END = auto()


class MultipartReader:
    """Fed with the body's chunks, gives the head of each part and then its content, piece by piece."""

    def __init__(self, content_type: str) -> None:
        head = Message()
        head["content-type"] = content_type
        boundary = head.get_boundary()
        if head.get_content_type() != "multipart/form-data" or not boundary:
            raise MultipartError("the content type must be multipart/form-data with a boundary")
        self._delimiter = b"\r\n--" + boundary.encode()
        self._buffer = bytearray(b"\r\n")  # the first delimiter may stand at the very beginning
        self._at = At.CONTENT
        self._in_part = False

    def feed(self, chunk: bytes) -> Iterator[Part | bytes]:
        self._buffer += chunk
        while self._at is not At.END:
            before = self._at, len(self._buffer)
            yield from self._step()
            if before == (self._at, len(self._buffer)):
                return
        self._buffer.clear()

    def problem(self) -> MultipartError | None:
        """To be asked at the end: whether the body broke off."""
        return None if self._at is At.END else MultipartError("the body ends before its last boundary")

    def _step(self) -> Iterator[Part | bytes]:
        if self._at is At.CONTENT:
            yield from self._read_content()
        elif self._at is At.DELIMITER:
            self._read_delimiter()
        else:
            yield from self._read_headers()

    def _read_content(self) -> Iterator[bytes]:
        found = self._buffer.find(self._delimiter)
        end = found if found >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
        if end and self._in_part:
            yield bytes(memoryview(self._buffer)[:end])
        if found >= 0:
            self._at = At.DELIMITER
            end += len(self._delimiter)
        del self._buffer[:end]

    def _read_delimiter(self) -> None:
        """Leaves the line's end in the buffer: headers begin behind one."""
        if self._buffer.startswith(b"--"):
            self._at = At.END
            return
        end = self._buffer.find(b"\r\n")
        if self._buffer[: end if end >= 0 else max(0, len(self._buffer) - 1)].strip(b" \t-"):
            raise MultipartError("there is something behind a boundary")
        if end >= 0:
            del self._buffer[:end]
            self._at = At.HEADERS

    def _read_headers(self) -> Iterator[Part]:
        end = self._buffer.find(b"\r\n\r\n")
        if end > HEADERS_AT_MOST or (end < 0 and len(self._buffer) > HEADERS_AT_MOST):
            raise MultipartError("the headers of a part are too long")
        if end >= 0:
            yield read_head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            self._at, self._in_part = At.CONTENT, True


def read_head(lines: bytes) -> Part:
    for line in lines.decode(errors="replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            head = Message()
            head["content-disposition"] = value.strip()
            field = head.get_param("name", header="content-disposition")
            if isinstance(field, str):
                return Part(field, head.get_filename())
    raise MultipartError("a part has no name")
