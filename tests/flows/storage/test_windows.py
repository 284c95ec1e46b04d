"""Windows are small whatever a file says on average: by its pages, its dictionaries, and what was really read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.errors import UsageError
from flows.storage import pages
from flows.storage.source import Source
from flows.storage.windows import WINDOW_BYTES, WINDOW_ROWS
from tests.flows.command import ROOT
from tests.flows.storage.building import parquet

MEGABYTE = 1024 * 1024
LONG = "x" * 40_000
SKEWED: dict[str, Any] = {
    "nulls, then one text": [None] * 9_000 + [LONG] * 1_000,
    "empty, then many texts": [""] * 9_000 + [f"{n}{LONG}" for n in range(1_000)],
    "one text, then nulls": [LONG] * 1_000 + [None] * 9_000,
    "a long one now and then": ["short", *(["y"] * 9), LONG] * 900,
    "lists": [None] * 900 + [["a", LONG]] * 900,
    "structs": [None] * 900 + [{"a": LONG, "b": 1}] * 900,
}


@pytest.mark.parametrize(
    "written", [{}, {"use_dictionary": False}, {"row_group_size": 700, "data_page_version": "2.0"}]
)
@pytest.mark.parametrize("values", SKEWED.values(), ids=SKEWED)
def test_windows_are_small_and_whole(tmp_path: Path, values: list[Any], written: dict[str, Any]) -> None:
    """Every row once and in order, in windows of a few megabytes, however unevenly the bytes lie."""
    table = pa.table({"text": values, "n": list(range(len(values)))})
    windows = list(Source.open(parquet(tmp_path / "in.parquet", table, **written)).windows(["text", "n"]))
    assert pa.concat_tables(windows).equals(table)
    assert max(window.nbytes for window in windows) <= 3 * WINDOW_BYTES
    assert max(window.num_rows for window in windows) <= WINDOW_ROWS


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_other_encodings_are_bounded_too(tmp_path: Path, encoding: str) -> None:
    """One of them writes of each text only what the text before has not."""
    table = pa.table({"text": [None] * 5_000 + [f"{LONG}{n}" for n in range(500)]})
    path = parquet(tmp_path / "in.parquet", table, use_dictionary=False, column_encoding={"text": encoding})
    windows = list(Source.open(path).windows(["text"]))
    assert pa.concat_tables(windows).equals(table)
    assert max(window.nbytes for window in windows) <= 3 * WINDOW_BYTES


def test_short_rows_make_few_windows(tmp_path: Path) -> None:
    """What is small is read in large pieces, also over the ends of row groups."""
    table = pa.table({"text": [f"review {n}" for n in range(40_000)]})
    source = Source.open(parquet(tmp_path / "in.parquet", table, row_group_size=1_000))
    assert len(list(source.windows(["text"]))) <= 6


@pytest.mark.parametrize("written", [{}, {"use_dictionary": False}, {"data_page_version": "2.0"}])
def test_pages_are_read_from_their_headers(tmp_path: Path, written: dict[str, Any]) -> None:
    """They have all values of the chunk, and its bytes."""
    path = parquet(tmp_path / "in.parquet", {"text": [f"{n}" * 50 for n in range(50_000)]}, **written)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    found = pages.pages_of(path, chunk)
    assert sum(page.values for page in found) == 50_000
    assert len(found) > 1
    assert 0 < sum(page.bytes for page in found) <= chunk.total_uncompressed_size


def test_headers_that_make_no_sense_are_read_carefully(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows at once; and for the windows nothing else changes."""

    def unreadable(*_: object) -> list[pages.Page]:
        raise pages.Unreadable

    monkeypatch.setattr("flows.storage.windows.pages_of", unreadable)
    table = pa.table({"text": [f"review {n}" for n in range(1_000)]})
    (window,) = Source.open(parquet(tmp_path / "in.parquet", table)).windows(["text"])
    assert window.equals(table)


def test_members_that_are_not_known_are_passed_over(tmp_path: Path) -> None:
    """Later versions of the format may add some, of any type that has a length of its own."""
    head = b"\x15\x00\x15\xc8\x01\x15\x50"  # a data page, of 100 bytes, 40 when packed
    data = b"\x2c\x15\x0e\x15\x00\x00"  # 7 values, plain
    odd = b"\xf7" + b"\xff" * 8 + b"\x13\xff\x11\x18\x03abc\x00"  # a double, a byte, true, a text
    header = head + data + odd
    path = tmp_path / "page"
    path.write_bytes(header + bytes(40))

    class Chunk:
        data_page_offset, has_dictionary_page, total_compressed_size = 0, False, len(header) + 40

    assert pages.pages_of(path, Chunk) == [pages.Page(7, 100, 0)]


