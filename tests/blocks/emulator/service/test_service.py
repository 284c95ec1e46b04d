"""A batch's life by a clock that the test turns."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.emulator import EmulatorOptions
from blocks.emulator.service.batch import Batch, NewBatch, Outcome, Request, Status
from blocks.emulator.service.service import Service
from blocks.emulator.service.store import Store

REQUESTS = [Request(f"id-{number}", f"prompt {number}", "m") for number in range(100)]


class Clock:
    """Shows the time that it was set to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state.sqlite")
    yield store
    store.close()


def accept(service: Service) -> str:
    return service.accept(NewBatch("m", REQUESTS, b"")).batch.id


def look(service: Service, batch_id: str) -> Batch:
    batch = service.batch(batch_id)
    assert batch is not None
    return batch


def test_batch_waits_then_works_then_ends(store: Store, clock: Clock) -> None:
    """Status, progress and duration come from the clock alone."""
    service = Service(EmulatorOptions(latency=16.0), store, clock)
    batch_id = accept(service)
    seen = []
    for clock.now in (1000.0, 1000.5, 1001.0, 1008.0, 1015.5, 1016.0, 2000.0):
        batch = look(service, batch_id)
        seen.append((service.status(batch), service.progress(batch), service.duration(batch)))
    assert [status for status, _, _ in seen] == [*["queued"] * 2, *["processing"] * 3, *["completed"] * 2]
    assert [progress for _, progress, _ in seen] == [0, 3, 6, 50, 96, 100, 100]
    assert [duration for _, _, duration in seen] == [0, 0.5, 1, 8, 15.5, 16, 16]


def test_end_is_when_time_was_over_not_when_it_was_seen(store: Store, clock: Clock) -> None:
    """Looking late does not move the end or the bill."""
    service = Service(EmulatorOptions(latency=10.0), store, clock)
    batch_id = accept(service)
    clock.now = 5000.0
    assert look(service, batch_id).ended_at == 1010.0
    assert {row["at"] for row in store.ledger.rows()} == {1010.0}


def test_cancelling_keeps_the_share_that_was_done(store: Store, clock: Clock) -> None:
    """Three of ten seconds make 30 % answered, the rest cancelled."""
    service = Service(EmulatorOptions(latency=10.0), store, clock)
    batch = look(service, accept(service))
    clock.now = 1003.0
    cancelled = service.cancel(batch)
    outcomes = [item.outcome for item in service.items(cancelled, 0, 100)]
    assert (cancelled.status, cancelled.progress, cancelled.ended_at) == (Status.CANCELLED, 30, 1003.0)
    assert outcomes == [*[Outcome.ANSWERED] * 30, *[Outcome.CANCELLED] * 70]


def test_batch_that_ended_before_the_cancel_is_completed(store: Store, clock: Clock) -> None:
    """Even if the caller still saw it open."""
    service = Service(EmulatorOptions(latency=10.0), store, clock)
    batch_id = accept(service)
    seen_open = look(service, batch_id)
    clock.now = 1010.0
    look(service, batch_id)
    assert service.cancel(seen_open).status is Status.COMPLETED


def test_clock_that_was_set_back_does_no_harm(store: Store, clock: Clock) -> None:
    """Progress does not become negative."""
    service = Service(EmulatorOptions(latency=10.0), store, clock)
    batch_id = accept(service)
    clock.now = 0.0
    assert service.progress(look(service, batch_id)) == 0
    assert len(service.batches(None, 10)) == 1


def test_batch_without_latency_ends_at_the_first_look(store: Store, clock: Clock) -> None:
    """Tests need not wait for it."""
    service = Service(EmulatorOptions(latency=0.0), store, clock)
    assert look(service, accept(service)).status is Status.COMPLETED


def test_failed_write_leaves_nothing_behind(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a batch is written whole or not at all."""
    service = Service(EmulatorOptions(latency=0.0), store, clock)
    batch_id = accept(service)
    with monkeypatch.context() as patched:
        patched.setattr("blocks.emulator.service.rows.write_ending", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            service.batch(batch_id)
    assert store.ledger.totals()["billed_items"] == 0
    assert look(service, batch_id).succeeded == 100
    assert store.ledger.totals()["billed_items"] == 100
