"""Ours beside others: rows delivered, lines billed, seconds and memory, when all goes well and when a tenth fails once.

Own seconds are without what the same process takes with nothing to do: imports, and for ours Prefect's start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

from tests.bench.contestants import Task, run_loop, run_loop_with_nothing, run_nothing, run_ours
from tests.bench.job import ANSWER, MAX_OUTPUT_TOKENS, MODEL, SYSTEM
from tests.bench.loop import KEY
from tests.bench.peers.venvs import python_of
from tests.bench.plan import Plan
from tests.bench.rows import count_answered
from tests.bench.running import Measured, RunFailed, measure
from tests.bench.sheets import Sheet, factor
from tests.bench.surroundings import Unavailable, emulator, prefect_on_sqlite

SIZES, BATCH_SIZE, POLL = (20_000, 200_000), 5_000, 1.0
FAILURE_RATES = {"clean": 0.0, "10 % fail once": 0.1}
DRIVERS = Path(__file__).parent
PEERS = {
    "curator 0.1.31": ("with_curator.py", ("bespokelabs-curator==0.1.31",)),
    "autobatcher 0.12": ("with_autobatcher.py", ("autobatcher==0.12", "pyarrow")),
}
QUIET = {  # nothing is called but the emulator
    "TELEMETRY_ENABLED": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
}


@dataclass(frozen=True)
class Contestant:
    """Somebody who does the job, and how long it takes until the job could begin."""

    name: str
    run: Callable[[Task], Measured]
    start: float


@dataclass(frozen=True)
class Delivery:
    """What came of a run."""

    rows: int
    received: int
    billed: int
    seconds: float
    peak_mb: float


def peers(plan: Plan) -> Iterator[Sheet]:
    """The same rows through each, few and many, clean and with failures."""
    missing: list[str] = []
    with prefect_on_sqlite() as server:
        contestants = [*_own(server), *_others(plan, missing)]
        for rows, (title, rate) in product((1_000,) if plan.quick else SIZES, FAILURE_RATES.items()):
            found = {each.name: _delivery(plan, each, rows, rate, missing) for each in contestants}
            yield _sheet(title, rows, {name: each for name, each in found.items() if each is not None})
    if missing:
        yield Sheet("Peers that are missing", note=" ".join(missing))


def _own(server: Mapping[str, str]) -> list[Contestant]:
    run_nothing(server)  # the first is slower
    return [
        Contestant("ours", partial(run_ours, server=server), run_nothing(server).seconds),
        Contestant("bare loop", run_loop, run_loop_with_nothing().seconds),
    ]


def _others(plan: Plan, missing: list[str]) -> Iterator[Contestant]:
    for name, (driver, requirements) in PEERS.items():
        plan.say(f"an environment for {name}")
        try:
            python = python_of(plan.cache, name.replace(" ", "-"), requirements)
        except Unavailable as error:
            missing.append(f"Skipped: {error}.")
            continue
        command = [str(python), "-P", str(DRIVERS / driver)]
        measure(command, QUIET)  # compiles what it imports
        yield Contestant(name, partial(_run_peer, command), measure(command, QUIET).seconds)


def _run_peer(command: list[str], task: Task) -> Measured:
    work = task.output.parent
    work.mkdir(parents=True)
    told = {
        "source": str(task.source),
        "output": str(task.output),
        "work": str(work),
        "base_url": task.emulator.base_url,
        "key": KEY,
        "batch_size": task.batch_size,
        "poll": task.poll,
        "model": MODEL,
        "system": SYSTEM,
        "answer": ANSWER,
        "max_output_tokens": MAX_OUTPUT_TOKENS,
    }
    home = {name: str(work) for name in ("HOME", "HF_HOME")}
    return measure([*command, json.dumps(told)], {**QUIET, **home, "PATH": os.defpath})


def _delivery(plan: Plan, each: Contestant, rows: int, rate: float, missing: list[str]) -> Delivery | None:
    with emulator(failure_rate=rate) as running:
        output = plan.place / "peers" / "out.parquet"
        task = Task(plan.source(rows), output, plan.job, running, min(BATCH_SIZE, rows // 4), POLL)
        try:
            done = each.run(task)
        except RunFailed as error:
            missing.append(f"{each.name} failed at a failure rate of {rate:.0%}: {error.reason}.")
            return None
        finally:
            ledger = running.ledger()
        answered = count_answered(output)[1]
        task.clear()
    plan.say(f"{each.name}: {answered:,} rows in {done.seconds:.1f} s")
    seconds = done.seconds - each.start
    return Delivery(answered, ledger["requests_received"], ledger["billed_items"], seconds, done.peak_mb)


def _sheet(title: str, rows: int, found: Mapping[str, Delivery]) -> Sheet:
    columns = ("", "rows delivered", "requests sent", "lines billed", "own s", "x ours", "peak MB", "x ours")
    ours = found.get("ours")
    lines = [
        (
            name,
            f"{each.rows:,} ({each.rows / rows:.1%})",
            f"{each.received:,}",
            f"{each.billed:,}",
            f"{each.seconds:.1f}",
            factor(each.seconds, ours.seconds) if ours else "-",
            f"{each.peak_mb:.0f}",
            factor(each.peak_mb, ours.peak_mb) if ours else "-",
        )
        for name, each in found.items()
    ]
    note = f"{rows:,} rows, batches of {min(BATCH_SIZE, rows // 4):,}, polled every {POLL:.0f} s; one run each."
    return Sheet(f"Peers, {rows:,} rows, {title}", columns, lines, note)
