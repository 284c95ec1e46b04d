"""Forms are taken apart while they arrive, wherever the chunks are cut."""

import asyncio
import io
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from blocks.emulator.wire.uploads import FIELD_BYTES, UploadForm

TYPE = 'multipart/form-data; boundary="b-1"'
CONTENT = b"\r\n--b-\r\n--b-2\r\r\n\n--b-1 is no boundary here\r\n"
FORM = (
    b'--b-1\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--b-1\r\ncontent-type: text/plain\r\ncontent-disposition: form-data; name="file"; filename="\xc3\xa4 1.jsonl"'
    b"\r\n\r\n" + CONTENT + b"\r\n--b-1\r\nContent-Disposition: form-data; name=empty\r\n\r\n\r\n--b-1--\r\n"
)
EMPTY = b'--b-1\r\nContent-Disposition: form-data; name="a"\r\n\r\n'


def read(chunks: Sequence[bytes], kind: str = TYPE, max_bytes: int = 1000) -> tuple[UploadForm, bytes, str | None]:
    """The form, what is in the spool, and what is wrong with the form."""
    left = [*chunks, b""]

    async def receive() -> Message:
        chunk = left.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(left)}

    spool = io.BytesIO()
    form = UploadForm(max_bytes, spool)
    request = Request({"type": "http", "headers": [(b"content-type", kind.encode())]}, receive)
    problem = asyncio.run(form.read(request))
    assert not left, "the body was not read to its end"
    return form, spool.getvalue(), problem


def check_whole(form: UploadForm, content: bytes, problem: str | None) -> None:
    assert problem is None
    assert (form.text("purpose"), form.text("empty"), form.text("none")) == ("batch", "", "")
    assert (form.filename, form.size, content) == ("ä 1.jsonl", len(CONTENT), CONTENT)
    assert form.fields.keys() == {"purpose", "file", "empty"}


@given(st.lists(st.integers(0, len(FORM)), max_size=20))
def test_chunks_may_be_cut_anywhere(cuts: list[int]) -> None:
    """What arrives is the same, however the network cuts it."""
    ends = [0, *sorted(cuts), len(FORM)]
    check_whole(*read([FORM[start:end] for start, end in pairwise(ends)]))


def test_form_is_read_byte_by_byte() -> None:
    """The smallest chunks that there are."""
    check_whole(*read([FORM[at : at + 1] for at in range(len(FORM))]))


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"nothing",
        FORM[: FORM.rindex(b"--b-1--")],
        b'--b-1x\r\ncontent-disposition: form-data; name="a"\r\n\r\n\r\n--b-1--',
        b"--b-1\r\ncontent-type: text/plain\r\n\r\n\r\n--b-1--",
        b"--b-1\r\n" + b"x" * 100_000,
        EMPTY + b"\r\n" + EMPTY + b"\r\n--b-1--",
        EMPTY + b"x" * (FIELD_BYTES + 1) + b"\r\n--b-1--",
    ],
)
def test_invalid_form_is_an_error_and_read_to_its_end(form: bytes) -> None:
    """A client that is still writing would not read the answer."""
    assert read([form, b"more of it"])[2]


@pytest.mark.parametrize("kind", ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=x"])
def test_other_content_types_are_an_error(kind: str) -> None:
    """Only forms with a boundary can be taken apart."""
    assert "content type" in (read([FORM], kind)[2] or "")


def test_what_is_beyond_the_limit_is_counted_but_not_kept() -> None:
    """The disk is not filled by a file that is refused anyway."""
    form, content, problem = read([FORM[at : at + 7] for at in range(0, len(FORM), 7)], max_bytes=20)
    assert (problem, form.too_long, form.size) == (None, True, len(CONTENT))
    assert CONTENT.startswith(content)
    assert len(content) <= 20
