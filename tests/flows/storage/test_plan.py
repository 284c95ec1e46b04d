"""The plan on disk: read back for the question that it answers."""

from pathlib import Path

import pytest

from flows.storage.plan import Plan, Question, read_plan, wanted_requests
from flows.storage.sealing import seal_of
from tests.flows.storage.building import Work, parquet, question


def read(job: Work, asked: Question) -> Plan | None:
    return read_plan(job.state.rows, asked, seal_of(job.state.rows))


def test_a_plan_is_read_back_for_the_same_question_only(tmp_path: Path) -> None:
    """Another limit, condition or file needs another plan."""
    job = Work(tmp_path, parquet(tmp_path / "in.parquet", {"text": ["a\u2028☂", "b"]}))
    assert read_plan(job.state.rows, question(job.input), None) is None
    plan = job.ask()
    assert read(job, question(job.input)) == plan
    for changes in ({"limit": 1}, {"where": "true"}, {"skip_empty": ("text",)}, {"max_request_bytes": 9}):
        assert read(job, question(job.input, **changes)) is None
    assert read(job, question(job.input, "{{ text }}!")) is None
    parquet(job.input, {"text": ["c", "b"]})
    assert read(job, question(job.input)) is None


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"not a table", None])
def test_a_plan_that_is_not_the_newest_one_is_no_plan(tmp_path: Path, damage: bytes | None) -> None:
    """Damaged, gone, or made for other numbers: a new one finds the same requests by their keys."""
    job = Work(tmp_path, parquet(tmp_path / "in.parquet", {"text": ["a", "b", "a"]}))
    first, seal = job.ask(), seal_of(job.state.rows)
    if damage is None:
        assert job.ask().requests == 2, "the same question once more"
    else:
        job.state.rows.write_bytes(damage)
    assert read_plan(job.state.rows, job.question, seal) is None
    again = job.ask()
    assert (again.requests, again.start, again.stop) == (first.requests, 2, 2)
    assert list(wanted_requests(job.state.rows, "100MB")) == [(0, 2)]
