"""Sending batches: the intent is on disk before the call, the provider's id after it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import replace

from blocks.batch import EncodedBatch, Found
from blocks.errors import BatchTooLarge, ProviderError, StateError, UnknownOutcome
from flows.domain.events import Ended, Refused, Submitted, Unknown
from flows.domain.ledger import Batch, State
from flows.permits import Permits
from flows.run import Run, now

log = logging.getLogger("batchwerk")

LANES = 2  # submissions at once; more would only wait for the interpreter
LINGER = 30.0  # seconds that a lane keeps its slot with nothing to send: getting one again takes a few


class Outbox:
    """Batches that are decided and not yet sent, and the lanes that send them.

    A lane may be begun before there is a run: Prefect takes seconds to give it its slot, and planning takes some too.
    """

    def __init__(self, permits: Permits, most_lanes: int = LANES) -> None:
        self._numbers: queue.Queue[int | None] = queue.Queue()
        self._permits = permits
        self._most_lanes = most_lanes
        self._lock = threading.Lock()
        self._lanes = 0
        self._run: Run | None = None
        self._bound = threading.Event()

    def serve(self, run: Run) -> None:
        """From now on batches of this run are sent."""
        self._run = run
        self._bound.set()

    def run(self) -> Run | None:
        """The run, waited for; None where there is none for a while, or never will be."""
        self._bound.wait(timeout=LINGER)
        return self._run

    def begin_lane(self, batches: int) -> None:
        """Count a lane that is begun before there is anything to send; there may be so many batches."""
        self._permits.expect(batches)
        with self._lock:
            self._lanes += 1

    def put(self, number: int) -> None:
        """Add a batch."""
        self._numbers.put(number)

    def take(self) -> int | None:
        """The next batch, or None if there is none for a while."""
        try:
            return self._numbers.get(timeout=LINGER)
        except queue.Empty:
            return None

    def needs_lane(self) -> bool:
        """Whether one more lane would have something to send; counts it as begun if so."""
        with self._lock:
            needed = self._lanes < min(self._most_lanes, self._numbers.qsize())
            self._lanes += needed
            return needed

    def lane_ended(self) -> None:
        """A lane gave its slot back."""
        with self._lock:
            self._lanes -= 1

    def close(self) -> None:
        """Let the lanes end at once."""
        self._bound.set()
        self._permits.close()
        for _ in range(self._most_lanes):
            self._numbers.put(None)

    def may_send(self) -> bool:
        """Wait until one more batch may be sent; False where nothing is to be sent any more."""
        return self._permits.take(self._to_come)

    def _to_come(self) -> int:
        """About how many batches are going to be sent, decided or not."""
        return self._numbers.qsize() + (self._run.batches_to_come() if self._run else 0)


def submit_batches(outbox: Outbox) -> int:
    """A lane: sends one batch after another while there are any; returns how many it sent."""
    try:
        run = outbox.run()
        return 0 if run is None else _send_all(run, outbox)
    finally:
        outbox.lane_ended()


def _send_all(run: Run, outbox: Outbox) -> int:
    sent = 0
    with run.guard():
        while run.active and (number := outbox.take()) is not None and outbox.may_send():
            with run.guard(number):
                submit_batch(run, run.ledger.batches[number])
            sent += 1
    return sent


def submit_batch(run: Run, batch: Batch) -> None:
    """Send one batch, or find out what became of one whose answer was lost."""
    started = time.monotonic()
    body = run.write_body(batch)
    try:
        if batch.state is State.UNKNOWN:
            accepted = _reconcile(run, batch, body)
        else:
            run.record(run.intent(batch, body))
            accepted = _send(run, batch, body)
    finally:
        body.path.unlink(missing_ok=True)
    if accepted is not None:
        run.record(Submitted(at=now(), batch=batch.number, id=accepted.id, copies=list(accepted.copies)))
        seconds = time.monotonic() - started
        log.info("batch %d: %s requests sent in %.1f s", batch.number, f"{batch.requests:,}", seconds)


def _send(run: Run, batch: Batch, body: EncodedBatch) -> Found | None:
    terms = run.terms_of(batch)
    try:
        _check_size(batch, body, terms.limits.max_bytes)
        return Found(run.provider_of(batch).submit(body, terms.form))
    except UnknownOutcome as error:
        run.record(Unknown(at=now(), batch=batch.number, reason=error.message))
        run.note_failure(error)
        log.warning("batch %d: %s; asking the provider whether it was accepted", batch.number, error.message)
    except BatchTooLarge as error:
        refuse_too_large(run, batch, error.message)
    except ProviderError as error:
        run.record(Refused(at=now(), batch=batch.number, reason=error.message))
        raise
    return None


def refuse_too_large(run: Run, batch: Batch, reason: str) -> None:
    """Its requests go again in halves; one that is too large by itself is never sent again."""
    if batch.requests == 1:
        run.record(Ended(at=now(), batch=batch.number, wording="too large", failed=reason, final=True))
        log.warning("batch %d: a single request is too large: %s", batch.number, reason)
        return
    run.record(Refused(at=now(), batch=batch.number, reason=reason, too_large=True))
    log.warning("batch %d is too large and goes again in halves: %s", batch.number, reason)


def _check_size(batch: Batch, body: EncodedBatch, most: int | None) -> None:
    if most is not None and body.bytes > most and batch.requests > 1:
        raise BatchTooLarge(f"the batch has {body.bytes:,} bytes, the provider takes {most:,}")


def _reconcile(run: Run, batch: Batch, body: EncodedBatch) -> Found | None:
    """The batch whose submission had no answer, where the provider can tell; else what the user chose."""
    provider = run.provider_of(batch)
    if not provider.verified_lookup:
        _choose(run, batch, provider.name)
        return None
    if body.sha256 != batch.sha256:
        raise StateError(
            f"batch {batch.number} can't be made again as it was sent, so the provider can't be asked about it",
            next_step="use the version of Batchwerk that sent it; nothing was changed",
        )
    others = frozenset(other.id for other in run.ledger.batches.values() if other.id is not None)
    try:
        found = provider.find(replace(body, sent_at=batch.intended_at, others=others), run.terms_of(batch).form)
    except UnknownOutcome as error:
        log.warning("batch %d: %s", batch.number, error.message)
        if error.retry_after is None:
            run.note_failure(error)
        else:  # the provider answered, and what it said will mean something later
            run.look_again_at[batch.number] = time.time() + error.retry_after
    except BatchTooLarge as error:
        refuse_too_large(run, batch, error.message)
    else:
        if found is None:  # sending its requests again is a new batch, with an intent of its own
            run.record(Refused(at=now(), batch=batch.number, reason=f"{provider.name} never accepted it"))
        return found
    return None


def _choose(run: Run, batch: Batch, provider: str) -> None:
    """Nobody can tell: send again, which may pay twice, or leave it, which may lose what was paid."""
    if run.checked.settings.on_unknown == "resubmit":
        reason = "counted as not accepted, as --on-unknown resubmit says"
        run.record(Refused(at=now(), batch=batch.number, reason=reason))
        log.warning("batch %d goes again: %s", batch.number, reason)
        return
    run.unresolved[batch.number] = (
        f"{provider} does not say whether batch {batch.number} was accepted ({batch.reason}); look in its console, "
        f"then --on-unknown resubmit sends its {batch.requests:,} requests again, at the risk of paying twice"
    )
