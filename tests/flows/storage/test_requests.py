"""Frozen requests: their sizes are known before they are encoded."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from blocks.batch import RequestForm
from blocks.errors import StateError
from blocks.providers.holysheep.codec import HolySheepCodec
from flows.domain.custom_ids import LONGEST_ID
from flows.domain.events import Frozen, Slice
from flows.storage.plan import VALUE, checked_generations
from flows.storage.requests import FrozenRequests
from flows.storage.sealing import seal_of
from tests.flows.domain.histories import AT
from tests.flows.storage.building import Work, generations, parquet


@pytest.fixture
def job(tmp_path: Path) -> Work:
    """Requests 0 to 5 in two generations."""
    job = Work(tmp_path, parquet(tmp_path / "in.parquet", {"text": ["a", 'b"\n', None]}))
    job.ask()
    parquet(job.input, {"text": ["ü🙂", "e" * 50, "f\x00"]})
    job.ask()
    return job


def test_sizes_are_those_that_were_measured(job: Work) -> None:
    """Totals are sums of what the plan measured, and no less than what is sent."""
    frozen = job.frozen()
    sizes = [frozen.total(n, n + 1) for n in range(6)]
    assert frozen.total(0, 6) == sum(sizes)
    assert frozen.total(3, 3) == 0
    encoded = [
        HolySheepCodec(RequestForm("m")).encode(LONGEST_ID, text)
        for text in ("a", 'b"\n', "", "ü🙂", "e" * 50, "f\x00")
    ]
    assert sizes == [len(item) + 1 for item in encoded]
    for start in range(6):
        for most in (0, 1, sizes[start] - 1, sizes[start], sum(sizes[start : start + 2]), 10**9):
            stop = frozen.fit(start, 6, most)
            assert frozen.total(start, stop) <= most
            assert stop == 6 or frozen.total(start, stop + 1) > most
    assert frozen.fit(0, 2, 10**9) == 2
    assert frozen.fit(3, 6, -5) == 3


def test_a_missing_generation_is_said_to_be_missing(job: Work) -> None:
    """Numbers would mean other requests."""
    first, second = generations(job.state.requests)
    first.unlink()
    with pytest.raises(StateError, match="before number 3 are missing"):
        FrozenRequests([second])


@pytest.mark.parametrize("which", [0, 1])
def test_only_the_files_that_the_journal_knows_are_read(job: Work, which: int) -> None:
    """Another generation in the place of one, or none, would give rows the answers of others."""
    files = generations(job.state.requests)
    plan = seal_of(job.state.rows)
    events = [
        Frozen(at=AT, start=start, stop=start + 3, spec="s", rows=3, wanted=3, generation=seal_of(file), plan=plan)
        for start, file in zip((0, 3), files, strict=True)
    ]
    assert checked_generations(job.state.requests, events) == files
    files[which].write_bytes(files[1 - which].read_bytes())
    with pytest.raises(StateError, match="is not the file that the journal says"):
        checked_generations(job.state.requests, events)
    files[which].unlink()
    with pytest.raises(StateError, match="is missing"):
        checked_generations(job.state.requests, events)


def damage(path: Path, column: str) -> None:
    """Change a byte of the values of a column; the footer stays whole."""
    metadata = pq.read_metadata(path)
    found = metadata.row_group(0).column(metadata.schema.names.index(column))
    content = bytearray(path.read_bytes())
    start = found.dictionary_page_offset or found.data_page_offset
    content[start + found.total_compressed_size - 1] ^= 0xFF
    path.write_bytes(content)


def test_damaged_values_are_found_when_they_are_read(job: Work) -> None:
    """Each page has a checksum: no prompt is rendered from values that changed on the disk."""
    first, second = generations(job.state.requests)
    seal = seal_of(second)
    damage(second, f"{VALUE}text")
    assert seal_of(second) == seal, "it is not read for the seal"
    with pytest.raises(StateError, match=r"frozen requests in .*000000000003\.pq are damaged"):
        list(FrozenRequests([first, second]).read_values([Slice(0, 6)], ["text"]))


@pytest.mark.parametrize("column", ["hi", "lo", "request"])
def test_damaged_keys_are_found_when_they_are_read(job: Work, column: str) -> None:
    """With another key a request would be asked, and paid for, again; with another number it gets a wrong answer."""
    damage(generations(job.state.requests)[1], column)
    parquet(job.input, {"text": ["a"]})
    with pytest.raises(StateError, match="frozen requests are damaged"):
        job.ask()


def test_no_requests_are_no_trouble() -> None:
    """An input of which nothing can be sent."""
    assert FrozenRequests([]).total(0, 0) == 0
