"""Batches that take their time at the provider: how close a run comes to what the limit of batches at once allows."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from tests.bench.contestants import Task, check_complete, run_nothing, run_ours
from tests.bench.plan import Plan
from tests.bench.sheets import Sheet, factor
from tests.bench.surroundings import emulator, prefect_on_sqlite

BATCHES, IN_FLIGHT, LATENCY, ROWS_PER_BATCH = 64, 8, 20.0, 1_000
EMPTY_RUNS = 3


def latency(plan: Plan) -> Iterator[Sheet]:
    """Seconds against the rounds that the provider's time makes."""
    seconds, size = (2.0, 50) if plan.quick else (LATENCY, ROWS_PER_BATCH)
    rows = BATCHES * size
    least = BATCHES / IN_FLIGHT * seconds
    with prefect_on_sqlite() as server, emulator(latency=seconds) as running:
        empty = median(run_nothing(server).seconds for _ in range(EMPTY_RUNS))
        output = plan.place / "latency" / "out.parquet"
        task = Task(plan.source(rows), output, plan.job, running, size, max_in_flight=IN_FLIGHT)
        plan.say(f"{BATCHES} batches of {seconds:.0f} s, {IN_FLIGHT} at once: at least {least:.0f} s")
        done = run_ours(task, server)
        check_complete(task, rows)
        task.clear()
    own = done.seconds - empty
    yield Sheet(
        "Batches that take their time",
        ("batches", "at once", "seconds of one", "least s", "own s", "own / least", "own CPU s"),
        [
            (
                str(BATCHES),
                str(IN_FLIGHT),
                f"{seconds:.0f}",
                f"{least:.0f}",
                f"{own:.1f}",
                factor(own, least),
                f"{done.cpu:.1f}",
            )
        ],
        f"One run, {size:,} rows a batch, first looked at after {task.poll} s, the next pauses as the provider's plan.",
    )
