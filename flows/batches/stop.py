"""Stopping what is with the providers: each batch and each copy by itself, whatever becomes of the others."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from blocks.batch import BatchProvider
from blocks.errors import AuthenticationFailed, BatchwerkError, NotFound, ProviderError, Transient, UnknownOutcome
from blocks.printable import counted
from flows.batches.answers import collect_answers
from flows.batches.collect import read_answers
from flows.batches.poll import follow
from flows.batches.reconcile import find_again
from flows.domain.agenda import Visit
from flows.domain.batches import Batch, State
from flows.domain.events import Submitted
from flows.engine.recorder import now
from flows.engine.run import Session

log = logging.getLogger("batchwerk")

FIRST_PAUSE, FACTOR, LONGEST_PAUSE = 0.2, 1.5, 10.0  # seconds between two rounds
SAY_EVERY = 60.0  # seconds, while nothing changes

STOPPED = "cancelling was stopped before it came to this batch"

Say = Callable[[str], None]


class Stopping:
    """Asks the providers to stop everything that is with them, and collects what they finished by then."""

    def __init__(self, session: Session, say: Say) -> None:
        self._session = session
        self._say = say
        self._asked: set[str] = set()  # ids that a provider was asked to stop
        self._left: dict[int, str] = {}  # by batch: why it may still run
        self._hopeless: set[int] = set()  # of them, those for which waiting is of no use
        self._refused: dict[int, str] = {}  # by batch: what the provider said instead of stopping it
        self._not_before: dict[int, float] = {}  # by batch: when looking again may help, in seconds since the epoch
        self._said = ("", 0.0)

    def stop(self, wait: float) -> dict[int, str]:
        """Stop all batches, waiting so many seconds for their ends; returns those that may still run, and why."""
        switch, end, pause = self._session.switch, time.time() + wait, FIRST_PAUSE
        switch.patient_until = end
        while True:
            for batch in self._open():
                if switch.active and batch.number not in self._hopeless:
                    self._attend(batch)
            waiting = [batch for batch in self._open() if batch.number not in self._hopeless]
            left = end - time.time()
            if not waiting or left <= 0 or not switch.active:
                return {batch.number: self._left.get(batch.number, STOPPED) for batch in self._open()}
            self._tell(f"waiting for {counted(len(waiting), 'batch', 'batches')} to end", left)
            switch.rest(min(pause, left))
            pause = min(pause * FACTOR, LONGEST_PAUSE)

    def _open(self) -> list[Batch]:
        return self._session.recorder.query(lambda ledger: ledger.in_flight())

    def _attend(self, batch: Batch) -> None:
        """One step with one batch. No error of it reaches the others."""
        number, visit = batch.number, Visit(batch.number)
        try:
            self._step(batch, visit)
        except BatchwerkError as error:
            self._left[number] = f"batch {number} may still run: {error.message}"
            if not isinstance(error, Transient | UnknownOutcome):
                self._hopeless.add(number)
        else:
            self._left[number] = visit.unresolved or self._left_of(batch)
            self._not_before[number] = visit.look_again_at
            if visit.unresolved:
                self._hopeless.add(number)

    def _left_of(self, batch: Batch) -> str:
        if batch.state is State.UNKNOWN:
            return f"it is not known yet whether batch {batch.number} was accepted"
        why = self._refused.get(batch.number, "it was asked to stop")
        return f"batch {batch.number} may still run: {why}, and has not ended yet"

    def _step(self, batch: Batch, visit: Visit) -> None:
        session = self._session
        if batch.state is State.UNKNOWN and time.time() >= self._not_before.get(batch.number, 0.0):
            self._find(batch, visit)
        if batch.state is State.SUBMITTED:
            client = session.clients.client_of(batch)
            for named in [batch.id or "", *batch.copies]:
                self._cancel(client, batch, named)
            follow(session, batch, visit)
        if batch.state is State.ENDED:
            read_answers(session, batch, collect_answers, visit)

    def _find(self, batch: Batch, visit: Visit) -> None:
        client = self._session.clients.client_of(batch)
        if client.replays:
            visit.unresolved = (
                f"whether batch {batch.number} was accepted is found out only by sending it once more, which "
                "cancelling never does; the next run does it"
            )
            return
        found = find_again(self._session, batch, visit)
        if found is not None:
            event = Submitted(at=now(), batch=batch.number, id=found.id, copies=list(found.copies))
            self._session.recorder.record(event)

    def _cancel(self, client: BatchProvider, batch: Batch, named: str) -> None:
        """Asked once, or until it is taken. What is not found has nothing to stop; following the batch tells it."""
        if named in self._asked:
            return
        try:
            status = client.cancel(named)
        except AuthenticationFailed:
            raise
        except NotFound as error:
            log.warning("batch %d: %s", batch.number, error.message)
        except ProviderError as error:
            self._refused[batch.number] = error.message
            return
        else:
            self._say(f"batch {batch.number}: {status.wording}")
        self._asked.add(named)

    def _tell(self, text: str, left: float) -> None:
        said, at = self._said
        if text != said or time.monotonic() - at >= SAY_EVERY:
            self._said = text, time.monotonic()
            self._say(f"{text}, for at most {left:.0f} s")
