"""Merged parts: whatever is read from them is what was read from the parts before."""

from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.errors import StateError
from flows.domain.events import Slice
from flows.storage.compaction import check_part, merge_parts
from flows.storage.tables import NUMBERED_ROWS, NumberedTable
from tests.flows.domain import histories
from tests.flows.domain.answers import answer
from tests.flows.storage.building import Collecting, Work, parquet


def work(folder: Path, rows: int) -> Work:
    job = Work(folder, parquet(folder / "in.parquet", {"text": [f"t{n}" for n in range(rows)]}))
    job.ask()
    return job


def say(number: int, attempt: int, dice: Random) -> str:
    """An answer that is good, or broken."""
    return f'{{"label": "{number}.{attempt}"}}' if dice.random() < 0.6 else f"not json {number}"


def collect_at_random(job: Work, rows: int, dice: Random) -> Collecting:
    """First sendings in ranges of any size, and repeats of requests far apart, some of them answered twice."""
    collecting, start = Collecting(job.state), 0
    while start < rows:
        stop = min(rows, start + dice.randint(1, 9))
        collecting.batch([Slice(start, stop)], [answer(n, say(n, 1, dice)) for n in range(start, stop)])
        start = stop
    for attempt in range(2, dice.randint(2, 6)):
        chosen = sorted(dice.sample(range(rows), dice.randint(1, min(rows, 8))))
        slices = [Slice(n, n + 1, attempt) for n in chosen]
        collecting.batch(slices, [answer(n, say(n, attempt, dice), attempt) for n in chosen])
    return collecting


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_the_output_is_the_same_before_and_after(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int
) -> None:
    """To the byte, with the same content and the same corrections, however parts are merged and merged again."""
    dice = Random(seed)  # noqa: S311  # a test's dice
    job = work(tmp_path_factory.mktemp("merging"), rows)
    collecting = collect_at_random(job, rows, dice)
    batches = list(collecting.ledger.batches.values())
    collecting.publish(job)
    before, fingerprint = job.state.output.read_bytes(), collecting.fingerprint(job)
    corrections = [collecting.store.corrections(batch) for batch in batches]
    for _ in range(3):
        count = len(collecting.store.parts(collecting.ledger))
        collecting.compact(*dice.sample(range(count), dice.randint(1, count)))
        collecting.publish(job)
        assert job.state.output.read_bytes() == before
        assert collecting.fingerprint(job) == fingerprint
        assert [collecting.store.corrections(batch) for batch in collecting.ledger.batches.values()] == corrections


def test_a_merged_part_is_in_order_over_many_windows(tmp_path: Path) -> None:
    """Also where the parts have many row groups, and repeats lie between all of their rows."""
    rows = 3 * NUMBERED_ROWS
    collecting = Collecting(work(tmp_path, 1).state)
    for start in (rows // 2, 0):
        stop = start + rows // 2
        collecting.batch([Slice(start, stop)], [answer(n, f'{{"label": "{n}"}}') for n in range(start, stop)])
    repeats = range(0, rows, 7)
    collecting.batch([Slice(n, n + 1, 2) for n in repeats], [answer(n, "bad", attempt=2) for n in repeats])
    path = collecting.compact()
    found = pq.read_table(path).select(["request", "batch"])
    expected = [(n, 2 if n < rows // 2 else 1) for n in range(rows)] + [(n, 3) for n in repeats]
    assert list(zip(*(column.to_pylist() for column in found.columns), strict=True)) == sorted(expected)
    groups = pq.read_metadata(path)
    sizes = [groups.row_group(group).num_rows for group in range(groups.num_row_groups)]
    assert set(sizes[:-1]) == {NUMBERED_ROWS}


def test_lost_batches_are_not_read_from_a_part_that_came_back(tmp_path: Path) -> None:
    """The ledger says what is lost; their rows are there and count for nothing, also in the next merging."""
    job = work(tmp_path, 6)
    collecting = Collecting(job.state)
    for start in (0, 2, 4):
        collecting.batch([Slice(start, start + 2)], [answer(n, f'{{"label": "{n}"}}') for n in (start, start + 1)])
    collecting.compact()
    collecting.events.append(histories.lost(2))
    (part,) = collecting.store.parts(collecting.ledger)
    assert (part.rows, part.label) == (6, "batches 1 to 3")
    assert collecting.store.is_whole(part)
    for _ in range(2):
        collecting.publish(job)
        statuses = pq.read_table(job.state.output).column("_status").to_pylist()
        assert statuses == ["ok", "ok", "failed", "failed", "ok", "ok"]
        collecting.compact()
    assert collecting.store.parts(collecting.ledger)[0].rows == 4


def test_leftovers_are_deleted_and_nothing_else(tmp_path: Path) -> None:
    """What was replaced, orphans and half files go; single parts, also of open batches, and strange files stay."""
    job = work(tmp_path, 4)
    collecting = Collecting(job.state)
    for n in range(3):
        collecting.batch([Slice(n, n + 1)], [answer(n, '{"label": "x"}')])
    single = collecting.part(1).read_bytes()
    path = collecting.compact(0, 1)
    for name in ("000001.pq", "000009.pq", "compacted-000002.pq", ".compacted-000002.pq.12345678.tmp", "notes.txt"):
        (path.parent / name).write_bytes(single)
    collecting.store.remove_leftovers(collecting.ledger)
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "000003.pq",
        "000009.pq",
        "compacted-000001.pq",
        "notes.txt",
    ]


def test_a_merged_part_is_checked_before_the_others_go(tmp_path: Path) -> None:
    """Its order, the rows of each batch, and each page's checksum."""
    collecting = Collecting(work(tmp_path, 1).state)
    for n in range(2):
        collecting.batch([Slice(0, 50, n + 1)], [answer(i, f'{{"label": "{i}"}}', n + 1) for i in range(50)])
    path = tmp_path / "merged.pq"
    merge_parts(collecting.store.parts(collecting.ledger), path, collecting.schema)
    check_part(path, {1: 50, 2: 50})
    for wrong in ({1: 50}, {1: 50, 2: 49}, {1: 50, 2: 50, 3: 1}):
        with pytest.raises(StateError, match="does not contain"):
            check_part(path, wrong)
    with NumberedTable(path) as table:
        rows = table.read(0, table.rows)
    pq.write_table(rows.take(pa.array(range(99, -1, -1))), tmp_path / "backwards.pq")
    with pytest.raises(StateError, match="not in order"):
        check_part(tmp_path / "backwards.pq", {1: 50, 2: 50})
    content = bytearray(path.read_bytes())
    content[len(content) // 5] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises((OSError, pa.ArrowInvalid)):
        check_part(path, {1: 50, 2: 50})


def test_a_damaged_part_is_named_when_it_is_merged(tmp_path: Path) -> None:
    """And nothing is written."""
    collecting = Collecting(work(tmp_path, 1).state)
    for n in range(2):
        collecting.batch([Slice(n, n + 1)], [answer(n, '{"label": "x"}')])
    collecting.part(2).write_bytes(b"damaged")
    with pytest.raises(StateError, match="the results of batch 2 are damaged"):
        collecting.compact()
    assert sorted(path.name for path in collecting.part(1).parent.iterdir()) == ["000001.pq", "000002.pq"]
