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


def lines_of(pieces: Iterable[bytes], content_type: str = "") -> Iterator[list[bytes]]:
    """The lines of a file of results, those that end in one piece together; without their ends, blank ones left out.

    Raises Damaged for a page of a proxy, and for a file that ends in the middle of a line: where a body is delimited by
    the end of the connection, nothing else tells that it is not whole.
    """
    if content_type.strip().lower().startswith(PAGES):
        raise Damaged("it sent a page in the place of results")
    first = True
    for lines in _split(pieces):
        found = [line for line in lines if line and not line.isspace()]
        if first and found and found[0].lstrip()[:1] == b"<":
            raise Damaged("it sent a page in the place of results")
        first = first and not found
        yield found


def _split(pieces: Iterable[bytes]) -> Iterator[list[bytes]]:
    rest, skipped, long, ended = b"", 0, None, False
    for piece in pieces:
        if long is not None:  # in a line of which the rest is not kept
            _, end, piece = piece.partition(b"\n")  # noqa: PLW2901  # what follows it
            skipped += len(_)
            if not end:
                if skipped > ENDLESS_LINE:
                    raise Damaged("it sent a line without end")
                continue
            yield [long]
            long = None
        *lines, rest = (rest + piece).split(b"\n")
        ended = ended or any(map(bytes.strip, lines))
        yield lines
        if len(rest) > LONGEST_LINE:
            long, skipped, rest = Overlong(rest[:KEPT_OF_LONGER]), len(rest), b""
    if rest and not rest.isspace() and not is_json(rest):
        raise Damaged("what it sent ends in the middle of a line", partial=ended)
    yield [rest if long is None else long]


class Download:
    """A file on its way in, over as many connections as it takes. Two of them are never joined."""

    def __init__(self, begin: Callable[[], Generator[list[bytes], None, None]]) -> None:
        self._begin = begin
        self._pieces: Generator[list[bytes], None, None] | None = None
        self._passed: list[int] = []  # the hash of each line that was passed on
        self._known: Counter[int] = Counter()  # of these, what this connection has not brought again yet

    def next_lines(self) -> list[bytes] | None:
        """Some of the lines that were not passed on before; None after the last.

        A connection that brings nothing new before it breaks is a try in vain.
        """
        if self._pieces is None:
            self._pieces, self._known = self._begin(), Counter(self._passed)
        try:
            return next(filter(None, map(self._new_of, self._pieces)), None)
        except ProviderError:
            self.close()
            raise

    def _new_of(self, lines: list[bytes]) -> list[bytes]:
        """Those that were not passed on before. The last one of a file may have no end, so it is left out of all."""
        known, hashes = self._known, [hash(line.rstrip()) for line in lines]
        if known:
            places = [place for place, each in enumerate(hashes) if not _strike(known, each)]
            lines, hashes = [lines[place] for place in places], [hashes[place] for place in places]
        self._passed += hashes
        return lines

    def close(self) -> None:
        """Let the connection go."""
        if self._pieces is not None:
            self._pieces.close()
        self._pieces = None


def _strike(known: Counter[int], line: int) -> bool:
    """Whether it is among them, once less from now on."""
    if line not in known:
        return False
    known.subtract([line])
    if not known[line]:
        del known[line]
    return True
