"""Small files that hold gigabytes, and single huge values: the memory of all processes together stays bounded."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.catalog import PROVIDERS
from blocks.emulator import EmulatorOptions, running_emulator
from flows.storage.state import StateDirectory
from tests.bench.running import measure
from tests.flows.undecorated import JOB, write_job

MEGABYTE = 1024 * 1024
MOST_MB = 600
# The package first, as in the command: it chooses Arrow's allocator.
RUN = "import flows, sys; from tests.flows.undecorated import main; main(sys.argv[1])"
LONG = ("The battery is great and the delivery was late. " * 900)[:40_000]
WITH_ID = JOB.replace("{{ text }}", "{{ id }} {{ text }}")
ID_ALONE = JOB.replace("{{ text }}", "{{ id }}")


def peak_of_run(folder: Path, job: str = JOB, **more: Any) -> float:
    """Megabytes that a run and its emulator take at most, together."""
    parameters = {
        "input": str(folder / "input.parquet"),
        "output": str(folder / "out.parquet"),
        "job": str(write_job(folder, job)),
        **more,
    }
    return measure([sys.executable, "-c", RUN, orjson.dumps(parameters).decode()], {}).peak_mb


def write_swollen(folder: Path, nulls: int, texts: int) -> None:
    """Nulls, then one long text again and again: gigabytes in memory, 100 KB on the disk."""
    path, ids = folder / "input.parquet", 0
    schema = pa.schema({"id": pa.int32(), "text": pa.string()})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for values in (pa.nulls(nulls, pa.string()), *[pa.array([LONG] * 1_000)] * (texts // 1_000)):
            numbers = pa.array(range(ids, ids + len(values)), pa.int32())
            writer.write_table(pa.table({"id": numbers, "text": values}), row_group_size=len(values))
            ids += len(values)
    assert path.stat().st_size < MEGABYTE


def statuses(folder: Path) -> set[str]:
    return set(pq.read_table(folder / "out.parquet", columns=["_status"]).column(0).to_pylist())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "more"),
    [
        pytest.param(JOB, {}, id="one question"),
        pytest.param(ID_ALONE, {"limit": 61_000}, id="carried along"),
        pytest.param(WITH_ID, {"limit": 12_000, "batch_size": 1_000}, id="many questions"),
    ],
)
def test_two_gigabytes_in_a_hundred_kilobytes_take_no_more(tmp_path: Path, job: str, more: dict[str, Any]) -> None:
    """Every row comes out, whether the text is asked about or only carried along."""
    write_swollen(tmp_path, nulls=10_000, texts=51_000)
    assert peak_of_run(tmp_path, job, **more) < MOST_MB
    assert statuses(tmp_path) == {"ok"}


def write_huge(folder: Path, texts: Sequence[str]) -> None:
    pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), folder / "input.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("job", [JOB, ID_ALONE], ids=["asked about", "carried along"])
def test_a_huge_value_is_answered_or_fails_alone(tmp_path: Path, job: str) -> None:
    """A cell of 50 MB among short ones: its row has an answer or the reason why not, all others are answered."""
    write_huge(tmp_path, ["short", "x" * (50 * MEGABYTE), "shorter"])
    assert peak_of_run(tmp_path, job) < MOST_MB
    table = pq.read_table(tmp_path / "out.parquet", columns=["_status", "_error"]).to_pylist()
    assert [row["_status"] for row in table[::2]] == ["ok", "ok"]
    assert table[1]["_status"] == "ok" or table[1]["_error"]
    assert StateDirectory(tmp_path / "out.parquet").report("json").exists()


LENGTHY = """\
name: lengthy
model: gpt-4.1
prompt: "Write about {{ text }}"
output:
  story: {type: string, minLength: 100000, maxLength: 100000}
"""


@pytest.mark.slow
def test_a_hundred_megabytes_in_one_json_are_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand answers of 100 KB, which come as one page; what the emulator takes is not counted."""
    monkeypatch.setenv(PROVIDERS["holysheep"].key_variable, "k")
    write_huge(tmp_path, [f"number {n}" for n in range(1_000)])
    with running_emulator(EmulatorOptions(latency=0, state=tmp_path / "provider.sqlite")) as emulator:
        there = {"provider": "holysheep", "base_url": emulator.base_url, "poll_interval": 0.2}
        assert peak_of_run(tmp_path, LENGTHY, batch_size=1_000, **there) < MOST_MB
    assert statuses(tmp_path) == {"ok"}
