"""Frozen requests: their sizes are known before they are encoded."""

from pathlib import Path

import pytest

from blocks.batch import RequestForm
from blocks.errors import StateError
from blocks.providers.holysheep.codec import HolySheepCodec
from flows.storage.plan import generations
from flows.storage.requests import FrozenRequests
from tests.flows.storage.building import Work, parquet


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
        HolySheepCodec(RequestForm("m")).encode("x" * 40, text) for text in ("a", 'b"\n', "", "ü🙂", "e" * 50, "f\x00")
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


def test_no_requests_are_no_trouble() -> None:
    """An input of which nothing can be sent."""
    assert FrozenRequests([]).total(0, 0) == 0
