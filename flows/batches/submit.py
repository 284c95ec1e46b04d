"""Sending batches: the intent is on disk before the call, the provider's id after it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from blocks.batch import EncodedBatch, Found
from blocks.errors import BatchTooLarge, ProviderError, StateError, UnknownOutcome
from blocks.printable import counted
from blocks.transport import checking_creates
from flows.batches.poll import refuse_too_large
from flows.domain.agenda import Visit
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
        with encoded(run, batch) as body, checking_creates(run.recorder.check_held):
            accepted = _reconcile(run, batch, body, visit) if batch.state is State.UNKNOWN else _send(run, batch, body)
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
            emulated=spec.connection.emulated,
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


def _reconcile(run: Run, batch: Batch, body: EncodedBatch, visit: Visit) -> Found | None:
    """Find a batch whose submission got no response; if the provider can't tell, do what the user chose."""
    client = run.clients.client_of(batch)
    if not client.verified_lookup:
        _let_user_choose(run, batch, client.name, visit)
        return None
    if body.sha256 != batch.sha256:
        raise StateError(
            f"batch {batch.number} can't be rebuilt as it was sent, so the provider can't be asked about it",
            next_step="use the version of Batchwerk that sent it; nothing was changed",
        )
    others = run.recorder.query(lambda ledger: ledger.ids())
    try:
        found = client.find(replace(body, sent_at=batch.intended_at, others=others), run.clients.spec_of(batch).form)
    except UnknownOutcome as error:
        log.warning("batch %d: %s", batch.number, error.message)
        if error.retry_after is None:
            raise
        visit.look_again_at = time.time() + error.retry_after  # the answer may be conclusive then
    except BatchTooLarge as error:
        refuse_too_large(run, batch, error.message)
    else:
        if found is None:  # its requests are sent again in a new batch with its own intent
            run.recorder.record(Refused(at=now(), batch=batch.number, reason=f"{client.name} never accepted it"))
        return found
    return None


def _let_user_choose(run: Run, batch: Batch, provider: str, visit: Visit) -> None:
    """The outcome can't be determined: send again and perhaps pay twice, or leave it and perhaps lose paid answers."""
    if run.config.settings.on_unknown == "resubmit":
        reason = "treated as not accepted because of --on-unknown resubmit"
        run.recorder.record(Refused(at=now(), batch=batch.number, reason=reason))
        log.warning("batch %d will be sent again: %s", batch.number, reason)
        return
    visit.unresolved = (
        f"{provider} does not say whether batch {batch.number} was accepted ({batch.reason}); check its console, "
        f"then --on-unknown resubmit sends its {counted(batch.requests, 'request')} again, at the risk of paying twice"
    )
