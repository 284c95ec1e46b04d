"""The plan on disk: read back for the question that it answers."""

from pathlib import Path

import pytest

from flows.storage.plan import read_plan, wanted_requests
from tests.flows.storage.building import Work, parquet, question


def test_a_plan_is_read_back_for_the_same_question_only(tmp_path: Path) -> None:
    """Another limit, condition or file needs another plan."""
    job = Work(tmp_path, parquet(tmp_path / "in.parquet", {"text": ["a\u2028☂", "b"]}))
    assert read_plan(job.state.rows, question(job.input)) is None
    plan = job.ask()
    assert read_plan(job.state.rows, question(job.input)) == plan
    for changes in ({"limit": 1}, {"where": "true"}, {"skip_empty": ("text",)}, {"max_request_bytes": 9}):
        assert read_plan(job.state.rows, question(job.input, **changes)) is None
    assert read_plan(job.state.rows, question(job.input, "{{ text }}!")) is None
    parquet(job.input, {"text": ["c", "b"]})
    assert read_plan(job.state.rows, question(job.input)) is None


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"not a table"])
def test_a_damaged_plan_is_no_plan(tmp_path: Path, damage: bytes) -> None:
    """A new one finds the same requests by their keys."""
    job = Work(tmp_path, parquet(tmp_path / "in.parquet", {"text": ["a", "b", "a"]}))
    first = job.ask()
    job.state.rows.write_bytes(damage)
    assert read_plan(job.state.rows, job.question) is None
    again = job.ask()
    assert (again.requests, again.start, again.stop) == (first.requests, 2, 2)
    assert list(wanted_requests(job.state.rows, "100MB")) == [(0, 2)]
