"""What must be true after every attack."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from typing import Any

import orjson
import pyarrow.parquet as pq

from blocks.emulator.service.batch import Outcome
from blocks.emulator.wire.tampering import LOST
from flows.storage.state import StateDirectory
from tests.attacks.attack import MODELS, Done
from tests.attacks.books import Line, answers_to
from tests.attacks.habits import HABITS, LOSING

COLUMNS = ("code", "label")
FINAL = {"requests_are_refused", *LOSING}  # habits after which a row may fail for good
ATTEMPTS = 3  # of a request, as the job has them by default


def table_of(done: Done) -> list[dict[str, Any]]:
    """The rows of the output."""
    return list(pq.read_table(done.output).to_pylist())


def check_rows(done: Done) -> None:
    """Every row, in its place, with the answer that the provider gave to its own question; or with a reason."""
    given: dict[str, list[dict[str, object]]] = {}
    for text, line in answers_to(done.books.billed):
        if line.outcome == Outcome.ANSWERED:
            answer = orjson.loads(line.text)
            given.setdefault(text, []).append({name: answer[name] for name in COLUMNS})
    sent = Counter(text for text, _ in answers_to(done.books.accepted))
    rows = table_of(done)
    assert [row["text"] for row in rows] == done.plan.texts
    assert [row["id"] for row in rows] == list(range(len(done.plan.texts)))
    for row in rows:
        if row["_status"] == "ok":
            assert {name: row[name] for name in COLUMNS} in given[row["text"]], row
        else:
            assert row["_status"] == "failed", row
            assert row["_error"], row
            # Else it was asked as often as may be, and the provider answered none of that.
            assert FINAL.intersection(done.plan.habits) or (
                sent[row["text"]] >= ATTEMPTS and row["text"] not in given
            ), row


def check_paid_once(done: Done) -> None:
    """No request was billed twice, and no text was answered well twice unless the first answer could not reach us."""
    ids = Counter(line.custom_id for line in done.books.billed)
    assert not [name for name, count in ids.items() if count > 1]
    good: Counter[str] = Counter()
    excused: Counter[str] = Counter()
    for text, line in answers_to(done.books.billed):
        good[text] += line.outcome == Outcome.ANSWERED
        excused[text] += is_excused(done, line)
    assert not [text for text, count in good.items() if count > 1 + excused[text]]
    failed = {row["text"] for row in table_of(done) if row["_status"] == "failed"}
    distinct = len(set(done.plan.texts))
    assert distinct - len(failed) <= good.total() <= distinct + excused.total()


def is_excused(done: Done, line: Line) -> bool:
    """Whether its answer came under another's id, never reached us, or may be paid twice by the user's word."""
    books = done.books
    return books.is_swapped(line) or books.is_forgotten(line) or books.is_withheld(line) or is_given_up(done, line)


def is_given_up(done: Done, line: Line) -> bool:
    """Whether it is in a batch of which the answers are not waited for any more."""
    return any(line.custom_id.startswith(f"{tag}-") for tag in given_up(done))


def given_up(done: Done) -> set[str]:
    """The tags of batches that count as not accepted because the user said so, and of those that are gone."""
    events = [json.loads(line) for line in StateDirectory(done.output).journal.read_text().splitlines()]
    unsure = {event["batch"] for event in events if event["event"] == "refused" and event.get("unsure")}
    assert done.word or not unsure
    gone = {event["batch"] for event in events if event["event"] == "gone"}
    assert not gone or LOSING.intersection(done.plan.habits)
    gone -= {event["batch"] for event in events if event["event"] == "recovered"}
    return {event["tag"] for event in events if event["event"] == "submitting" and event["batch"] in unsure | gone}


def check_money(done: Done) -> None:
    """Rows, report and bill agree to the last digit; what has no price is counted."""
    report = json.loads(StateDirectory(done.output).report("json").read_bytes(), parse_float=Decimal, parse_int=Decimal)
    known = [line for line in done.books.billed if not is_given_up(done, line)]
    owed = done.books.owed(MODELS[done.plan.dialect], known)
    assert report["total_cost_usd"] == owed
    costs = [cost for row in table_of(done) if (cost := row["_cost_usd"]) is not None]
    unmetered = [line for line in known if not done.books.is_metered(line)]
    lost = not LOSING.isdisjoint(done.plan.habits)
    billed = {line.custom_id for line in known}
    # Of what is not given nobody can tell whether it was billed: it counts as such.
    doubtful = [line for line in done.books.accepted if done.books.is_hit(line, LOST) and line.custom_id not in billed]
    assert lost or len(unmetered) <= report["answers_without_usage"] <= len(unmetered) + len(doubtful)
    if not unmetered and not lost:
        assert sum(costs) == owed


def what_did_not_happen(done: Done) -> str:
    """Empty if the habit that leads the attack was seen, and the first kill hit."""
    if not HABITS[done.plan.lead].happened(done.books):
        return "the habit never happened"
    if done.plan.kills and not done.said and done.plan.kills[0] not in done.reached:
        return f"{done.plan.kills} of which reached: {done.reached}"
    return ""
