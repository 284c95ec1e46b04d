"""An output that is being worked on: its ledger and journal, and what submitting and collecting need."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from blocks.batch import BatchProvider, Connection, EncodedBatch
from blocks.catalog import Reach, reached
from blocks.errors import ProviderError, Transient, system_error
from flows.domain import ledger as ledgers
from flows.domain.breaker import Breaker
from flows.domain.events import Event, Frozen, Reopened, Submitting
from flows.domain.ledger import Batch, Ledger
from flows.domain.prompts import Prompt
from flows.domain.ranges import Ranges, size
from flows.gather import Helpers, helpers_for
from flows.preflight import Checked
from flows.storage.encoding import BatchWriter
from flows.storage.files import write_json
from flows.storage.journal import Journal
from flows.storage.plan import Plan, generations, read_plan, wanted_requests
from flows.storage.planner import make_plan
from flows.storage.requests import FrozenRequests
from flows.storage.results import ResultsStore
from flows.storage.state import read_json
from flows.terms import Terms

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
    providers: Providers
    plan: Plan
    wanted: Ranges
    requests: FrozenRequests
    helpers: Helpers
    began: datetime
    answered_before: int = 0  # requests of this plan that needed nothing when this process began
    failure: BaseException | None = None  # what stopped the run
    stop: str = ""  # why the user wants it to stop
    unresolved: dict[int, str] = field(default_factory=dict)  # batches that nobody can tell were accepted, and why
    look_again_at: dict[int, float] = field(default_factory=dict)  # by batch: when asking after it is of use again
    breaker: Breaker = field(default_factory=Breaker)
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
        """Around work in a thread. What may pass is counted and left to the loop; any other failure stops the run."""
        try:
            yield
        except Transient as error:
            self.note_failure(error)
        except OSError as error:
            self.failure = self.failure or system_error(error)
            raise self.failure from error
        except BaseException as error:
            self.failure = self.failure or error
            raise
        else:
            if batch is not None:
                self.breaker = Breaker()
        finally:
            if batch is not None:
                self.finished.put(batch)
            self.changed.set()

    def note_failure(self, error: ProviderError) -> None:
        """Count a failure that may pass; say so when the breaker opens."""
        self.breaker = self.breaker.failed(error.tries, error.message, time.time())
        if self.breaker.is_open:
            log.warning("%s; waiting %.0f s before the next try", error.message, self.breaker.pause)

    @property
    def active(self) -> bool:
        """Whether new work may be begun."""
        return self.failure is None and not self.stop

    def answered(self) -> int:
        """Requests of this plan that have a good answer."""
        unsent = sum(part.requests for part in self.ledger.backlog(self.wanted))
        parts = [part for batch in self.ledger.in_flight() for part in batch.slices] + self.ledger.final
        open_or_failed = sum(size(self.wanted.overlap(part.start, part.stop)) for part in parts)
        return self.plan.requests - unsent - open_or_failed

    def batches_to_come(self) -> int:
        """About how many batches are not decided yet."""
        with self.lock:
            unsent = sum(part.requests for part in self.ledger.backlog(self.wanted))
        return self.checked.settings.batches_of(unsent)

    def has_work(self) -> bool:
        """Whether anything is to be sent or still with the provider."""
        return bool(self.ledger.in_flight()) or next(self.ledger.backlog(self.wanted), None) is not None

    def terms_of(self, batch: Batch) -> Terms:
        """What a batch was, or is about to be, sent under."""
        terms = self.checked.terms
        if batch.spec in {"", terms.fingerprint}:
            return terms
        return Terms.from_content(read_json(self.checked.state.spec(batch.spec)))

    def provider_of(self, batch: Batch) -> BatchProvider:
        """Whoever has the batch."""
        return self.providers.at(self.terms_of(batch).connection)

    def results_of(self, batch: Batch) -> ResultsStore:
        """Where the batch's results are kept."""
        return ResultsStore(self.checked.state, self.terms_of(batch).schema_id)

    @property
    def results(self) -> ResultsStore:
        """The results that the output shows."""
        return ResultsStore(self.checked.state, self.checked.terms.schema_id)

    def intent(self, batch: Batch, body: EncodedBatch) -> Submitting:
        """What is written down before a batch is sent."""
        return Submitting(
            at=now(),
            batch=batch.number,
            tag=body.tag,
            slices=batch.slices,
            bytes=body.bytes,
            sha256=body.sha256,
            spec=self.terms_of(batch).fingerprint,
        )

    def write_body(self, batch: Batch) -> EncodedBatch:
        """Render and encode a batch to disk, under its own terms."""
        terms = self.terms_of(batch)
        prompt = Prompt(terms.job.prompt, self.requests.columns(batch.slices[0].start))
        results = self.results_of(batch)
        writer = BatchWriter(
            self.requests, lambda before: results.corrections(self.ledger.batches[before]), prompt, terms.format
        )
        path = self.checked.state.bodies / f"{batch.number:06d}"
        return writer.write(path, f"{self.id}-{batch.number}", batch.slices)

    def collected_here(self) -> bool:
        """Whether this process collected anything: only then is there something new to publish."""
        since = self.began.timestamp()
        return any(batch.collected_at >= since for batch in self.ledger.batches.values())

    def written(self) -> list[Batch]:
        """Batches that this process sent, in the order of their numbers."""
        since = self.began.timestamp()
        return [b for _, b in sorted(self.ledger.batches.items()) if b.intended_at >= since]


