"""Forms are taken apart as they come in, wherever the chunks are cut."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.emulator.wire.multipart import MultipartError, MultipartReader, Part

TYPE = 'multipart/form-data; boundary="b-1"'
CONTENT = b"\r\n--b-\r\n--b-2\r\r\n\n--b-1 is no boundary here\r\n"
FORM = (
    b'--b-1\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--b-1\r\ncontent-type: text/plain\r\ncontent-disposition: form-data; name="file"; filename="\xc3\xa4 1.jsonl"'
    b"\r\n\r\n" + CONTENT + b"\r\n--b-1\r\nContent-Disposition: form-data; name=empty\r\n\r\n\r\n--b-1--\r\nbehind"
)


def read(chunks: Sequence[bytes]) -> list[tuple[Part, bytes]]:
    reader = MultipartReader(TYPE)
    parts: list[tuple[Part, bytes]] = []
    for chunk in chunks:
        for event in reader.feed(chunk):
            if isinstance(event, Part):
                parts.append((event, b""))
            else:
                parts[-1] = (parts[-1][0], parts[-1][1] + event)
    if problem := reader.problem():
        raise problem
    return parts


WHOLE = [(Part("purpose", None), b"batch"), (Part("file", "ä 1.jsonl"), CONTENT), (Part("empty", None), b"")]


@given(st.lists(st.integers(0, len(FORM)), max_size=20))
def test_chunks_may_be_cut_anywhere(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(FORM)]
    assert read([FORM[start:end] for start, end in pairwise(ends)]) == WHOLE


def test_form_is_read_byte_by_byte() -> None:
    assert read([FORM[at : at + 1] for at in range(len(FORM))]) == WHOLE


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"nothing",
        FORM[: FORM.rindex(b"--b-1--")],
        b'--b-1x\r\ncontent-disposition: form-data; name="a"\r\n\r\n\r\n--b-1--',
        b"--b-1\r\ncontent-type: text/plain\r\n\r\n\r\n--b-1--",
        b"--b-1\r\n" + b"x" * 100_000,
    ],
)
def test_unsound_form_is_an_error(form: bytes) -> None:
    with pytest.raises(MultipartError):
        read([form])


@pytest.mark.parametrize("kind", ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=x"])
def test_other_content_types_are_an_error(kind: str) -> None:
    with pytest.raises(MultipartError):
        MultipartReader(kind)