NEGATIVE = b"\x15\x00\x15\x01\x15\x50\x2c\x15\x0e\x15\x00\x00\x00"  # a page of -1 bytes
PLAIN, PREFIXES, FROM_DICTIONARY = 0, 7, 8  # numbers of encodings in the format


@pytest.mark.parametrize(
    ("found", "rows"),
    [
        ([pages.Page(500, 1_000, PREFIXES)], 10),
        ([pages.Page(500, 20_000, PREFIXES), pages.Page(5, 10, PREFIXES)], 1),
        ([pages.Page(100, 20_000, PLAIN)], 1),
        ([pages.Page(100, 8_000, PLAIN), pages.Page(500, 8_000, PLAIN)], 62),
        ([pages.Page(1, 8_000, PLAIN), pages.Page(1, 8_000, PLAIN)], 1),
        ([pages.Page(100, 5_000, PLAIN), pages.Page(100, 5_000, PLAIN)], None),
        ([pages.Page(100, 5_000, PLAIN), pages.Page(100, 2_000, PREFIXES)], 5),
        ([pages.Page(100, 90_000, FROM_DICTIONARY)], None),
        ([pages.Page(0, 90_000, PLAIN)], None),
    ],
)
def test_so_many_rows_are_within_ten_kilobytes(found: list[pages.Page], rows: int | None) -> None:
    """By what a page of so many values can have in one of them, wherever the rows begin."""
    assert pages.rows_within(found, 10_000) == rows


@pytest.mark.parametrize(
    "content", [b"", b"\x15", b"\xff" * 2_000, b"\x19\x2c\x00\x00", b"\x15\x00\x15\x02\x15", NEGATIVE]
)
def test_no_header_is_believed_blindly(tmp_path: Path, content: bytes) -> None:
    """Bytes that are no page header are said to be none."""
    path = tmp_path / "odd"
    path.write_bytes(content)

    class Chunk:
        data_page_offset, has_dictionary_page, total_compressed_size = 0, False, 10_000

    with pytest.raises(pages.Unreadable):
        pages.pages_of(path, Chunk)


def test_a_page_that_fills_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow unpacks it as a whole: it is found before anything is paid, and the sentence says what to do."""
    monkeypatch.setattr("flows.storage.windows.LARGEST_PAGE", 10 * MEGABYTE)
    path = parquet(tmp_path / "in.parquet", {"t": ["x" * 100_000] * 1_000}, use_dictionary=False, compression="zstd")
    assert path.stat().st_size < MEGABYTE
    with pytest.raises(UsageError, match=r"page of [\d,]+ bytes in its column 't'") as caught:
        Source.open(path)
    assert "smaller pages" in caught.value.next_step


PLANNING = """
import sys
from pathlib import Path
from flows.preflight import check
from flows.report.preview import preview
from flows.settings import read_settings
source, job = sys.argv[1:]
output = Path(source).with_name("out.parquet")
found = preview(check(read_settings({"input": source, "output": output, "job": job, "provider": "local"})))
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(found.plan.rows, found.plan.unsendable, int(status["VmHWM"].split()[0]) // 1024)
"""


def bombs(folder: Path, kind: str) -> Path:
    path = folder / "in.parquet"
    if kind == "a repeated text":
        indices = pa.array([None] * 9_000 + [0] * 6_000, pa.int32())
        text = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 350_000]))
        return parquet(path, {"text": text}, compression="zstd", store_schema=False)
    if kind == "repeated texts in pages of their own":
        with pq.ParquetWriter(
            path, pa.schema([("text", pa.string())]), use_dictionary=False, compression="zstd"
        ) as file:
            file.write_table(pa.table({"text": pa.nulls(9_000, pa.string())}))
            long = pa.table({"text": ["x" * 350_000] * 300})
            for _ in range(20):
                file.write_table(long)
        return path
    return parquet(path, {"text": ["a", "x" * 50_000_000, "b"]})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a repeated text", "repeated texts in pages of their own", "one cell of 50 MB"])
def test_a_small_file_does_not_fill_the_memory(tmp_path: Path, kind: str) -> None:
    """Two gigabytes of text in a hundred kilobytes, and a cell that no model takes, are planned in little memory."""
    path = bombs(tmp_path, kind)
    job = tmp_path / "job.yaml"
    job.write_text("name: t\nmodel: gpt-4.1\nprompt: '{{ text }}'\nskip_empty: text\n")
    done = subprocess.run(
        [sys.executable, "-c", PLANNING, str(path), str(job)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows, unsendable, peak = map(int, done.stdout.split())
    assert rows in (15_000, 3)
    assert unsendable == (kind == "one cell of 50 MB")
    assert peak < 600
