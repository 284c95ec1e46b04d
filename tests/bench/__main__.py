"""`make bench`: rows a second, CPU seconds and peak memory of the pipeline, with the share of each stage.

Prefect's server is a process of its own on SQLite; the emulator answers without latency. Figures are for comparing
within one run on one machine, so each is the median of several.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from tests.bench.rows import JOB, write_rows
from tests.flows.server import prefect_server

ROOT = Path(__file__).parents[2]
SIZES = {100_000: 3, 400_000: 2}  # rows: runs
BATCH_SIZE = 10_000


def main() -> None:
    """Measure every size and print two tables."""
    with TemporaryDirectory(prefix="batchwerk-bench-") as folder:
        place = Path(folder)
        (place / "job.yaml").write_text(JOB)
        with prefect_server(place) as env:
            measured = {rows: _measure(place, rows, runs, env) for rows, runs in SIZES.items()}
    console = Console(width=110)
    console.print(_totals(measured))
    console.print(_stages(measured))


def _measure(place: Path, rows: int, runs: int, env: dict[str, str]) -> list[dict[str, Any]]:
    source = place / f"{rows}.parquet"
    write_rows(source, rows)
    return [_one(source, place / f"{rows}-{run}" / "out.parquet", place / "job.yaml", env) for run in range(runs)]


def _one(source: Path, output: Path, job: Path, env: dict[str, str]) -> dict[str, Any]:
    parameters = {
        "input": str(source),
        "output": str(output),
        "job": str(job),
        "provider": "local",
        "batch_size": BATCH_SIZE,
        "options": {"latency": "0"},
    }
    command = [sys.executable, "-m", "tests.bench.measured", orjson.dumps(parameters).decode()]
    environment = {**os.environ, **env, "PREFECT_LOGGING_LEVEL": "WARNING"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = orjson.loads(done.stdout.splitlines()[-1])
    if result["ok"] != result["rows"]:
        raise RuntimeError(f"{result['rows'] - result['ok']} rows are not ok: this figure would mean nothing")
    return result


def _totals(measured: dict[int, list[dict[str, Any]]]) -> Table:
    table = Table("rows", "runs", "rows/s", "seconds", "CPU s", "peak MB", title="The pipeline's own process (medians)")
    for rows, results in measured.items():
        seconds = median(result["seconds"] for result in results)
        cpu, peak = (median(result[name] for result in results) for name in ("cpu", "peak_mb"))
        figures = (f"{rows / seconds:,.0f}", f"{seconds:.1f}", f"{cpu:.1f}", f"{peak:.0f}")
        table.add_row(f"{rows:,}", str(len(results)), *figures)
    return table


def _stages(measured: dict[int, list[dict[str, Any]]]) -> Table:
    table = Table("stage", *(f"CPU s, {rows:,} rows" for rows in measured), title="Where the CPU goes (medians)")
    names = list(dict.fromkeys(name for results in measured.values() for name in results[0]["stages"]))
    shares: dict[int, float] = {}
    for name in names:
        cells = []
        for rows, results in measured.items():
            seconds = median(result["stages"].get(name, 0.0) for result in results)
            shares[rows] = shares.get(rows, 0.0) + seconds
            cells.append(f"{seconds:.2f} ({seconds / median(r['cpu'] for r in results):.0%})")
        table.add_row(name, *cells)
    rest = {rows: median(result["cpu"] for result in results) - shares[rows] for rows, results in measured.items()}
    cells = [f"{rest[rows]:.2f} ({rest[rows] / median(r['cpu'] for r in measured[rows]):.0%})" for rows in measured]
    table.add_row("Prefect's client, the loop, the rest", *cells)
    return table


if __name__ == "__main__":
    main()
