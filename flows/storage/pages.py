"""The pages of a Parquet column chunk, by their headers: how many bytes of text a few rows of it can be, at most.

The footer says how large a column is, not where: a million nulls, then a thousand long texts, or one long text a
thousand times. Page headers say that, and reading them costs microseconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

LARGEST_PAGE = 256 * 1024 * 1024  # bytes in memory; Arrow unpacks a page as a whole
_DICTIONARY_ROWS = 8_192
_HEADER_BYTES = (512, 1024 * 1024)  # read for a header; most have 30 bytes, a few hold long statistics
_DATA, _DATA_V2 = 0, 3  # kinds of pages
_FROM_DICTIONARY = (2, 8)  # encodings whose values are in the dictionary
_PREFIXES = 7  # the encoding whose values repeat parts of those before them

Fields = dict[int, Any]


class Page(NamedTuple):
    """A data page."""

    values: int
    bytes: int  # unpacked
    encoding: int


class Unreadable(Exception):
    """Page headers that can't be understood."""


def pages_of(path: Path, chunk: Any) -> list[Page]:
    """The data pages of a column chunk. Raises Unreadable."""
    starts = [chunk.data_page_offset, chunk.dictionary_page_offset if chunk.has_dictionary_page else None]
    start = min(at for at in starts if at is not None)
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return list(_pages(handle, start, start + chunk.total_compressed_size))
    except (IndexError, KeyError, TypeError) as error:
        raise Unreadable from error
    finally:
        os.close(handle)


def rows_within(pages: list[Page], limit: int) -> int | None:
    """How many values in a row are at most about `limit` bytes, wherever they begin; None: any number.

    Values from the dictionary are not counted.
    """
    counted = [page for page in pages if page.encoding not in _FROM_DICTIONARY and page.values]
    if sum(page.bytes for page in counted if page.encoding != _PREFIXES) <= limit:
        counted = [page for page in counted if page.encoding == _PREFIXES]
    return min((_rows_of(page, limit) for page in counted), default=None)


def _rows_of(page: Page, limit: int) -> int:
    if page.encoding == _PREFIXES:  # each value may be as long as all of the page
        return max(1, limit // max(1, page.bytes))
    if page.bytes > limit:  # whose rows are as long as they like
        return 1
    return max(1, page.values * limit // max(1, 2 * page.bytes))


def longest_in_dictionary(path: Path, group: int, names: list[str]) -> dict[str, int]:
    """By leaf column of texts: the bytes of the longest value in the dictionary of a row group."""
    with pq.ParquetFile(path, pre_buffer=False, read_dictionary=names, buffer_size=64 * 1024) as file:
        return {name: _longest_of_column(file, group, name) for name in names}


def _longest_of_column(file: pq.ParquetFile, group: int, name: str) -> int:
    """The first row has the whole dictionary with it; if it is an empty list, a later one."""
    for rows in (1, _DICTIONARY_ROWS):
        for batch in file.iter_batches(rows, row_groups=[group], columns=[name], use_threads=False):
            longest = max((_longest(column) for column in batch.columns), default=0)
            if longest or rows == 1:
                break
        if longest:
            return longest
    return 0


def _longest(values: Any) -> int:
    """The longest value of the dictionaries inside an array."""
    if pa.types.is_dictionary(values.type):
        lengths = pc.binary_length(_binary(values.dictionary))
        return int(pc.max(lengths).as_py() or 0)
    if pa.types.is_struct(values.type):
        return max((_longest(values.field(index)) for index in range(values.type.num_fields)), default=0)
    if pa.types.is_map(values.type):
        return max(_longest(values.keys), _longest(values.items))
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return _longest(values.values)
    return int(values.nbytes)


def _binary(values: Any) -> Any:
    if pa.types.is_string_view(values.type) or pa.types.is_binary_view(values.type):
        return values.cast(pa.large_binary())
    return values


def _pages(handle: int, at: int, end: int) -> Iterator[Page]:
    while at < end:
        header, length = _header(handle, at)
        if header[1] == _DATA:
            yield Page(header[5][1], header[2], header[5][2])
        elif header[1] == _DATA_V2:
            yield Page(header[8][1], header[2], header[8][4])
        if header[3] < 0 or header[2] < 0:
            raise Unreadable
        at += length + header[3]


def _header(handle: int, at: int) -> tuple[Fields, int]:
    """The header of the page at a place, and its length."""
    for size in _HEADER_BYTES:
        content = os.pread(handle, size, at)
        try:
            return _struct(content, 0)
        except IndexError:
            if len(content) < size:
                break
    raise Unreadable


# --- Thrift's compact protocol, as much as headers need --------------------------------------------------------------


def _struct(content: bytes, at: int) -> tuple[Fields, int]:
    fields: Fields = {}
    number = 0
    while (head := content[at]) != 0:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(content, at)
        fields[number], at = _value(content, at, head & 15)
    return fields, at + 1


def _value(content: bytes, at: int, kind: int) -> tuple[Any, int]:
    match kind:
        case 1 | 2:
            return kind == 1, at
        case 3:
            return content[at], at + 1
        case 4 | 5 | 6:
            return _integer(content, at)
        case 7:
            return None, at + 8
        case 8:
            length, at = _unsigned(content, at)
            return None, _inside(content, at + length)
        case 12:
            return _struct(content, at)
    raise Unreadable  # lists and maps are in no page header


def _inside(content: bytes, at: int) -> int:
    if at >= len(content):
        raise IndexError
    return at


def _unsigned(content: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = content[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7


def _integer(content: bytes, at: int) -> tuple[int, int]:
    number, at = _unsigned(content, at)
    return (number >> 1) ^ -(number & 1), at