class Providers:
    """The services that batches of an output are with: the one of this run, others when they are needed."""

    def __init__(self, stack: ExitStack, state: Path) -> None:
        self._stack = stack
        self._state = state
        self._open: dict[object, tuple[Reach, BatchProvider]] = {}
        self._lock = threading.Lock()

    def at(self, connection: Connection) -> BatchProvider:
        """A client for a connection, opened once."""
        return self._opened(connection)[1]

    def reach(self, connection: Connection) -> Reach:
        """What another process needs to open one of its own."""
        return self._opened(connection)[0]

    def _opened(self, connection: Connection) -> tuple[Reach, BatchProvider]:
        # One emulator of a dialect has the state, whatever faults an earlier run switched on.
        options = () if connection.emulated else tuple(sorted(connection.options.items()))
        key = (connection.endpoint, connection.block, options)
        with self._lock:
            if key not in self._open:
                reach = self._stack.enter_context(reached(connection, self._state))
                self._open[key] = reach, self._stack.enter_context(closing(reach.client()))
            return self._open[key]


@contextmanager
def opened(checked: Checked, expect: Callable[[], None]) -> Iterator[Run]:
    """Take the output's state directory, plan what its rows ask for. Everything is let go at the end.

    `expect` is called before a new plan is made: there may be something to send soon.
    """
    began = now()
    state = checked.state
    with state.locked(), ExitStack() as stack:
        state.prepare()
        run_id = state.open_run(checked.source.path, input_moved=checked.settings.input_moved)
        state.remember(checked.settings.model_dump(mode="json"))
        state.check_journal()
        journal = stack.enter_context(Journal(state.journal))
        ledger = ledgers.replay(journal.events)
        plan = planned(checked, journal, ledger, expect)
        wanted = wanted_requests(state.rows, checked.settings.memory_limit) if plan.requests else Ranges()
        run = Run(
            checked=checked,
            id=run_id,
            journal=journal,
            ledger=ledger,
            providers=Providers(stack, state.path),
            plan=plan,
            wanted=wanted,
            requests=FrozenRequests(generations(state.requests)),
            helpers=stack.enter_context(closing(Helpers(helpers_for(_open_requests(ledger, wanted))))),
            began=began,
        )
        if checked.settings.retry_failed and ledger.final:
            run.record(Reopened(at=now(), slices=ledger.reopened()))
        run.answered_before = run.answered()
        yield run


def _open_requests(ledger: Ledger, wanted: Ranges) -> int:
    """Those that are to be sent, and those that are with the provider."""
    unsent = sum(part.requests for part in ledger.backlog(wanted))
    return unsent + sum(batch.requests for batch in ledger.in_flight())


def planned(checked: Checked, journal: Journal, ledger: Ledger, expect: Callable[[], None]) -> Plan:
    """The plan for this question: the one on disk, or a new one."""
    state, terms = checked.state, checked.terms
    if not state.spec(terms.fingerprint).exists():
        write_json(state.spec(terms.fingerprint), terms.content)
    plan = read_plan(state.rows, checked.question)
    if plan is not None:
        return plan
    expect()
    started = time.monotonic()
    plan = make_plan(
        checked.question, generations(state.requests), state.requests, state.rows, checked.settings.memory_limit
    )
    event = Frozen(
        at=now(), start=plan.start, stop=plan.stop, spec=terms.fingerprint, rows=plan.rows, wanted=plan.requests
    )
    journal.append(event)
    ledger.apply(event)
    log.info(
        "planned %s rows: %s requests, %s of them new, in %.1f s",
        f"{plan.rows:,}", f"{plan.requests:,}", f"{plan.stop - plan.start:,}", time.monotonic() - started,
    )  # fmt: skip
    return plan
