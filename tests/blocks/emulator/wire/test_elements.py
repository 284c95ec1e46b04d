"""A large JSON object is read piece by piece, and means what it means as a whole."""

import io
from typing import Any

import orjson
import pytest

from blocks.emulator.wire import elements
from blocks.emulator.wire.elements import DocumentError, DocumentReader

ELEMENT: dict[str, Any] = {"a": 'ä "\\ \u2603 \U0001f600', "b": [1, -2.5e3, True, None, {"c": {}}], "d": "x" * 40}


def read(text: bytes) -> tuple[list[Any], dict[str, Any], bool]:
    reader = DocumentReader(io.BytesIO(text), "rows")
    return list(reader.elements()), reader.others, reader.has_array


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize("indented", [False, True])
@pytest.mark.parametrize("is_ascii", [False, True])
def test_document_in_blocks_is_what_it_is_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, size: int, *, indented: bool, is_ascii: bool
) -> None:
    """Wherever a block ends, elements and other fields are the same."""
    monkeypatch.setattr(elements, "BLOCK_BYTES", size)
    document = {"before": 12, "rows": [ELEMENT, 345, ELEMENT, "x", [], 67], "after": {"y": [1]}, "last": 89}
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2 if indented else None)
    if is_ascii:
        text = text.decode().encode("ascii", "backslashreplace").replace(b"\\xe4", b"\\u00e4")
        text = text.replace(b"\\U0001f600", b"\\ud83d\\ude00")
    rows = document.pop("rows")
    assert read(text) == (rows, document, True)


@pytest.mark.parametrize(
    ("text", "others", "has_array"),
    [
        (b"{}", {}, False),
        (b' { "rows" : [ ] } \n', {}, True),
        (b'{"rows":{"a":1}}', {"rows": {"a": 1}}, False),
        (b'{"other":[1,2]}', {"other": [1, 2]}, False),
    ],
)
def test_document_without_elements_has_none(text: bytes, others: dict[str, Any], *, has_array: bool) -> None:
    """The other fields are read, and it is known whether the array was there."""
    assert read(text) == ([], others, has_array)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"[]",
        b"null",
        b"{",
        b'{"rows"',
        b'{"rows":',
        b'{"rows":[',
        b'{"rows":[1',
        b'{"rows":[1,',
        b'{"rows":[1,]}',
        b'{"rows":[1 2]}',
        b'{"rows":[1],}',
        b'{"rows":[1]',
        b'{"rows":[1]}}',
        b'{"rows":[1]} x',
        b"{1:[1]}",
        b'{"rows":[NaN]}',
        b'{"rows":["abc]}',
        b'{"rows":["\\x"]}',
        b'{"rows":["a\nb"]}',
        b'{"rows":["\xff"]}',
        b'{"rows":["\xc3',
        b'{"rows":[' + b"[" * 100_000,
        b'{"rows":[' + b"1" * 10_000 + b"]}",
    ],
)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_what_is_no_json_object_is_said_to_be_none(monkeypatch: pytest.MonkeyPatch, text: bytes, size: int) -> None:
    """Whatever the size of the blocks it is read in."""
    monkeypatch.setattr(elements, "BLOCK_BYTES", size)
    with pytest.raises(DocumentError):
        read(text)


def test_mistake_at_the_beginning_is_found_without_reading_on() -> None:
    """At most two blocks of a large body are read."""
    content = io.BytesIO(b'{"rows":[{"a":1 "b":2},' + b"1," * 5_000_000 + b"1]}")
    with pytest.raises(DocumentError):
        list(DocumentReader(content, "rows").elements())
    assert content.tell() <= 2 * elements.BLOCK_BYTES
