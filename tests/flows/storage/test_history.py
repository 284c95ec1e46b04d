"""The history of runs: whatever happens to its file, the run that adds to it goes on."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.errors import StateError
from flows.storage import history
from flows.storage.history import RUNS_SCHEMA, add_to_history, read_history


def a_run(number: int) -> dict[str, Any]:
    texts, costs = {"run": "abcd", "model": "m"}, ["cost_usd", "estimate_usd", "total_cost_usd"]
    numbers = dict.fromkeys(set(RUNS_SCHEMA.names) - {"at", "emulated", "exit", *texts, *costs}, number)
    at = datetime(2026, 12, 1, tzinfo=UTC)
    return {
        "at": at,
        "emulated": False,
        "exit": 0,
        **texts,
        **numbers,
        **dict.fromkeys(costs, Decimal(number) / 7000000),
    }


def test_runs_are_kept_in_their_order(tmp_path: Path) -> None:
    """Each with all it says; the newest are returned, and the others counted."""
    place = tmp_path / "runs.pq"
    assert read_history(place).runs == []
    for number in (7, 14, 21):
        added = add_to_history(place, a_run(number), most=2)
    assert ([run["ok"] for run in added.runs], added.earlier) == ([14, 21], 1)
    assert [run["ok"] for run in read_history(place).runs] == [7, 14, 21]
    assert read_history(place).runs[0] == a_run(7) | {
        "seconds": 7.0,
        "cost_usd": Decimal("0.000001000000"),
        "estimate_usd": Decimal("0.000001000000"),
        "total_cost_usd": Decimal("0.000001000000"),
    }
    assert [path.name for path in tmp_path.iterdir()] == ["runs.pq"]


def test_the_table_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest runs leave."""
    monkeypatch.setattr(history, "MOST_RUNS", 3)
    for number in range(5):
        add_to_history(tmp_path / "runs.pq", a_run(number * 7), most=10)
    assert [run["ok"] for run in read_history(tmp_path / "runs.pq").runs] == [14, 21, 28]


@pytest.mark.parametrize("damage", ["garbage", "cut", "columns", "link", "flipped"])
def test_a_damaged_table_is_said_and_begun_anew(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The run that finds it adds its row to a new one."""
    place = tmp_path / "runs.pq"
    add_to_history(place, a_run(7), most=10)
    content = place.read_bytes()
    match damage:
        case "garbage":
            place.write_bytes(b"no parquet")
        case "cut":
            place.write_bytes(content[: len(content) // 2])
        case "flipped":
            place.write_bytes(content[:60] + bytes(byte ^ 255 for byte in content[60:90]) + content[90:])
        case "columns":
            pq.write_table(pa.table({"a": [1]}), place)
        case "link":
            place.rename(tmp_path / "elsewhere")
            place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError):
        read_history(place)
    with caplog.at_level(logging.WARNING):
        assert [run["ok"] for run in add_to_history(place, a_run(14), most=10).runs] == [14]
    assert "begins anew" in caplog.text
    assert [run["ok"] for run in read_history(place).runs] == [14]
    assert not place.is_symlink()


def test_a_table_that_cannot_be_written_fails_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said; the run's own report still has its line."""
    with caplog.at_level(logging.WARNING):
        assert len(add_to_history(tmp_path / "missing" / "runs.pq", a_run(7), most=10).runs) == 1
    assert "can't be written" in caplog.text
