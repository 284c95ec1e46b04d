"""A folder of Parquet files in, the same folder of files out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.errors import UsageError
from flows.report.markdown import markdown
from tests.flows.undecorated import emulator_ledger, enrich, reviews, write_job

JOB = """\
name: test
model: gpt-4.1
prompt: "In {{ country }}: {{ text }}"
output:
  sentiment: {type: string, enum: [positive, negative, neutral]}
"""
NAMES = ["country=DE/a.parquet", "country=DE/b.parquet", "country=FR/a.parquet"]


def write(folder: Path, name: str, texts: list[str | None], **columns: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": texts, **columns}), path)
    return path


@pytest.fixture
def call(tmp_path: Path) -> dict[str, Any]:
    """Three files of five rows in two partitions."""
    for number, name in enumerate(NAMES):
        write(tmp_path / "in", name, reviews(15)[5 * number : 5 * number + 5])
    return {
        "input": str(tmp_path / "in"),
        "output": str(tmp_path / "out"),
        "job": str(write_job(tmp_path, JOB)),
    }


def states(folder: Path) -> dict[str, tuple[int, int]]:
    """Which file stands under each name: another one, or the same written anew, is told by number and time."""
    found = {path.relative_to(folder).as_posix(): path.stat() for path in folder.rglob("*.parquet")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in sorted(found.items())}


def test_the_same_files_come_out(call: dict[str, Any]) -> None:
    """Under the same names, each with its own rows and columns in their order, and then ours."""
    figures = enrich(**call)
    assert figures.rows == {"ok": 15}
    assert list(states(Path(call["output"]))) == NAMES
    for name in NAMES:
        before = pq.ParquetFile(Path(call["input"]) / name).read()
        after = pq.ParquetFile(Path(call["output"]) / name).read()
        assert after.select(before.schema.names).equals(before)
        assert after.schema.names[: len(before.schema.names)] == before.schema.names
        assert "country" not in after.schema.names, "it stands in the folder's name, as before"
        assert set(after.column("_status").to_pylist()) == {"ok"}


def test_the_names_of_folders_are_values(call: dict[str, Any]) -> None:
    """A prompt may use them, and so may --where; Hive's word for null is null."""
    write(Path(call["input"]), "country=__HIVE_DEFAULT_PARTITION__/a.parquet", ["nowhere"])
    write(Path(call["input"]), "country=C%C3%B4te%20d%27Ivoire/a.parquet", ["far away"])
    enrich(**call, where="country <> 'FR' OR country IS NULL")
    asked = {
        prompt.partition(":")[0] for (prompt,) in emulator_ledger(Path(call["output"]), "SELECT prompt FROM requests")
    }
    assert asked == {"In DE", "In Côte d'Ivoire", "In "}
    skipped = pq.ParquetFile(Path(call["output"]) / NAMES[2]).read().column("_status").to_pylist()
    assert skipped == ["skipped"] * 5


def test_a_new_file_leaves_the_others_alone(call: dict[str, Any]) -> None:
    """Only its rows are asked for, and only it is written, wherever it stands in the order."""
    enrich(**call)
    before = states(Path(call["output"]))
    write(Path(call["input"]), "country=AT/a.parquet", ["new", "newer"])
    figures = enrich(**call)
    after = states(Path(call["output"]))
    assert (figures.attempts, figures.rows) == (2, {"ok": 17})
    assert {name: after[name] for name in NAMES} == before
    assert sorted(after.keys() - before.keys()) == ["country=AT/a.parquet"]


def test_nothing_new_writes_nothing(call: dict[str, Any]) -> None:
    """And sends nothing."""
    enrich(**call)
    before = states(Path(call["output"]))
    figures = enrich(**call)
    assert (figures.attempts, figures.rows) == (0, {"ok": 15})
    assert states(Path(call["output"])) == before


def test_a_file_that_changed_is_written_and_no_other(call: dict[str, Any]) -> None:
    """One new row of it is one request."""
    enrich(**call)
    before = states(Path(call["output"]))
    write(Path(call["input"]), NAMES[1], [*reviews(15)[5:10], "one more"])
    figures = enrich(**call)
    after = states(Path(call["output"]))
    assert figures.attempts == 1
    assert [name for name in NAMES if after[name] != before[name]] == [NAMES[1]]


def test_a_row_that_is_now_paid_elsewhere_writes_that_file(call: dict[str, Any]) -> None:
    """A duplicate that comes to stand first has the cost from now on: the files add up to what was paid."""
    first = enrich(**call)
    write(Path(call["input"]), "country=DE/0.parquet", reviews(1))
    second = enrich(**call)
    assert second.attempts == 0
    costs = [
        cost
        for name in ["country=DE/0.parquet", *NAMES]
        for cost in pq.ParquetFile(Path(call["output"]) / name).read().column("_cost_usd").to_pylist()
    ]
    assert sum(costs) * 10**12 == first.money.total == second.money.total


def test_a_file_whose_input_is_gone_goes_with_the_second_run_that_misses_it(call: dict[str, Any]) -> None:
    """The first one says so in log and report, and counts only the others. One that somebody changed stays."""
    enrich(**call)
    for name in NAMES[1:]:
        (Path(call["input"]) / name).unlink()
    write(Path(call["output"]), NAMES[2], ["mine"])
    figures = enrich(**call)
    assert figures.rows == {"ok": 5}
    assert [note.partition(" of")[0] for note in figures.notes] == ["1"]
    assert "the next run removes what still has no input" in markdown(figures)
    assert list(states(Path(call["output"]))) == NAMES
    assert enrich(**call).notes == []
    assert list(states(Path(call["output"]))) == [NAMES[0], NAMES[2]]


