"""The input: what is refused, and windows that fit into memory."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.errors import UsageError
from flows.storage.source import Source, column_values
from flows.storage.windows import WINDOW_BYTES, WINDOW_ROWS
from tests.flows.storage.building import parquet


def test_what_is_no_parquet_file_is_refused(tmp_path: Path) -> None:
    """Each with the path and what to do."""
    (tmp_path / "nowhere").mkdir()
    (tmp_path / "empty.parquet").touch()
    (tmp_path / "text.parquet").write_text("text,stars\nfine,5\n")
    whole = parquet(tmp_path / "whole.parquet", {"x": list(range(1000))}).read_bytes()
    (tmp_path / "torn.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "footless.parquet").write_bytes(whole[:-1])
    (tmp_path / "headless.parquet").write_bytes(whole[-9:])
    for name in ("empty", "text", "torn", "footless", "headless"):
        with pytest.raises(UsageError, match=f"{name}.parquet is not a readable Parquet file"):
            Source.open(tmp_path / f"{name}.parquet")
    with pytest.raises(UsageError, match="does not exist"):
        Source.open(tmp_path / "nothing.parquet")
    with pytest.raises(UsageError, match=r"contains no \.parquet file"):
        Source.open(tmp_path / "nowhere")


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, as old archives have them; also of one file of a folder."""
    place = tmp_path / os.fsdecode(b"caf\xe9.parquet")
    parquet(tmp_path / "x.parquet", {"x": [1]}).rename(place)
    for path in (place, tmp_path):
        with pytest.raises(UsageError, match=r"udce9\.parquet has bytes that are no text"):
            Source.open(path)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    """Nobody could say which of them a prompt means."""
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(UsageError, match="two columns named 'a'"):
        Source.open(parquet(tmp_path / "in.parquet", table))


def test_a_file_without_rows_has_no_windows(tmp_path: Path) -> None:
    """An empty table is a table."""
    source = Source.open(parquet(tmp_path / "in.parquet", {"x": pa.array([], pa.string())}))
    assert source.rows == 0
    assert [w.num_rows for w in source.files[0].windows()] in ([], [0])


@pytest.mark.parametrize("limit", [None, 1, 999, 1000, 1001, 20_000, 99_999])
def test_windows_hold_the_rows_in_order_up_to_a_limit(tmp_path: Path, limit: int | None) -> None:
    """Whatever the file's row groups are."""
    rows = 20_000
    source = Source.open(
        parquet(tmp_path / "in.parquet", {"x": list(range(rows)), "y": ["y"] * rows}, row_group_size=1000)
    )
    found = [n for window in source.windows(["x"], limit) for n in window.column("x").to_pylist()]
    assert found == list(range(min(limit or rows, rows)))
    assert max(window.num_rows for window in source.files[0].windows()) <= WINDOW_ROWS


@pytest.mark.parametrize("name", ["text", "a.b", "a.b.c", "[x]", "ä ö"])
def test_wide_rows_make_small_windows(tmp_path: Path, name: str) -> None:
    """Memory is bounded by bytes, whatever the column is called."""
    wide, rows = os.urandom(50_000).hex(), 600
    source = Source.open(
        parquet(tmp_path / "in.parquet", {name: [f"{n}{wide}" for n in range(rows)], "n": list(range(rows))})
    )
    assert [window.num_rows for window in source.windows(["n"])] == [rows]
    assert max(window.nbytes for window in source.windows([name])) <= 2 * WINDOW_BYTES


def test_columns_with_dots_are_read_by_their_whole_name(tmp_path: Path) -> None:
    """`a.b` is not a part of `a`."""
    source = Source.open(parquet(tmp_path / "in.parquet", {"a": [1], "a.b": [2], "s": [{"x": 3}]}))
    (window,) = source.windows(["a.b", "s"])
    assert window.column("a.b").to_pylist() == [2]
    assert window.column("s").to_pylist() == [{"x": 3}]


def test_the_identity_follows_the_content(tmp_path: Path) -> None:
    """A file that was written anew is another one, even at the same size and time."""
    path = parquet(tmp_path / "in.parquet", {"x": [1, 2]})
    source, stat = Source.open(path), path.stat()
    assert source.check_unchanged()
    assert Source.open(path).identity == source.identity
    parquet(path, {"x": [1, 3]})
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not source.check_unchanged()
    path.unlink()
    assert not source.check_unchanged()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**60], pa.timestamp("us")),
        pa.array([2**30], pa.date32()),
        pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")),
    ],
    ids=["a time after 9999", "a date after 9999", "text that is no UTF-8"],
)
def test_a_value_that_python_can_not_hold_is_the_inputs_mistake(column: Any) -> None:
    """Not a traceback in the middle of a plan."""
    with pytest.raises(UsageError, match="can't be read"):
        column_values(pa.chunked_array([column]))


def test_the_footer_is_enough_to_look_at_a_file(tmp_path: Path) -> None:
    """Names and rows are known without reading a row."""
    path = parquet(tmp_path / "in.parquet", {"x": ["a"] * 10, "y": [1] * 10})
    content = bytearray(path.read_bytes())
    content[4:40] = b"\x00" * 36
    path.write_bytes(bytes(content))
    source = Source.open(path)
    assert (source.schema.names, source.rows) == (["x", "y"], 10)
    assert pq.ParquetFile(path).metadata.num_rows == 10


def test_a_text_that_repeats_makes_small_windows_too(tmp_path: Path) -> None:
    """The footer counts one copy of it; its dictionary tells better."""
    source = Source.open(parquet(tmp_path / "in.parquet", {"text": ["x" * 200_000] * 2_000}))
    assert max(window.nbytes for window in source.windows(["text"])) <= 2 * WINDOW_BYTES


def test_linked_folders_are_read_like_others(tmp_path: Path) -> None:
    """Their files are part of the input, each under the name of the link."""
    parquet(tmp_path / "elsewhere" / "b.parquet", {"x": [2]})
    parquet(tmp_path / "in" / "a.parquet", {"x": [1]})
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "same").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "_hidden").symlink_to(tmp_path / "elsewhere")
    source = Source.open(tmp_path / "in")
    assert [file.name for file in source.files] == ["a.parquet", "linked/b.parquet", "same/b.parquet"]


@pytest.mark.parametrize("target", [".", "..", "sub"])
def test_a_link_in_a_circle_is_refused(tmp_path: Path, target: str) -> None:
    """By its path, instead of rows without end."""
    parquet(tmp_path / "in" / "sub" / "a.parquet", {"x": [1]})
    (tmp_path / "in" / "sub" / "back").symlink_to((tmp_path / "in" / target).resolve())
    with pytest.raises(UsageError, match=r"leads back to a folder above it: .*back"):
        Source.open(tmp_path / "in")


def test_a_folder_that_is_named_like_a_file_is_a_folder(tmp_path: Path) -> None:
    """Spark writes tables like that."""
    parquet(tmp_path / "in" / "table.parquet" / "part-0.parquet", {"x": [1]})
    assert [file.name for file in Source.open(tmp_path / "in").files] == ["table.parquet/part-0.parquet"]
