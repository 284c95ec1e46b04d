"""Reading ahead and writing behind: nothing is lost, and what goes wrong in the thread is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.storage.tables import (
    NUMBERED_BYTES,
    NUMBERED_ROWS,
    Behind,
    NumberedTable,
    NumberedWriter,
    RowGroupWriter,
    ahead,
    write_table,
)

SOON = 5.0


def test_all_items_come_in_order() -> None:
    """Of an empty iterator none come."""
    assert list(ahead(iter(range(100)))) == list(range(100))
    assert list(ahead(iter([]))) == []


def test_the_next_item_is_made_while_one_is_used() -> None:
    """Reading and working overlap."""
    made = threading.Semaphore(0)

    def items() -> Iterator[int]:
        for number in range(3):
            made.release()
            yield number

    taken = ahead(items())
    assert next(taken) == 0
    assert made.acquire(timeout=SOON)
    assert made.acquire(timeout=SOON)  # the second, which nobody has asked for
    assert list(taken) == [1, 2]


def test_what_goes_wrong_while_reading_ahead_is_raised_in_its_place() -> None:
    """The items before it are still delivered."""

    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    taken = ahead(items())
    assert next(taken) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(taken)


def test_what_goes_wrong_while_writing_behind_is_raised_by_the_next_call() -> None:
    """An error in the background is never lost."""

    def full() -> None:
        raise OSError("no space left")

    behind = Behind()
    behind.call(full)
    with pytest.raises(OSError, match="no space left"):
        behind.call(print)
    behind.call(full)
    with pytest.raises(OSError, match="no space left"):
        behind.wait()
    behind.wait()  # told once


def test_calls_do_not_overtake_each_other() -> None:
    """What is written behind is written in the order of the calls."""
    behind, order = Behind(), list[int]()
    for number in range(50):
        behind.call(order.append, number)
    behind.wait()
    assert order == list(range(50))


@pytest.mark.parametrize("rows", [0, 1, NUMBERED_ROWS - 1, NUMBERED_ROWS, NUMBERED_ROWS + 1, 3 * NUMBERED_ROWS])
def test_numbered_rows_are_where_they_were_written(tmp_path: Path, rows: int) -> None:
    """Any range can be read by its numbers, across row groups."""
    schema, path = pa.schema([("n", pa.int64())]), tmp_path / "numbered.pq"
    with NumberedWriter(path, schema) as writer:
        for start in range(0, rows, 5_000):
            writer.write(pa.table({"n": range(start, min(rows, start + 5_000))}, schema=schema))
        writer.add_metadata({"name": "value"})
    with NumberedTable(path) as table:
        assert table.rows == rows
        assert table.metadata[b"name"] == b"value"
        found: list[Any] = table.read(0, rows).column("n").to_pylist() if rows else []
    assert found == list(range(rows))


MILLION = 1024 * 1024
WIDE = [0, 3, 9 * MILLION, 1, 7 * MILLION, 40 * MILLION, 5, 5, MILLION, *[600_000] * 60, 2]  # characters of the texts


def test_row_groups_of_wide_rows_are_small_and_rows_are_still_found(tmp_path: Path) -> None:
    """What is read by number is bounded by its size, but for a single row that is larger."""
    texts = [f"{n}{'x' * length}" for n, length in enumerate(WIDE)]
    table = pa.table({"n": range(len(texts)), "text": texts})
    piecemeal, at_once = tmp_path / "piecemeal.pq", tmp_path / "at_once.pq"
    with NumberedWriter(piecemeal, table.schema) as writer:
        for row in range(table.num_rows):
            writer.write(table.slice(row, 1))
    write_table(at_once, table)
    for path in (piecemeal, at_once):
        with NumberedTable(path) as found:
            sizes = [found.read_group(group).nbytes for group in range(found.groups)]
            assert found.read(0, len(texts)).column("text").to_pylist() == texts
            for start, stop in ((0, 1), (4, 7), (8, 69), (len(texts) - 1, len(texts)), (5, 5)):
                assert found.read(start, stop, ["n"]).column("n").to_pylist() == list(range(start, stop))
        assert found.groups > 2
        assert path is at_once or max(sizes) <= NUMBERED_BYTES + 40 * MILLION


@pytest.mark.parametrize("size", [1, 7, 10, 25, 100])
def test_row_groups_are_full_whatever_the_tables_that_come_in(tmp_path: Path, size: int) -> None:
    """All but the last have the rows that were asked for."""
    path, table = tmp_path / "out.parquet", pa.table({"n": range(100)})
    with RowGroupWriter(path, table.schema, max_rows=30, max_bytes=1 << 20) as writer:
        for start in range(0, 100, size):
            writer.write(table.slice(start, size))
    with pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        assert groups == [30, 30, 30, 10]
        assert file.read() == table


def test_an_exception_closes_the_file(tmp_path: Path) -> None:
    """What is pending is not written: the file is thrown away."""
    table = pa.table({"n": range(10)})

    def fail() -> None:
        with RowGroupWriter(tmp_path / "x", table.schema, 100, 1 << 20) as writer:
            writer.write(table)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert pq.read_metadata(tmp_path / "x").num_rows == 0
