"""Results parts: what was judged is stored, typed, and read back."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from blocks.batch import FailureKind
from flows.domain.batches import Batch, State
from flows.domain.events import Slice
from flows.storage.state import StateDirectory
from tests.flows.domain.answers import GOOD, answer, failure
from tests.flows.storage.building import Collecting


def test_a_part_has_a_row_for_each_request(tmp_path: Path) -> None:
    """Ascending, with tokens and cost where they are known."""
    collecting = Collecting(StateDirectory(tmp_path / "out.parquet"))
    answers = [answer(2, GOOD), answer(1, GOOD, usage=None), answer(0, "no json", attempt=2)]
    collecting.batch([Slice(0, 1, 2, 1), Slice(1, 4)], answers)
    rows = pq.read_table(collecting.part(1)).to_pylist()
    assert [(row["request"], row["attempt"], row["outcome"]) for row in rows] == [
        (0, 2, "rejected"),
        (1, 1, "ok"),
        (2, 1, "ok"),
        (3, 1, "missing"),
    ]
    assert [row["raw"] for row in rows] == ["no json", None, None, None]
    assert [(row["input_tokens"], row["output_tokens"], row["cost"]) for row in rows] == [
        (100, 10, 1400),
        (None, None, None),
        (100, 10, 1400),
        (None, None, None),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"i": 1.0, "n": 2, "l": ["a"], "s": {"x": null}, "j": [1, {"a": "ä"}], "extra": 1}',
         {"i": 1, "n": 2.0, "l": ["a"], "s": {"x": None}, "j": '[1,{"a":"ä"}]'}),
        ('{"i": null, "n": null, "l": null, "s": null, "j": null}', dict.fromkeys("inlsj")),
        ("{}", dict.fromkeys("inlsj")),
    ],
)  # fmt: skip
def test_a_part_holds_typed_values_and_is_read_back(tmp_path: Path, text: str, value: dict[str, Any]) -> None:
    """Whatever the schema allows, its columns hold."""
    kinds = {
        "i": {"type": ["integer", "null"]},
        "n": {"type": ["number", "null"]},
        "l": {"type": ["array", "null"], "items": {"type": "string"}},
        "s": {"type": ["object", "null"], "properties": {"x": {"type": ["integer", "null"]}}},
        "j": {},
    }
    state = StateDirectory(tmp_path / "out.parquet")
    collecting = Collecting(state, {"type": "object", "properties": kinds})
    collecting.batch([Slice(0, 2)], [answer(0, text)])
    rows = pq.read_table(collecting.part(1)).to_pylist()
    assert rows[0]["answer"] == value
    assert rows[1]["answer"] is None


def test_corrections_are_the_reasons_of_rejected_answers(tmp_path: Path) -> None:
    """And of no others."""
    collecting = Collecting(StateDirectory(tmp_path / "out.parquet"))
    collecting.batch([Slice(0, 4)], [answer(0, GOOD), answer(1, "{}"), failure(2, FailureKind.TRANSIENT)])
    assert list(collecting.store.corrections(collecting.ledger.batches[1])) == [1]


def test_only_parts_that_the_ledger_lists_are_read(tmp_path: Path) -> None:
    """A part that a dead process left behind is written over, never counted."""
    collecting = Collecting(StateDirectory(tmp_path / "out.parquet"))
    collecting.batch([Slice(0, 1)], [answer(0, GOOD)])
    collecting.store.save(Batch(2, [Slice(0, 1)], State.COLLECTED), pq.read_table(collecting.part(1)))
    assert [part.label for part in collecting.store.parts(collecting.ledger)] == ["batch 1"]


@pytest.mark.parametrize("text", ['{"label": ' + "[" * 900 + "]" * 900 + "}", "\x00", "[" * 100_000, "9" * 10_000])
def test_no_answer_stops_a_run(tmp_path: Path, text: str) -> None:
    """However strange it is, it is rejected with a reason."""
    collecting = Collecting(StateDirectory(tmp_path / "out.parquet"))
    result = collecting.batch([Slice(0, 2)], [answer(0, text), answer(1, GOOD)])
    rows = pq.read_table(collecting.part(1)).to_pylist()
    assert [row["outcome"] for row in rows] == ["rejected", "ok"]
    assert len(rows[0]["error"]) <= 300
    assert result.ok == 1
