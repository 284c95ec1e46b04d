"""What becomes of results on their way: torn, reordered, cut, replaced. They are changed as JSON, so that it works in
every dialect, whether they come as the lines of a file or within another answer."""

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
PIECE = 1 << 20  # bytes of a line without end
LOST, FALSE_START, TORN, POISONED, ODD = "lost line", "false start", "torn line", "poison", "odd line"
TOKENS = re.compile(rb'"((?:prompt|completion|input|output)_tokens|(?:prompt|candidates)TokenCount)":\d+')


def tampered(options: EmulatorOptions, content: bytes, download: int) -> bytes:
    """The content as the download of that number brings it. What befalls a line befalls it in every download."""
    return b"".join(_changed(options, content.splitlines(keepends=True), download))


def tampered_rows(options: EmulatorOptions, rows: list[Any], reading: int) -> list[Any]:
    """Rows within another answer as its reading of that number brings them. Torn ones are in files only."""
    lines = [orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows]
    return [orjson.Fragment(line) for line in _changed(options, lines, reading, spared=TORN)]


def _changed(options: EmulatorOptions, lines: list[bytes], number: int, spared: str = "") -> list[bytes]:
    told = []
    for line in lines:
        row = orjson.loads(line)
        name = row.get("custom_id") or row.get("key") or (row.get("metadata") or {}).get("key") or ""
        told += _tell(line_faults(options, name) - {spared}, line, row, name)
    if options.shuffled:
        random.Random(f"{options.seed}/{number}").shuffle(told)  # noqa: S311  # a fault, no secret
    return told


def endless(content: Iterator[bytes]) -> Iterator[bytes]:
    """The content, its last line going on until nobody listens any more."""
    yield b"".join(content).rstrip(b"}\n")
    while True:
        yield b" " * PIECE


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


def line_faults(options: EmulatorOptions, name: str) -> set[str]:
    """What befalls the result of the request with this custom_id."""
    if (attempt_of(name) or 1) > options.fault_attempts:
        return set()
    rates = {
        LOST: options.lost_line_rate,
        FALSE_START: options.false_start_rate,
        TORN: options.torn_line_rate,
        POISONED: options.poison_rate,
        ODD: options.odd_line_rate,
    }
    what = name.rsplit("-", 2)[1:]  # its number and attempt: tags are random
    return {fault for fault, rate in rates.items() if hits(fault, rate, options.seed, what)}


def _tell(faults: set[str], line: bytes, row: Mapping[str, Any], name: str) -> list[bytes]:
    if LOST in faults:
        return []
    before = [_false_start(row, name)] if FALSE_START in faults else []
    if TORN in faults:
        return [*before, line[: -len(line) // 8].rstrip() + b"\n"]
    if POISONED in faults:
        line = TOKENS.sub(rb'"\1":1152921504606846976', line)
    if ODD in faults:
        line = rb'{"emoji":"\ud83d","score":NaN,' + line[1:]
    return [*before, line]


def _false_start(row: Mapping[str, Any], name: str) -> bytes:
    """A failure of the same request that was not billed, in the words of its dialect."""
    if "result" in row:
        error = {"type": "error", "error": {"type": "api_error", "message": "Internal server error"}}
        told: dict[str, Any] = {"custom_id": name, "result": {"type": "errored", "error": error}}
    elif "key" in row or "metadata" in row:
        named = {member: row[member] for member in ("key", "metadata") if member in row}
        told = {**named, "error": {"code": 13, "message": "Internal error encountered."}}
    elif "original_prompt" in row:
        error = {"code": "server_error", "message": "Internal server error"}
        told = {"custom_id": name, "status": "error", "response": None, "usage": None, "error": error}
    else:
        error = {"message": "Internal server error", "type": "server_error"}
        told = {"id": row.get("id"), "custom_id": name, "error": error, "response": None}
    return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)
