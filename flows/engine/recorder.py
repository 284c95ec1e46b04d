"""The journal of a run and the ledger that it replays to, under one lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

from blocks.errors import UsageError
from flows.domain.batches import Batch, State
from flows.domain.events import Event, Slice
from flows.domain.ledger import Ledger, replay
from flows.domain.ranges import Ranges
from flows.preflight import RunConfig, check_replacing
from flows.storage.files import write_json
from flows.storage.journal import Journal
from flows.storage.lease import Lease
from flows.storage.place import check_place, note_place
from flows.storage.plan import checked_generations, remove_unknown
from flows.storage.state import StateDirectory, random_name, read_or_none

T = TypeVar("T")


def now() -> datetime:
    """The timestamp of an event."""
    return datetime.now(UTC)


class Recorder:
    """Writes events to the journal, then applies them to the ledger. Thread-safe.

    Nothing outside reads the ledger without the lock: use `query`, or `reading` for several questions at once.
    """

    def __init__(self, run_id: str, journal: Journal) -> None:
        self.run_id = run_id
        self.began = now()
        self._journal = journal
        self._ledger = replay(journal.events)
        self._lock = threading.RLock()

    def record(self, event: Event) -> None:
        """Record an event; it is on disk when this returns."""
        with self._lock:
            self._journal.append(event)
            self._ledger.apply(event)

    def check_held(self) -> None:
        """Raises StateError if another process has taken the output over."""
        with self._lock:
            self._journal.check_held()

    def new_tag(self, batch: int) -> str:
        """The tag of a new intent: `<run>-<batch>-<random>`. No copy of the state directory makes the same one."""
        return f"{self.run_id}-{batch}-{random_name(6)}"

    @contextmanager
    def reading(self) -> Iterator[Ledger]:
        """The locked ledger; do not keep a reference to it."""
        with self._lock:
            yield self._ledger

    def query(self, question: Callable[[Ledger], T]) -> T:
        """The result of `question`, called with the locked ledger."""
        with self._lock:
            return question(self._ledger)

    def reserve(self, slices: list[Slice], at: float) -> Batch:
        """Number a batch and take its requests; in memory only, until its intent is recorded.

        `at`: when it was decided on, in seconds since the epoch. Budgets of a month count it there.
        """
        with self._lock:
            batch = self._ledger.reserve(slices)
            batch.waiting_from = at
            return batch

    def batch(self, number: int) -> Batch:
        """A batch by its number."""
        with self._lock:
            return self._ledger.batches[number]

    def has_work(self, wanted: Ranges) -> bool:
        """Whether anything still has to be sent or collected."""
        return self.query(lambda ledger: ledger.has_work(wanted))

    def collected_here(self) -> bool:
        """Whether this process collected anything, so that there is something new to publish."""
        since = self.began.timestamp()
        return self.query(lambda ledger: any(batch.collected_at >= since for batch in ledger.batches.values()))

    def sent_here(self) -> list[Batch]:
        """Batches that this process sent, in the order of their numbers."""
        since = self.began.timestamp()
        return self.query(lambda ledger: [b for _, b in sorted(ledger.batches.items()) if b.intended_at >= since])

    def accepted_here(self) -> list[Batch]:
        """Those that the provider ran, or may have run: one that it refused or that failed as a whole asked nothing."""
        return [b for b in self.sent_here() if b.failed is None and (b.state is not State.REFUSED or b.unsure)]


@contextmanager
def open_recorder(config: RunConfig, *, remember: bool = True) -> Iterator[Recorder]:
    """Take the output's state directory, which has one writer at a time, and replay its journal.

    `remember`: whether this configuration becomes the output's last one. Raises UsageError if paid answers would be
    replaced without a word of the user.
    Raises StateError if another process holds it, or if it is not the one that the last run left, as a whole.
    """
    state, spec = config.state, config.spec
    with state.locked() as lease:
        check_place(state, moved=config.settings.state_moved)
        run_id = state.open_run(config.source.path, input_moved=config.settings.input_moved)
        check_replacing(config)  # once more: another run may just have published
        if read_or_none(state.spec(spec.fingerprint)) != spec.content:
            write_json(state.spec(spec.fingerprint), spec.content)
        if remember:
            parameters = config.settings.model_dump(mode="json", exclude={"state_moved"})
            state.remember(parameters, spec.fingerprint)
        with _recording(state, lease, run_id) as recorder:
            with recorder.reading() as ledger:
                remove_unknown(state.requests, checked_generations(state.requests, ledger.generations))
            yield recorder


@contextmanager
def open_to_cancel(state: StateDirectory, *, moved: bool) -> Iterator[Recorder]:
    """As `open_recorder`, for the state directory alone: what is needed for a run may be missing or damaged.

    Raises UsageError if there is none.
    """
    run = state.read_run()
    if run is None:
        raise UsageError(
            f"{state.output} was not written by Batchwerk", next_step="pass the OUTPUT that was given to `run`"
        )
    with state.locked() as lease:
        check_place(state, moved=moved)
        state.remember_cancelling()
        with _recording(state, lease, str(run["id"])) as recorder:
            yield recorder


@contextmanager
def _recording(state: StateDirectory, lease: Lease, run_id: str) -> Iterator[Recorder]:
    with Journal(state.journal, before_append=lease.check) as journal:
        note_place(state)
        recorder = Recorder(run_id, journal)
        yield recorder
        recorder.check_held()
        note_place(state)
