"""One process at work on one output."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from blocks.errors import AuthenticationFailed, Transient, UsageError
from flows.domain.agenda import Visit
from flows.domain.batches import Batch
from flows.domain.ledger import Ledger, Tally
from flows.domain.ranges import Ranges
from flows.domain.sizing import BatchLimit, batch_limit
from flows.engine.budgets import Budgets
from flows.engine.clients import Clients
from flows.engine.recorder import Recorder
from flows.engine.stopping import StopSwitch
from flows.preflight import RunConfig
from flows.storage.plan import Plan
from flows.storage.requests import FrozenRequests
from flows.storage.results import ResultsStore
from flows.storage.state import StateDirectory

log = logging.getLogger("batchwerk")

LONGEST_DELAY = 3600.0  # seconds that a provider may ask for between two looks at a batch


@dataclass(frozen=True, kw_only=True)
class Session:
    """What following the batches of an output takes; the state directory is enough for that. Thread-safe."""

    state: StateDirectory
    recorder: Recorder
    clients: Clients
    switch: StopSwitch
    max_attempts: int
    risks_paying_twice: bool = False  # whether the user said so, where nobody can tell what became of a batch
    abandon_after: float | None = None  # seconds after which a batch that has not ended is given up
    visits: queue.SimpleQueue[Visit] = field(default_factory=queue.SimpleQueue)  # that ended, for the loop

    @contextmanager
    def visiting(self, batch: int) -> Iterator[Visit]:
        """Around work on one batch, in any thread; afterwards the loop may schedule the batch again."""
        visit = Visit(batch)
        try:
            with self.switch.guarding(), _asked_later(visit), self._apart(visit):
                yield visit
        finally:
            self.visits.put(visit)
            self.switch.changed.set()

    def results_of(self, batch: Batch) -> ResultsStore:
        """Where the batch's results are kept."""
        return ResultsStore(self.state, self.clients.spec_of(batch).schema_id)

    @contextmanager
    def _apart(self, visit: Visit) -> Iterator[None]:
        """A key that is missing or refused at a service that this run sends nothing to is no reason to stop."""
        try:
            yield
        except (UsageError, AuthenticationFailed) as error:
            if not self.clients.is_elsewhere(batch := self.recorder.batch(visit.batch)):
                raise
            provider = self.clients.spec_of(batch).connection.provider
            visit.unresolved = (
                f"batch {batch.number} is still with {provider}, which can't be asked: {error.message}; "
                f"{error.next_step or 'check its key'}, then the same command collects it"
            )
            log.warning("%s", visit.unresolved)


@dataclass(frozen=True, kw_only=True)
class Run(Session):
    """The configuration and plan of a run, and the objects that work on it. Thread-safe."""

    config: RunConfig
    plan: Plan
    wanted: Ranges  # the requests that this run works on
    whole: Ranges  # all that the plan's rows ask for; a sample is a part of them
    budgets: Budgets
    requests: FrozenRequests
    answered_before: int  # requests of this plan that needed nothing when this process began

    def tally(self) -> Tally:
        """Counts of the plan's requests, by progress."""
        return self.recorder.query(lambda ledger: ledger.tally(self.wanted))

    def only_sent(self) -> Run:
        """The same run, but for requests that were never sent: they are left alone."""
        sent = self.recorder.query(lambda ledger: list(ledger.sent))
        return replace(self, wanted=Ranges(part for start, stop in sent for part in self.wanted.overlap(start, stop)))

    def batch_limit(self, ledger: Ledger) -> BatchLimit:
        """How large the next batch may be."""
        limits = self.config.spec.limits
        return batch_limit(self.config.settings.batch_size, limits, ledger, self.plan.tokens_per_byte)

    @property
    def results(self) -> ResultsStore:
        """The results that the output shows."""
        return ResultsStore(self.config.state, self.config.spec.schema_id)


@contextmanager
def _asked_later(visit: Visit) -> Iterator[None]:
    """A long delay that a provider asks for is no pause of the call, but a later look at the batch."""
    try:
        yield
    except Transient as error:
        if error.retry_after is not None:
            visit.look_again_at = time.time() + min(error.retry_after, LONGEST_DELAY)
        raise
