"""Sending batches: the intent is on disk before the call, the provider's id after it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from blocks.batch import EncodedBatch, Found
from blocks.errors import BatchTooLarge, ProviderError, StateError, UnknownOutcome
from blocks.printable import counted
from blocks.transport import checking_creates
from flows.batches.poll import refuse_too_large
from flows.batches.reconcile import find_again
from flows.domain.batches import Batch, State
from flows.domain.events import Refused, Submitted, Submitting, Unknown
from flows.domain.prompts import Prompt
from flows.engine.recorder import now
from flows.engine.run import Run
from flows.storage.encoding import BatchWriter

log = logging.getLogger("batchwerk")


def submit_batch(run: Run, number: int) -> None:
    """Send one batch, or reconcile one whose submission got no response."""
    with run.visiting(number) as visit:
        if not run.switch.active:
            return
        batch, started = run.recorder.batch(number), time.monotonic()
        if batch.state is not State.UNKNOWN:
            batch.sending_from = time.time()
            with encoded(run, batch) as body, checking_creates(run.recorder.check_held):
                accepted = _send(run, batch, body)
        elif run.clients.client_of(batch).replays:
            with encoded(run, batch) as body, checking_creates(run.recorder.check_held):
                accepted = find_again(run, batch, visit, _as_sent(batch, body))
        else:
            accepted = find_again(run, batch, visit)
        if accepted is not None:
            run.recorder.record(Submitted(at=now(), batch=number, id=accepted.id, copies=list(accepted.copies)))
            seconds = time.monotonic() - started
            log.info("batch %d: %s sent in %.1f s", number, counted(batch.requests, "request"), seconds)


@contextmanager
def encoded(run: Run, batch: Batch) -> Iterator[EncodedBatch]:
    """The batch's body on disk, rendered and encoded under its own spec; deleted afterwards."""
    spec, results = run.clients.spec_of(batch), run.results_of(batch)
    prompt = Prompt(spec.job.prompt, run.requests.columns(batch.slices[0].start))
    writer = BatchWriter(
        run.requests, lambda earlier: results.corrections(run.recorder.batch(earlier)), prompt, spec.codec
    )
    path = run.config.state.bodies / f"{batch.number:06d}"
    try:
        yield writer.write(path, batch.tag or run.recorder.new_tag(batch.number), batch.slices)
    finally:
        path.unlink(missing_ok=True)


def _send(run: Run, batch: Batch, body: EncodedBatch) -> Found | None:
    spec = run.clients.spec_of(batch)
    run.recorder.record(
        Submitting(
            at=now(),
            batch=batch.number,
            tag=body.tag,
            slices=batch.slices,
            bytes=body.bytes,
            tokens=sum(run.requests.tokens(piece.start, piece.stop) for piece in batch.slices),
            sha256=body.sha256,
            spec=spec.fingerprint,
            key=run.clients.access_of(batch).key_id,
            emulated=spec.connection.emulated,
            waiting_from=batch.waiting_from,
            sending_from=batch.sending_from,
        )
    )
    try:
        _check_size(batch, body, spec.limits.max_bytes)
        return Found(run.clients.client_of(batch).submit(body, spec.form))
    except UnknownOutcome as error:
        run.recorder.record(Unknown(at=now(), batch=batch.number, reason=error.message))
        log.warning("batch %d: %s; asking the provider whether it was accepted", batch.number, error.message)
        raise
    except BatchTooLarge as error:
        refuse_too_large(run, batch, error.message)
    except ProviderError as error:
        run.recorder.record(Refused(at=now(), batch=batch.number, reason=error.message))
        raise
    return None


def _check_size(batch: Batch, body: EncodedBatch, max_bytes: int | None) -> None:
    if max_bytes is not None and body.bytes > max_bytes and batch.requests > 1:
        raise BatchTooLarge(f"the batch has {body.bytes:,} bytes, but the provider accepts at most {max_bytes:,}")


def _as_sent(batch: Batch, body: EncodedBatch) -> EncodedBatch:
    """The body again, which the provider knows only if it is the same to the byte."""
    if body.sha256 != batch.sha256:
        raise StateError(
            f"batch {batch.number} can't be rebuilt as it was sent, so the provider can't be asked about it",
            next_step="use the version of Batchwerk that sent it; nothing was changed",
        )
    return body
