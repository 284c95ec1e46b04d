"""Requests on disk, one per line, and helpers that read members of a JSON object."""

import os
from array import array
from collections.abc import Callable, Iterator
from typing import IO, Any

import orjson

from blocks.emulator.service.batch import Request

Json = dict[str, Any]


class LineError(Exception):
    """An error in a line of an input file, or in one request of a create."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class Lines:
    """The lines of a file on disk. Only their offsets are in memory."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content = content
        self._starts = array("Q", [0])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int, /) -> bytes:
        start = self._starts[index]
        return os.pread(self._content.fileno(), self._starts[index + 1] - start, start)

    def read(self) -> Iterator[bytes]:
        """All lines, once; only lines that were read can be asked for afterwards."""
        self._content.seek(0)
        for line in self._content:
            self._starts.append(self._starts[-1] + len(line))
            yield line

    def append(self, line: bytes) -> None:
        """Write one more line; `flush` the file before lines are asked for."""
        self._content.write(line)
        self._starts.append(self._starts[-1] + len(line))

    @property
    def tokens(self) -> int:
        """A rough count: a quarter of the bytes."""
        return self._starts[-1] // 4


class LineRequests:
    """The requests in the lines of a file; each is parsed when it is asked for."""

    def __init__(self, lines: Lines, parse: Callable[[bytes], Request]) -> None:
        self._lines = lines
        self._parse = parse

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int, /) -> Request:
        return self._parse(self._lines[index])


def parse_line(text: bytes) -> Json:
    """A line's object. Raises LineError."""
    try:
        line = orjson.loads(text)
    except orjson.JSONDecodeError:
        line = None
    if not isinstance(line, dict):
        raise LineError("invalid_json_line", "This line is not parseable as valid JSON.")
    return line


def required(values: Json, name: str, kind: type, where: str = "") -> Any:
    """A member of that type that is not empty. Raises LineError."""
    value = values.get(name)
    if not isinstance(value, kind) or not value:
        raise LineError("missing_required_parameter", f"Missing required parameter: '{where}{name}'.", where + name)
    return value


def member(values: Json, name: str) -> Json:
    """An object inside another one; empty if there is none."""
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def dump(value: object) -> str:
    """JSON text."""
    return orjson.dumps(value).decode()


def dump_schema(schema: Any) -> str | None:
    """JSON text of a schema; None for anything but an object."""
    return dump(schema) if isinstance(schema, dict) else None
