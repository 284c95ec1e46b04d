"""Finding out what became of a batch whose submission got no response. Nothing is sent for that."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

from blocks.batch import EncodedBatch, Found
from blocks.errors import BatchTooLarge, CantTell, UnknownOutcome
from blocks.printable import counted
from flows.batches.poll import refuse_too_large
from flows.domain.agenda import Visit
from flows.domain.batches import Batch
from flows.domain.events import Refused
from flows.engine.recorder import now
from flows.engine.run import Session

log = logging.getLogger("batchwerk")


def find_again(session: Session, batch: Batch, visit: Visit, body: EncodedBatch | None = None) -> Found | None:
    """The batch, if the provider has it; if it can't tell, what the user chose is done.

    `body`: what was sent, for providers that know a batch again by that. That it was never accepted is recorded.
    """
    client = session.clients.client_of(batch)
    try:
        found = client.find(_sought(session, batch, body), session.clients.spec_of(batch).form)
    except CantTell as error:
        _let_user_choose(session, batch, error, visit)
    except UnknownOutcome as error:
        log.warning("batch %d: %s", batch.number, error.message)
        if error.retry_after is None:
            raise
        visit.look_again_at = time.time() + error.retry_after  # the answer may be conclusive then
    except BatchTooLarge as error:
        refuse_too_large(session, batch, error.message)
    else:
        if found is None:  # its requests are sent again in a new batch with its own intent
            session.recorder.record(Refused(at=now(), batch=batch.number, reason=f"{client.name} never accepted it"))
        return found
    return None


def _sought(session: Session, batch: Batch, body: EncodedBatch | None) -> EncodedBatch:
    """What is known of the batch, by which the provider may show it."""
    known = body or EncodedBatch(Path(), batch.requests, batch.bytes, batch.sha256, batch.tag)
    access = session.clients.access_of(batch)
    with session.recorder.reading() as ledger:
        others, witnesses = ledger.ids(), ledger.sent_under(access.key_id) if access.key_id == batch.key else {}
    # The embedded emulator is ours alone: until it has accepted something, its empty list is the truth.
    ours = access.connection.emulated and not witnesses
    return replace(known, sent_at=batch.intended_at, others=others, witnesses=None if ours else witnesses)


def _let_user_choose(session: Session, batch: Batch, error: CantTell, visit: Visit) -> None:
    """The outcome can't be determined: send again and perhaps pay twice, or leave it and perhaps lose paid answers."""
    since = session.recorder.began.timestamp()
    may_go_again = session.recorder.query(lambda ledger: ledger.may_be_repeated(batch.slices, since))
    if session.risks_paying_twice and may_go_again:
        reason = "treated as not accepted because of --on-unknown resubmit"
        session.recorder.record(Refused(at=now(), batch=batch.number, reason=reason, unsure=True))
        log.warning("batch %d will be sent again: %s (%s)", batch.number, reason, error.message)
        return
    visit.unresolved = (
        f"it is not known whether batch {batch.number} was accepted: {error.message} ({batch.reason}); "
        f"{error.next_step or 'check its console'}, then --on-unknown resubmit sends its "
        f"{counted(batch.requests, 'request')} again, at the risk of paying twice"
    )
