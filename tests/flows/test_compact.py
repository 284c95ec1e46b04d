"""Many results parts become few: nobody notices, and nothing hangs on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.report.verdict import Exit
from flows.storage.journal import read_events
from flows.storage.state import StateDirectory
from tests.flows.undecorated import emulator_ledger, enrich, reviews, write_job, write_texts


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one part is many."""
    monkeypatch.setattr("flows.domain.compaction.MAX_PARTS", 1)
    monkeypatch.setattr("flows.domain.compaction.GROWTH", 2)


def call(folder: Path, rows: int = 20, **more: Any) -> dict[str, Any]:
    source, job = write_texts(folder, reviews(rows)), write_job(folder)
    return {"input": str(source), "output": str(folder / "out.parquet"), "job": str(job), "batch_size": 10, **more}


def state_of(parameters: dict[str, Any]) -> StateDirectory:
    return StateDirectory(Path(parameters["output"]))


def parts(parameters: dict[str, Any]) -> list[str]:
    return sorted(path.name for path in state_of(parameters).path.glob("results/*/*"))


def events(parameters: dict[str, Any]) -> list[str]:
    return [event.event for event in read_events(state_of(parameters).journal)]


def published_again(parameters: dict[str, Any], **more: Any) -> Any:
    Path(parameters["output"]).unlink()
    figures = enrich(**parameters, **more)
    assert figures.attempts == 0
    return pq.read_table(parameters["output"])


def test_parts_are_merged_after_the_output_is_there(tmp_path: Path) -> None:
    """And it need not be written again: it is what it was, and the next run finds it so."""
    parameters = call(tmp_path)
    enrich(**parameters)
    assert parts(parameters) == ["compacted-000001.pq"]
    assert events(parameters)[-2:] == ["published", "compacted"]
    before, written = pq.read_table(parameters["output"]), Path(parameters["output"]).stat().st_mtime_ns
    assert enrich(**parameters).attempts == 0
    assert Path(parameters["output"]).stat().st_mtime_ns == written
    assert published_again(parameters).equals(before)


def test_nights_go_on_from_merged_parts(tmp_path: Path) -> None:
    """New rows, repeats and merged parts that are merged again: the rows come out as if nothing was ever merged."""
    faults = {"failure_rate": "0.2", "invalid_rate": "0.2", "seed": "5"}
    for rows in (20, 27, 60):
        parameters = call(tmp_path, rows, options=faults)
        assert enrich(**parameters).rows == {"ok": rows}
    assert events(parameters).count("compacted") >= 2
    (tmp_path / "other").mkdir()
    once = call(tmp_path / "other", 60, options=faults)
    enrich(**once)
    columns = ["id", "text", "sentiment", "topics", "_status"]
    assert pq.read_table(parameters["output"], columns=columns).equals(pq.read_table(once["output"], columns=columns))
    sql = "SELECT count(*), count(DISTINCT prompt_hash) FROM billed WHERE valid"
    assert emulator_ledger(Path(parameters["output"]), sql) == [(60, 60)]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:100])])
def test_a_merged_part_that_is_gone_is_fetched_again_batch_by_batch(tmp_path: Path, damage: Any) -> None:
    """The provider still has them: nothing is paid, the output is the same, and the parts are merged anew."""
    parameters = call(tmp_path)
    enrich(**parameters)
    before = pq.read_table(parameters["output"])
    damage(next(state_of(parameters).path.glob("results/*/compacted-000001.pq")))
    assert published_again(parameters).equals(before)
    assert events(parameters)[-3:] == ["restored", "published", "compacted"]
    assert parts(parameters) == ["compacted-000002.pq"]


def test_what_the_provider_no_longer_has_of_a_merged_part_is_lost(tmp_path: Path) -> None:
    """Also where a crash left some of its parts behind: those are taken."""
    parameters = call(tmp_path)
    enrich(**parameters)
    state = state_of(parameters)
    merged = next(state.path.glob("results/*/compacted-000001.pq"))
    left = pq.read_table(merged)
    merged.unlink()
    left = left.filter([batch == 2 for batch in left.column("batch").to_pylist()]).drop_columns("batch")
    pq.write_table(left, merged.with_name("000002.pq"))
    (state.path / "emulator-holysheep.sqlite").unlink()
    figures = enrich(**parameters)
    assert (figures.exit, figures.attempts, figures.rows) == (Exit.ROWS_FAILED, 0, {"ok": 10, "failed": 10})
    assert enrich(**parameters, retry_failed=True).rows == {"ok": 20}


def test_a_merging_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full: the output is there, the run is a good one, and the next one merges."""
    parameters = call(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("flows.engine.compact.merge_parts", full)
        assert enrich(**parameters).exit is Exit.DONE
    assert parts(parameters) == ["000001.pq", "000002.pq"]
    assert enrich(**parameters).exit is Exit.DONE
    assert parts(parameters) == ["compacted-000001.pq"]


def test_parts_whose_answers_are_asked_for_again_are_left_alone(tmp_path: Path) -> None:
    """While a batch with repeats is in flight what it repeats stays where it is; afterwards all are merged."""
    parameters = call(tmp_path, 30, options={"invalid_rate": "0.3", "seed": "5", "latency": "1.5"})
    assert enrich(**parameters, wait=2.5, poll_interval=0.2).exit is Exit.WAITING
    assert "compacted" not in events(parameters)
    assert enrich(**parameters).rows == {"ok": 30}
    assert parts(parameters) == ["compacted-000001.pq"]
