"""The condition of `--where`: SQL over the input, and over nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest

from blocks.errors import UsageError
from flows.storage.source import Source
from flows.storage.where import check_condition, selected_rows
from tests.flows.storage.building import parquet


def test_rows_are_selected_by_their_numbers(tmp_path: Path) -> None:
    """Null is not true; an invalid condition is found without reading a row."""
    source = Source.open(parquet(tmp_path / "in.parquet", {"n": [1, None, 3, 4], "it's": ["a", "b", "c", "d"]}))
    assert selected_rows(source, "n > 1 AND \"it's\" <> 'd' -- not the last").tolist() == [2]
    check_condition(source, "n > 1")
    with pytest.raises(UsageError, match="invalid --where condition"):
        check_condition(source, "no_such_column > 1")


@pytest.mark.parametrize(
    "where",
    [
        "",
        "stars >",
        "nosuch = 1",
        "stars = 'many'",
        "stars = ?",
        "stars = $1",
        "true); DROP TABLE x; --",
        "true; ATTACH 'x.db'",
        "true) UNION ALL (SELECT 10000000",
        "true) UNION SELECT 1 FROM (SELECT 1) WHERE (true",
        "true UNION SELECT 0",
        "true ORDER BY 1",
        "true, false",
    ],
)
def test_what_is_no_condition_is_refused(tmp_path: Path, where: str) -> None:
    """As a mistake in the call, at the latest when the rows are selected."""
    source = Source.open(parquet(tmp_path / "in.parquet", {"text": ["a"], "stars": [1]}))
    with pytest.raises(UsageError, match="invalid --where condition"):
        selected_rows(source, where)


@pytest.mark.parametrize(
    "where",
    [
        "(SELECT count(*) FROM read_csv('/etc/passwd')) > 0",
        "(SELECT count(*) FROM read_text('/etc/passwd')) > 0",
        "(SELECT count(*) FROM read_blob('{other}')) > 0",
        "(SELECT count(*) FROM read_parquet('{other}')) > 0",
        "(SELECT count(*) FROM '{other}') > 0",
        "(SELECT count(*) FROM read_csv('http://127.0.0.1:9/x')) > 0",
    ],
)
@pytest.mark.parametrize("evaluate", [check_condition, selected_rows])
def test_a_condition_reads_nothing_but_the_input(
    tmp_path: Path, where: str, evaluate: Callable[[Source, str], object]
) -> None:
    """No other file, and no network."""
    other = parquet(tmp_path / "other.parquet", {"secret": [1]})
    source = Source.open(parquet(tmp_path / "in.parquet", {"text": ["a"]}))
    with pytest.raises(UsageError, match="invalid --where condition"):
        evaluate(source, where.format(other=other))


def test_a_condition_lists_no_folder(tmp_path: Path) -> None:
    """Names of files are none of its business either."""
    source = Source.open(parquet(tmp_path / "in.parquet", {"text": ["a"]}))
    with pytest.raises(UsageError, match="invalid --where condition"):
        selected_rows(source, "(SELECT count(*) FROM glob('/etc/*')) > 0")


@pytest.mark.parametrize(
    "where",
    [
        "(SELECT count(*) FROM range(100000000000) a, range(100000000000) b WHERE a.range % 7 = b.range % 11) > stars",
        "(WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t) > stars",
    ],
)
def test_a_condition_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """With a sentence that says so; the process is not held for ever."""
    monkeypatch.setattr("flows.storage.where.SECONDS", 0.3)
    source = Source.open(parquet(tmp_path / "in.parquet", {"text": ["a"], "stars": [1]}))
    with pytest.raises(UsageError, match=r"not evaluated within 0\.3 seconds"):
        selected_rows(source, where)
    assert selected_rows(source, "stars = 1").tolist() == [0]