def test_an_input_that_was_absent_for_one_night_loses_nothing(call: dict[str, Any]) -> None:
    """Its file stays as it is, and absences that do not follow each other are not added up."""
    enrich(**call)
    before, place = states(Path(call["output"])), Path(call["input"]) / NAMES[1]
    for _ in range(2):
        place.rename(place.with_suffix(".away"))
        assert enrich(**call).rows == {"ok": 10}
        place.with_suffix(".away").rename(place)
        figures = enrich(**call)
        assert (figures.rows, figures.attempts, figures.notes) == ({"ok": 15}, 0, [])
        assert states(Path(call["output"])) == before


def test_a_word_of_the_user_removes_at_once(call: dict[str, Any]) -> None:
    """--replace means the whole output."""
    enrich(**call)
    (Path(call["input"]) / NAMES[1]).unlink()
    enrich(**call, replace=True)
    assert list(states(Path(call["output"]))) == [NAMES[0], NAMES[2]]


def test_a_limited_run_removes_nothing(call: dict[str, Any]) -> None:
    """Neither files beyond its limit, however often it runs, nor files whose input is gone; the next run has them."""
    enrich(**call)
    before = states(Path(call["output"]))
    for _ in range(2):
        figures = enrich(**call, limit=1)
        assert figures.rows == {"ok": 1}
        assert "2 of its files were not part of this run" in figures.notes[0]
        assert {name: states(Path(call["output"]))[name] for name in NAMES[1:]} == {n: before[n] for n in NAMES[1:]}
    away = Path(call["input"]) / NAMES[2]
    away.rename(away.with_suffix(".away"))
    for _ in range(2):
        enrich(**call, limit=1)
        assert list(states(Path(call["output"]))) == NAMES
    away.with_suffix(".away").rename(away)
    assert (enrich(**call).rows, enrich(**call).notes) == ({"ok": 15}, [])


def test_a_file_that_somebody_else_wrote_is_not_overwritten(call: dict[str, Any]) -> None:
    """Nothing is sent."""
    enrich(**call)
    write(Path(call["input"]), "country=AT/a.parquet", ["new"])
    write(Path(call["output"]), "country=AT/a.parquet", ["not ours"])
    with pytest.raises(UsageError, match="has changed since Batchwerk wrote it"):
        enrich(**call)


def test_a_folder_with_other_things_in_it_is_refused(call: dict[str, Any]) -> None:
    """An empty one is as good as none."""
    Path(call["output"]).mkdir()
    (Path(call["output"]) / "notes.txt").touch()
    with pytest.raises(UsageError, match="was not written by Batchwerk"):
        enrich(**call)
    (Path(call["output"]) / "notes.txt").unlink()
    assert enrich(**call).rows == {"ok": 15}


def test_files_that_are_hidden_from_readers_are_not_seen(call: dict[str, Any]) -> None:
    """By an underscore or a dot, at any depth."""
    for name in ("_old/a.parquet", "country=DE/.a.parquet", "country=DE/_temporary/0/a.parquet"):
        write(Path(call["input"]), name, ["hidden"])
    assert enrich(**call).rows == {"ok": 15}
    assert list(states(Path(call["output"]))) == NAMES


def test_a_limit_counts_over_all_files(call: dict[str, Any]) -> None:
    """Files beyond it do not come out; a later run extends it."""
    assert enrich(**call, limit=7).rows == {"ok": 7}
    rows = {name: pq.ParquetFile(Path(call["output"]) / name).metadata.num_rows for name in NAMES[:2]}
    assert rows == {NAMES[0]: 5, NAMES[1]: 2}
    assert list(states(Path(call["output"]))) == NAMES[:2]
    figures = enrich(**call)
    assert (figures.attempts, figures.rows) == (8, {"ok": 15})


def test_files_may_differ_in_their_columns(call: dict[str, Any]) -> None:
    """Each keeps its own; what the prompt uses has to be in all, and numbers of two widths are the same numbers."""
    folder = Path(call["input"])
    write(folder, NAMES[0], ["a"], stars=pa.array([5], pa.int16()))
    write(folder, NAMES[1], ["a"], stars=pa.array([5], pa.int64()), note=["x"])
    write(folder, NAMES[2], ["a"], stars=pa.array([4], pa.int32()))
    job = write_job(folder.parent, JOB.replace("{{ text }}", "{{ text }} {{ stars }}"))
    figures = enrich(**{**call, "job": str(job)})
    assert (figures.rows, figures.requests) == ({"ok": 3}, 2)
    kinds = [pq.read_schema(Path(call["output"]) / name).field("stars").type for name in NAMES]
    assert kinds == [pa.int16(), pa.int64(), pa.int32()]


def test_a_file_in_the_middle_may_have_no_rows(call: dict[str, Any]) -> None:
    """It comes out with its columns and without rows."""
    write(Path(call["input"]), NAMES[1], [])
    assert enrich(**call).rows == {"ok": 10}
    assert pq.ParquetFile(Path(call["output"]) / NAMES[1]).metadata.num_rows == 0


@pytest.mark.parametrize(("compression", "written"), [("snappy", "SNAPPY"), ("none", "UNCOMPRESSED"), ("zstd", "ZSTD")])
def test_compression_and_row_groups_can_be_set(call: dict[str, Any], compression: str, written: str) -> None:
    """Changing them writes the files anew, and asks for nothing."""
    enrich(**call)
    figures = enrich(**call, compression=compression, row_group_rows=2)
    metadata = pq.ParquetFile(Path(call["output"]) / NAMES[0]).metadata
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [2, 2, 1]
    assert metadata.row_group(0).column(0).compression == written
    assert figures.attempts == 0
