"""Collecting the answers of one batch: which answers count, and what is written of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from blocks.batch import Answer, BatchPhase, BatchStatus, Connection, RequestForm, Usage
from blocks.clients import Access
from blocks.errors import NotFound
from flows.batches.answers import Order, collect_answers
from flows.domain.batches import Batch, State
from flows.domain.events import Slice
from flows.domain.job import parse_job
from flows.spec import Spec
from flows.storage.state import StateDirectory
from tests.flows.undecorated import JOB

GOOD = '{"sentiment": "positive", "topics": []}'


class Provider:
    """Has answers to some batches; the others failed as a whole."""

    def __init__(self, **answers: list[int]) -> None:
        self.answers = answers
        self.read: list[str] = []

    def poll(self, batch_id: str) -> BatchStatus:
        if batch_id == "unknown":
            raise NotFound("no such batch")
        phase = BatchPhase.ENDED if batch_id in self.answers else BatchPhase.FAILED
        return BatchStatus(batch_id, phase, phase.value)

    def results(self, batch_id: str, form: RequestForm) -> Iterator[Answer]:
        self.read.append(batch_id)
        for number in self.answers[batch_id]:
            yield Answer(f"run-1-{number}-1", GOOD, Usage(10, 5), None)


def order_of(folder: Path, **batch: Any) -> Order:
    """Four requests, sent as `original`."""
    connection = Connection("openai", "", "openai")
    spec = Spec(parse_job(JOB, "job.yaml"), "gpt-4.1", connection)
    ended = Batch(7, [Slice(0, 4)], State.ENDED, tag="run-1", **{"id": "original", **batch})
    return Order(Access(connection, SecretStr("a-key"), ""), spec, ended, folder / "out.parquet", 3)


def collect(order: Order, provider: Provider) -> Any:
    return collect_answers(order, provider)  # type: ignore[arg-type]  # it has what is called here


def test_answers_are_written_and_counted(tmp_path: Path) -> None:
    """The results part has a row for each request; those without an answer go again."""
    order = order_of(tmp_path)
    result = collect(order, Provider(original=[0, 2, 3]))
    part = pq.read_table(StateDirectory(order.output).part(order.spec.schema_id, 7))
    assert part.column("outcome").to_pylist() == ["ok", "missing", "ok", "ok"]
    assert (result.ok, [(piece.start, piece.stop) for piece in result.retry]) == (3, [(1, 2)])


def test_accidental_copies_fill_in_and_are_paid(tmp_path: Path) -> None:
    """A copy that failed is not read."""
    provider = Provider(original=[0, 1], copy=[0, 3])
    result = collect(order_of(tmp_path, copies=("copy", "failed")), provider)
    assert provider.read == ["original", "copy"]
    assert (result.ok, result.input_tokens) == (3, 40)


@pytest.mark.parametrize("why", [{"failed": "refused"}, {"gone": "forgotten"}], ids=str)
def test_a_copy_is_read_whatever_became_of_the_batch(tmp_path: Path, why: dict[str, Any]) -> None:
    """It was billed: its answers count, and only what it does not answer either is asked again or given up."""
    provider = Provider(copy=[0, 1, 3])
    result = collect(order_of(tmp_path, copies=("copy",), **why), provider)
    assert provider.read == ["copy"]
    assert (result.ok, result.input_tokens) == (3, 30)


def test_a_copy_that_is_not_found_says_nothing_of_the_batch(tmp_path: Path) -> None:
    """The batch's own answers are read; the copy's cost stays unknown."""
    provider = Provider(original=[0, 1, 2, 3])
    assert collect(order_of(tmp_path, copies=("unknown",)), provider).ok == 4


@pytest.mark.parametrize("why", [{"failed": "refused"}, {"id": None}, {"gone": "deleted"}], ids=str)
def test_a_batch_without_answers_is_not_asked_for(tmp_path: Path, why: dict[str, Any]) -> None:
    """It failed as a whole, was never accepted, or its answers are gone."""
    provider = Provider(original=[0, 1, 2, 3])
    assert collect(order_of(tmp_path, **why), provider).ok == 0
    assert provider.read == []


@pytest.mark.parametrize(("sent", "pico"), [("2026-12-31", 52_500_000), ("2027-01-01", 105_000_000)])
def test_answers_cost_what_held_when_their_batch_was_sent(tmp_path: Path, sent: str, pico: int) -> None:
    """Whatever they cost on the day on which they are read: gemini-3.8-flash costs twice as much from 2027 on.

    Four answers of 10 tokens in and 5 out, in a batch: 4 x (10 x 0.375 + 5 x 1.875) = 52.50 micro-dollars, then 105.
    """
    order = order_of(tmp_path, intended_at=datetime.fromisoformat(f"{sent}T12:00:00+00:00").timestamp())
    spec = Spec(order.spec.job, "gemini-3.8-flash", Connection("gemini", "", "gemini"))
    result = collect(order._replace(spec=spec), Provider(original=[0, 1, 2, 3]))
    assert result.cost == pico
