"""Input files of one request a line, and what the bodies of chat requests say; knows no provider."""

import os
from array import array
from collections.abc import Iterator
from typing import IO, Any

import orjson

Json = dict[str, Any]


class LineError(Exception):
    """What is wrong with a line of an input file, or with one request of a create."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class Lines:
    """The lines of a file on disk. Where they are is in memory, what is in them is not."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content = content
        self._starts = array("Q", [0])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int, /) -> bytes:
        start = self._starts[index]
        return os.pread(self._content.fileno(), self._starts[index + 1] - start, start)

    def read(self) -> Iterator[bytes]:
        """To be gone through once, before any line is asked for."""
        self._content.seek(0)
        for line in self._content:
            self._starts.append(self._starts[-1] + len(line))
            yield line

    @property
    def tokens(self) -> int:
        """About as many as a service would reckon with."""
        return self._starts[-1] // 4


def parse_line(text: bytes) -> Json:
    try:
        line = orjson.loads(text)
    except orjson.JSONDecodeError:
        line = None
    if not isinstance(line, dict):
        raise LineError("invalid_json_line", "This line is not parseable as valid JSON.")
    return line


def required(values: Json, name: str, kind: type, where: str = "") -> Any:
    value = values.get(name)
    if not isinstance(value, kind) or not value:
        raise LineError("missing_required_parameter", f"Missing required parameter: '{where}{name}'.", where + name)
    return value


def member(values: Json, name: str) -> Json:
    """An object in another one; empty if there is none."""
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def read_chat(body: Json) -> tuple[str, str | None]:
    """Prompt and schema of a body for `/v1/chat/completions`."""
    messages = required(body, "messages", list, "body.")
    form = member(body, "response_format")
    schema = member(form, "json_schema").get("schema") if form.get("type") == "json_schema" else None
    return read_messages(messages, "body.messages"), dump_schema(schema)


def read_messages(messages: list[Any], param: str) -> str:
    try:
        return "\n\n".join(text_of(message["content"]) for message in messages)
    except (KeyError, TypeError):
        raise LineError("invalid_request", f"Each of '{param}' must have a content.", param) from None


def text_of(content: Any) -> str:
    """Of a message; what is no text in it is passed over."""
    if isinstance(content, str):
        return content
    return "\n\n".join(part["text"] for part in content or () if "text" in part)


def dump_schema(schema: Any) -> str | None:
    return orjson.dumps(schema).decode() if isinstance(schema, dict) else None
