"""What becomes of files of results on their way: torn, reordered, cut, replaced. Lines are changed as JSON, so that it
works in every dialect that has such files."""

import gzip
import random
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from blocks.emulator.options import EmulatorOptions
from blocks.emulator.service.batch import attempt_of
from blocks.emulator.service.faults import hits

PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Your session has expired.</body></html>\n"
BOMB_BYTES = 1 << 30  # of the same sign, packed into a megabyte
TOKENS = re.compile(rb'"((?:prompt|completion|input|output)_tokens|(?:prompt|candidates)TokenCount)":\d+')


def tampered(options: EmulatorOptions, content: bytes, download: int) -> bytes:
    """The content as the download of that number brings it. What befalls a line befalls it in every download."""
    lines = [told for line in content.splitlines(keepends=True) for told in _tell(options, line)]
    if options.shuffled:
        random.Random(f"{options.seed}/{download}").shuffle(lines)  # noqa: S311  # a fault, no secret
    return b"".join(lines)


def bomb() -> Iterator[bytes]:
    """A gzip file that unpacks to `BOMB_BYTES`, a piece at a time."""
    piece = gzip.compress(bytes(1 << 22), 9)
    for _ in range(BOMB_BYTES >> 22):
        yield piece


def tampers(options: EmulatorOptions) -> bool:
    """Whether any switch is on that changes lines."""
    return any((
        options.shuffled, options.odd_line_rate, options.torn_line_rate, options.lost_line_rate,
        options.false_start_rate, options.poison_rate,
    ))  # fmt: skip


def _tell(options: EmulatorOptions, line: bytes) -> list[bytes]:
    row = orjson.loads(line)
    name = row.get("custom_id") or row.get("key") or ""
    if (attempt_of(name) or 1) > options.fault_attempts:
        return [line]

    def is_hit(fault: str, rate: float) -> bool:
        return hits(fault, rate, options.seed, name.rsplit("-", 2)[1:])  # its number and attempt: tags are random

    if is_hit("lost line", options.lost_line_rate):
        return []
    before = [_false_start(row, name)] if is_hit("false start", options.false_start_rate) else []
    if is_hit("torn line", options.torn_line_rate):
        return [*before, line[: -len(line) // 8].rstrip() + b"\n"]
    if is_hit("poison", options.poison_rate):
        line = TOKENS.sub(rb'"\1":1152921504606846976', line)
    if is_hit("odd line", options.odd_line_rate):
        line = rb'{"emoji":"\ud83d","score":NaN,' + line[1:]
    return [*before, line]


def _false_start(row: Mapping[str, Any], name: str) -> bytes:
    """A failure of the same request that was not billed, in the words of its dialect."""
    if "result" in row:
        error = {"type": "error", "error": {"type": "api_error", "message": "Internal server error"}}
        told: dict[str, Any] = {"custom_id": name, "result": {"type": "errored", "error": error}}
    elif "key" in row:
        told = {"key": name, "error": {"code": 13, "message": "Internal error encountered."}}
    else:
        error = {"message": "Internal server error", "type": "server_error"}
        told = {"id": row.get("id"), "custom_id": name, "error": error, "response": None}
    return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)
