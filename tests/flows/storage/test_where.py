"""Conditions of `--where`: they read the rows of the input, nothing else, and not for ever."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.errors import UsageError
from flows.storage import where
from flows.storage.source import Source
from flows.storage.where import selected_rows


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    pq.write_table(pa.table({"id": range(5)}), tmp_path / "secret.parquet")
    pq.write_table(pa.table({"id": range(5)}), tmp_path / "input.parquet")
    return Source.open(tmp_path / "input.parquet")


@pytest.mark.parametrize(
    "condition",
    [
        "id < (SELECT max(a) FROM read_csv('{folder}/secret.csv'))",
        "id < (SELECT max(id) FROM '{folder}/secret.parquet')",
        "id < (SELECT length(content) FROM read_text('{folder}/secret.csv'))",
        "id < (SELECT count(*) FROM glob('{folder}/*'))",
        "id < 3; COPY (SELECT 1) TO '{folder}/out.csv'",
        "id < 3); ATTACH '{folder}/x.db' AS x; SELECT (1",
        "id < (SELECT max(a) FROM read_csv('http://127.0.0.1:9/x.csv'))",
        "id <",
        "id = 'many'",
        "name = 1",
    ],
)
def test_what_reaches_beyond_the_input_is_refused(source: Source, condition: str) -> None:
    """Other files, several statements, the network; mistakes too are one sentence."""
    folder = source.path.parent
    with pytest.raises(UsageError, match="invalid --where condition: ") as caught:
        selected_rows(source, condition.format(folder=folder))
    assert "\n" not in caught.value.message
    assert sorted(path.name for path in folder.iterdir()) == ["input.parquet", "secret.csv", "secret.parquet"]


@pytest.mark.parametrize("condition", ["1", "0.5", "id", "NULL", "id % 2 = 1"])
def test_numbers_are_conditions_as_in_sql(source: Source, condition: str) -> None:
    """Zero and null are no."""
    numbers = {"1": [0, 1, 2, 3, 4], "0.5": [0, 1, 2, 3, 4], "id": [1, 2, 3, 4], "NULL": [], "id % 2 = 1": [1, 3]}
    assert selected_rows(source, condition).tolist() == numbers[condition]


def test_a_condition_without_an_end_is_given_up(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would count for years."""
    monkeypatch.setattr(where, "SECONDS", 0.2)
    endless = "id < (SELECT sum(a.range * b.range % 7) FROM range(10000000) AS a, range(10000000) AS b)"
    with pytest.raises(UsageError, match=r"not evaluated within 0\.2 seconds"):
        selected_rows(source, endless)
