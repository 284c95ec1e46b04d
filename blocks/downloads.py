"""What servers send, bounded: bytes are unpacked and cut into lines as they come, and memory does not grow with them.

A connection that breaks is never continued by another one where it ended. The second may bring the same answers in
another order, and two halves would be stitched into one answer: a file is read again from its start, and only whole
lines are passed on.
"""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator

from blocks.errors import ProviderError
from blocks.tolerant import is_json

PIECE = 256 * 1024  # bytes that are unpacked at once
LONGEST_LINE = 16 * 1024 * 1024  # bytes; the longest answer of any model has less, each of its characters escaped
KEPT_OF_LONGER = 64 * 1024  # bytes of a line that is longer: enough to tell whose it is
ENDLESS_LINE = 1024 * 1024 * 1024
MOST_EXPANSION = 200  # times that packed results grow; JSON grows 5 to 50 times
ALWAYS_ALLOWED = 64 * 1024 * 1024  # bytes, however small they were
LONGEST_TIME = 3600.0  # seconds for one file
PAGES = ("text/html", "application/xhtml", "text/xml", "application/xml")  # what proxies answer in a service's place


class Damaged(Exception):
    """What came is not what the server meant to send. `partial`: it is the beginning of it."""

    def __init__(self, message: str, *, partial: bool = False) -> None:
        super().__init__(message)
        self.partial = partial


class TooMuch(Damaged):
    """More than is read as a whole."""


class Overlong(bytes):
    """The beginning of a line that is too long to be read."""


def unpacked(chunks: Iterable[bytes], encoding: str, most: int | None = None) -> Iterator[bytes]:
    """The bytes of a body in small pieces. Raises Damaged if it is not whole, explodes, or has more than `most`."""
    pieces = _counted(chunks) if encoding in {"", "identity"} else _inflated(chunks, encoding)
    size, until = 0, time.monotonic() + LONGEST_TIME
    for piece, received in pieces:
        size += len(piece)
        if size > ALWAYS_ALLOWED and size > MOST_EXPANSION * received:
            raise Damaged(f"what it sent grew from {received:,} to more than {size:,} bytes when it was unpacked")
        if most is not None and size > most:
            raise TooMuch(f"it sent more than {most:,} bytes in one piece")
        if time.monotonic() > until:
            raise Damaged(f"it was still sending after {LONGEST_TIME:.0f} seconds")
        yield piece


def _counted(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    received = 0
    for chunk in chunks:
        received += len(chunk)
        yield chunk, received


def _inflated(chunks: Iterable[bytes], encoding: str) -> Iterator[tuple[bytes, int]]:
    """Pieces of at most `PIECE` bytes, and how many bytes they were made of so far."""
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise Damaged(f"it packed its answer as {encoding[:20]!r}, which it was not asked for")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib, whichever it is
    received = 0
    try:
        for chunk in chunks:
            received += len(chunk)
            rest = chunk
            while rest:
                if unpacker.eof:  # a file may be packed in several parts
                    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
                yield unpacker.decompress(rest, PIECE), received
                rest = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    except zlib.error as error:
        raise Damaged(f"what it sent can't be unpacked ({error})") from None
    if received and not unpacker.eof:
        raise Damaged("what it sent ends before its end")


def lines_of(pieces: Iterable[bytes], content_type: str = "") -> Iterator[bytes]:
    """The lines of a file of results, without their ends, blank ones left out.

    Raises Damaged for a page of a proxy, and for a file that ends in the middle of a line: where a body is delimited by
    the end of the connection, nothing else tells that it is not whole.
    """
    if content_type.strip().lower().startswith(PAGES):
        raise Damaged("it sent a page in the place of results")
    first = True
    for line in _split(pieces):
        if not line or line.isspace():
            continue
        if first and line.lstrip()[:1] == b"<":
            raise Damaged("it sent a page in the place of results")
        first = False
        yield line


def _split(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest, skipped, long, ended = b"", 0, None, False
    for piece in pieces:
        if long is not None:  # in a line of which the rest is not kept
            _, end, piece = piece.partition(b"\n")  # noqa: PLW2901  # what follows it
            skipped += len(_)
            if not end:
                if skipped > ENDLESS_LINE:
                    raise Damaged("it sent a line without end")
                continue
            yield long
            long = None
        *lines, rest = (rest + piece).split(b"\n")
        ended = ended or any(map(bytes.strip, lines))
        yield from lines
        if len(rest) > LONGEST_LINE:
            long, skipped, rest = Overlong(rest[:KEPT_OF_LONGER]), len(rest), b""
    if rest and not rest.isspace() and not is_json(rest):
        raise Damaged("what it sent ends in the middle of a line", partial=ended)
    yield rest if long is None else long


class Download:
    """A file on its way in, over as many connections as it takes. Two of them are never joined."""

    def __init__(self, begin: Callable[[], Generator[bytes, None, None]]) -> None:
        self._begin = begin
        self._lines: Generator[bytes, None, None] | None = None
        self._passed: list[int] = []  # the hash of each line that was passed on
        self._known: Counter[int] = Counter()  # of these, what this connection has not brought again yet

    def next_lines(self) -> list[bytes] | None:
        """Some of the lines that were not passed on before; None after the last.

        A connection that brings nothing new before it breaks is a try in vain.
        """
        if self._lines is None:
            self._lines, self._known = self._begin(), Counter(self._passed)
        found, size = [], 0
        try:
            for line in self._lines:
                if self._is_new(_print_of(line)):
                    found.append(line)
                    size += len(line)
                if size >= PIECE:
                    break
        except ProviderError:
            self.close()
            del self._passed[len(self._passed) - len(found) :]
            raise
        return found or None

    def _is_new(self, line: int) -> bool:
        if self._known and self._known[line] > 0:
            self._known[line] -= 1
            return False
        self._passed.append(line)
        return True

    def close(self) -> None:
        """Let the connection go."""
        if self._lines is not None:
            self._lines.close()
        self._lines = None


def _print_of(line: bytes) -> int:
    """By what a line is known again: the last one of a file may have no end."""
    return hash(line.rstrip())
