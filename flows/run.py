"""An output that is being worked on: its ledger and journal, and what submitting and collecting need."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from blocks.batch import BatchProvider, EncodedBatch
from blocks.catalog import open_provider
from flows.domain import ledger as ledgers
from flows.domain.events import Event, Planned, Reopened, Submitting
from flows.domain.ledger import Batch, Ledger
from flows.domain.ranges import Ranges
from flows.preflight import Checked
from flows.storage.files import write_json
from flows.storage.journal import Journal
from flows.storage.plan import Plan, generations, make_plan, read_plan, wanted_requests
from flows.storage.requests import BatchWriter, FrozenRequests
from flows.storage.results import Judge, ResultsStore

log = logging.getLogger("batchwerk")


def now() -> datetime:
    """The time that events carry."""
    return datetime.now(UTC)


@dataclass
class Run:
    """One process at work on one output. Its methods may be called from any thread."""

    checked: Checked
    id: str
    journal: Journal
    ledger: Ledger
    provider: BatchProvider
    plan: Plan
    wanted: Ranges
    requests: FrozenRequests
    results: ResultsStore
    began: datetime
    known_before: int  # requests that had a number before this process planned
    failure: BaseException | None = None
    unresolved: dict[int, str] = field(
        default_factory=dict
    )  # batches of which nobody can tell whether they were accepted
    finished: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)  # batches that a thread is done with
    changed: threading.Event = field(default_factory=threading.Event)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def record(self, event: Event) -> None:
        """Write an event down, then act as if it were true."""
        with self.lock:
            self.journal.append(event)
            self.ledger.apply(event)
        self.changed.set()

    @contextmanager
    def guard(self, batch: int | None = None) -> Iterator[None]:
        """Around work in a thread: its first failure stops the run, its end is told to the loop."""
        try:
            yield
        except BaseException as error:
            self.failure = self.failure or error
            raise
        finally:
            if batch is not None:
                self.finished.put(batch)
            self.changed.set()

    def has_work(self) -> bool:
        """Whether anything is to be sent or still with the provider."""
        return bool(self.ledger.in_flight()) or next(self.ledger.backlog(self.wanted), None) is not None

    @property
    def judge(self) -> Judge:
        """What decides over answers."""
        checked = self.checked
        return Judge(self.id, checked.schema, checked.price, checked.settings.max_attempts)

    def intent(self, batch: Batch, body: EncodedBatch) -> Submitting:
        """What is written down before a batch is sent."""
        return Submitting(
            at=now(),
            batch=batch.number,
            tag=body.tag,
            slices=batch.slices,
            bytes=body.bytes,
            sha256=body.sha256,
            spec=self.checked.spec,
        )

    def write_body(self, batch: Batch) -> EncodedBatch:
        """Render and encode a batch to disk."""
        prompt, form = self.checked.question.prompt, self.checked.format
        writer = BatchWriter(self.requests, self.results, prompt, form, self.id)
        return writer.write(self.body_path(batch), f"{self.id}-{batch.number}", batch.slices)

    def body_path(self, batch: Batch) -> Path:
        """Where the body of a batch lies while it is sent."""
        return self.checked.state.bodies / f"{batch.number:06d}"

    def written(self) -> list[Batch]:
        """Batches that this process sent, or took over, in the order of their numbers."""
        since = self.began.timestamp()
        return [b for _, b in sorted(self.ledger.batches.items()) if b.intended_at >= since]


@contextmanager
def opened(checked: Checked) -> Iterator[Run]:
    """Take the output's state directory, plan what its rows ask for, connect. Everything is let go at the end."""
    began = now()
    state = checked.state
    with state.locked():
        state.prepare()
        run_id = state.open_run(checked.source.path, input_moved=checked.settings.input_moved)
        with Journal(state.journal) as journal:
            ledger = ledgers.replay(journal.events)
            known_before = ledger.frozen
            plan = planned(checked, journal, ledger)
            with open_provider(checked.connection, state.emulator) as provider:
                run = Run(
                    checked=checked,
                    id=run_id,
                    journal=journal,
                    ledger=ledger,
                    provider=provider,
                    plan=plan,
                    wanted=wanted_requests(state.rows) if plan.requests else Ranges(),
                    requests=FrozenRequests(generations(state.requests)),
                    results=ResultsStore(state, checked.schema_id),
                    began=began,
                    known_before=known_before,
                )
                if checked.settings.retry_failed and ledger.final:
                    run.record(Reopened(at=now(), slices=ledger.reopened()))
                yield run


def planned(checked: Checked, journal: Journal, ledger: Ledger) -> Plan:
    """The plan for this question: the one on disk, or a new one."""
    state = checked.state
    spec_file = state.spec(checked.spec)
    if not spec_file.exists():
        write_json(spec_file, checked.spec_content())
    plan = read_plan(state.rows, checked.question)
    if plan is not None:
        return plan
    started = time.monotonic()
    plan = make_plan(checked.question, generations(state.requests), state.requests, state.rows)
    event = Planned(at=now(), start=plan.start, stop=plan.stop, spec=checked.spec, rows=plan.rows, wanted=plan.requests)
    journal.append(event)
    ledger.apply(event)
    log.info(
        "planned %s rows: %s requests, %s of them new, in %.1f s",
        f"{plan.rows:,}", f"{plan.requests:,}", f"{plan.stop - plan.start:,}", time.monotonic() - started,
    )  # fmt: skip
    return plan
