"""What must be true after every attack."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal

import orjson
import pyarrow.parquet as pq

from blocks.emulator.service.batch import Outcome
from flows.storage.state import StateDirectory
from tests.attacks.attack import MODELS, Done
from tests.attacks.books import answers_to
from tests.attacks.habits import HABITS, LOSING

COLUMNS = ("code", "label")
FINAL = {"requests_are_refused", *LOSING}  # habits after which a row may fail for good


def check_rows(done: Done) -> None:
    """Every row, in its place, with the answer that the provider gave to its own question; or with a reason."""
    given: dict[str, list[dict[str, object]]] = {}
    for text, line in answers_to(done.books.billed):
        if line.outcome == Outcome.ANSWERED:
            answer = orjson.loads(line.text)
            given.setdefault(text, []).append({name: answer[name] for name in COLUMNS})
    table = pq.read_table(done.output)
    assert table.column("text").to_pylist() == done.plan.texts
    assert table.column("id").to_pylist() == list(range(len(done.plan.texts)))
    for row in table.to_pylist():
        if row["_status"] == "ok":
            assert {name: row[name] for name in COLUMNS} in given[row["text"]], row
        else:
            assert row["_status"] == "failed", row
            assert row["_error"], row
            assert FINAL.intersection(done.plan.habits), row


def check_paid_once(done: Done) -> None:
    """No request was billed twice, and no text was answered well twice unless the answer came
    under another's id or was forgotten with its batch."""
    ids = Counter(line.custom_id for line in done.books.billed)
    assert not [name for name, count in ids.items() if count > 1]
    good: Counter[str] = Counter()
    excused: Counter[str] = Counter()
    for text, line in answers_to(done.books.billed):
        good[text] += line.outcome == Outcome.ANSWERED
        excused[text] += done.books.is_swapped(line) or done.books.is_forgotten(line)
    assert not [text for text, count in good.items() if count > 1 + excused[text]]
    failed = len(done.plan.texts) if FINAL.intersection(done.plan.habits) else 0
    distinct = len(set(done.plan.texts))
    assert distinct - failed <= good.total() <= distinct + excused.total()


def check_money(done: Done) -> None:
    """Rows, report and bill agree to the last digit; what has no price is counted."""
    report = json.loads(StateDirectory(done.output).report("json").read_bytes(), parse_float=Decimal, parse_int=Decimal)
    owed = done.books.owed(MODELS[done.plan.dialect])
    assert report["total_cost_usd"] == owed
    costs = [cost for cost in pq.read_table(done.output).column("_cost_usd").to_pylist() if cost is not None]
    unmetered = [line for line in done.books.billed if not done.books.is_metered(line)]
    lost = not LOSING.isdisjoint(done.plan.habits)
    assert lost or report["answers_without_usage"] == len(unmetered)
    if not unmetered and not lost:
        assert sum(costs) == owed


def check_happened(done: Done) -> None:
    """The habit that leads the attack was seen, and the first kill hit."""
    assert HABITS[done.plan.lead].happened(done.books), "the habit never happened"
    if done.plan.kills and not done.said:
        assert done.plan.kills[0] in done.reached, f"{done.plan.kills} of which reached: {done.reached}"
