"""The `params` of one request of a message batch: the parsed request, or the error that Anthropic reports (§2.1).

`anthropic-version` of the create decides. Any model name is accepted; the rules for older models apply to those named
as such. Fields that our client can't send are refused, though the real service takes some of them.
"""

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from blocks.emulator.dialects.anthropic.schemas import SchemaError, checked_schema
from blocks.emulator.wire.lines import Json, dump

OLD_VERSION, VERSION = "2023-06-01", "2026-10-21"
KNOWN = {"model", "max_tokens", "messages", "system", "output_config", "temperature"}
EFFORTS = ("low", "medium", "high", "xhigh", "max")
TTLS = ("5m", "1h")
WITH_TEMPERATURE = re.compile(r"claude-(3|(haiku|sonnet|opus)-4(-[0-6])?(-\d{8})?$)")  # models that accept any value
MIN_CACHED = {  # tokens of the shortest prefix that is cached (§2.9); the longest name that fits decides
    "claude-opus-5": 512,
    "claude-fable-5": 512,
    "claude-opus-4-7": 2048,
    "claude-opus-4-6": 4096,
    "claude-opus-4-5": 4096,
    "claude-haiku-4-5": 4096,
    "": 1024,
}


class ParamsError(ValueError):
    """An error in a request."""


class Part(NamedTuple):
    """A piece of the prompt; `ttl` if everything up to its end is to be cached."""

    text: str
    ttl: str | None


class Segment(NamedTuple):
    """A prefix that is to be cached: what identifies it, and its length."""

    key: str
    tokens: int
    ttl: str


class Parameters(NamedTuple):
    """A parsed request; `schema` is JSON text."""

    prompt: str
    schema: str | None
    max_tokens: int
    segments: list[Segment]


def read_params(params: Json, version: str) -> Parameters:
    """Raises ParamsError."""
    for name in params:
        if name not in KNOWN:
            raise ParamsError(f"{name}: Extra inputs are not permitted")
    model = read_text(params, "model")
    max_tokens = read_count(params, "max_tokens")
    check_temperature(params.get("temperature"), model, version)
    parts = [*system_parts(params.get("system")), *message_parts(params.get("messages"))]
    schema = format_schema(params.get("output_config"))
    prompt = "\n\n".join(part.text for part in parts if part.text)
    return Parameters(prompt, schema, max_tokens, list(segments_of(parts, model)))


def check_temperature(value: Any, model: str, version: str) -> None:
    """Raises ParamsError: newer versions take no temperature, newer models only 1."""
    if value is None:
        return
    if version == VERSION:
        raise ParamsError(f"temperature: not supported with anthropic-version {version}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ParamsError("temperature: Input should be a valid number")
    if value != 1 and not WITH_TEMPERATURE.match(model) and model.startswith("claude-"):
        raise ParamsError(f"temperature: only the default value is supported by {model}")
    if not 0 <= value <= 1:
        raise ParamsError("temperature: range: 0..1")


def read_text(values: Json, name: str) -> str:
    """A text that is not empty. Raises ParamsError."""
    value = values.get(name)
    if value is None:
        raise ParamsError(f"{name}: Field required")
    if not isinstance(value, str) or not value:
        raise ParamsError(f"{name}: Input should be a valid string with at least 1 character")
    return value


def read_count(values: Json, name: str) -> int:
    """A whole number of at least 1. Raises ParamsError."""
    value = values.get(name)
    if value is None:
        raise ParamsError(f"{name}: Field required")
    if not isinstance(value, int) or isinstance(value, bool):
        raise ParamsError(f"{name}: Input should be a valid integer")
    if value < 1:
        raise ParamsError(f"{name}: Input should be greater than or equal to 1")
    return value


def read_ttl(block: Json, where: str) -> str | None:
    """How long the prefix that ends with this block is to be cached; None if it is not. Raises ParamsError."""
    control = block.get("cache_control")
    if control is None:
        return None
    if not isinstance(control, dict) or control.get("type") != "ephemeral":
        raise ParamsError(f"{where}: cache_control.type must be 'ephemeral'")
    ttl = control.get("ttl", "5m")
    if ttl not in TTLS:
        raise ParamsError(f"{where}: cache_control.ttl must be one of {', '.join(TTLS)}")
    return str(ttl)


def format_schema(config: Any) -> str | None:
    """The schema that the answer has to match, if one is given (§2.10). Raises ParamsError."""
    if config is None:
        return None
    if not isinstance(config, dict) or not config.keys() <= {"format", "effort"}:
        raise ParamsError("output_config: only format and effort are known")
    if config.get("effort") not in (None, *EFFORTS):
        raise ParamsError(f"output_config.effort: Input should be one of {', '.join(EFFORTS)}")
    form = config.get("format")
    if form is None:
        return None
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        raise ParamsError("output_config.format.type: Input should be 'json_schema'")
    if not isinstance(form.get("schema"), dict):
        raise ParamsError("output_config.format.schema: Field required")
    try:
        return checked_schema(dump(form["schema"]))
    except SchemaError as error:
        raise ParamsError(f"output_config.format.schema: {error}") from None


def system_parts(system: Any) -> Iterator[Part]:
    """The system text, as a string or in blocks. Raises ParamsError."""
    if system is None:
        return
    if isinstance(system, str):
        yield Part(system, None)
        return
    if not isinstance(system, list):
        raise ParamsError("system: Input should be a valid string or list")
    for index, block in enumerate(system):
        yield text_part(block, f"system.{index}")


def message_parts(messages: Any) -> Iterator[Part]:
    """The texts of all messages. Raises ParamsError."""
    if messages is None:
        raise ParamsError("messages: Field required")
    if not isinstance(messages, list) or not messages:
        raise ParamsError("messages: at least one message is required")
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        if not isinstance(message, dict) or message.get("role") != "user":
            raise ParamsError(f"{where}.role: Input should be 'user'")
        yield from content_parts(message.get("content"), where)


def content_parts(content: Any, where: str) -> Iterator[Part]:
    """The texts of one message. Raises ParamsError."""
    if not content:
        raise ParamsError(f"{where}: all messages must have non-empty content")
    if isinstance(content, str):
        yield Part(content, None)
        return
    if not isinstance(content, list):
        raise ParamsError(f"{where}.content: Input should be a valid string or list")
    for index, block in enumerate(content):
        yield text_part(block, f"{where}.content.{index}")


def text_part(block: Any, where: str) -> Part:
    """A text block; other blocks can't be sent. Raises ParamsError."""
    if not isinstance(block, dict) or block.get("type") != "text":
        raise ParamsError(f"{where}: Input should be a text block")
    text = block.get("text")
    if not isinstance(text, str) or not text:
        raise ParamsError(f"{where}: text content blocks must be non-empty")
    return Part(text, read_ttl(block, where))


def segments_of(parts: Sequence[Part], model: str) -> Iterator[Segment]:
    """The prefixes that are cached; one that is too short for that is ignored, as the service does."""
    digest, size, shortest = blake2b(model.encode(), digest_size=8), 0, min_cached(model)
    for part in parts:
        text = part.text.encode()
        digest.update(text)
        size += len(text)
        if part.ttl and size // 4 >= shortest:
            yield Segment(digest.hexdigest(), size // 4, part.ttl)


def min_cached(model: str) -> int:
    """Tokens of the shortest prefix that this model's cache takes."""
    return MIN_CACHED[max((name for name in MIN_CACHED if model.startswith(name)), key=len)]
