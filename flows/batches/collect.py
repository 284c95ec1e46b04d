"""Reading the answers of ended batches into results parts, and fetching lost parts again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from blocks.batch import BatchPhase, BatchProvider, PollPlan
from blocks.errors import BatchwerkError, Incomplete, NotFound
from blocks.printable import counted
from flows.batches.answers import Order, collect_answers
from flows.batches.collector_pool import CollectorPool
from flows.batches.missing import note_unfound, write_off
from flows.domain.agenda import Visit
from flows.domain.batches import Batch
from flows.domain.events import BatchResult, Collected, Lost, Recovered, Reopened, Restored, Unread
from flows.domain.rereading import is_settled, pause_after
from flows.engine.recorder import now
from flows.engine.run import Run, Session

log = logging.getLogger("batchwerk")


def collect_batch(session: Session, pool: CollectorPool, number: int) -> None:
    """Read a batch's answers into its results part, which is on disk before the journal records it."""
    with session.visiting(number) as visit:
        read_answers(session, session.recorder.batch(number), pool.collect, visit)


def read_answers(
    session: Session, batch: Batch, read: Callable[[Order, BatchProvider], BatchResult], visit: Visit
) -> None:
    """As `collect_batch`, raising the provider's errors."""
    started, client = time.monotonic(), session.clients.client_of(batch)
    settled = is_settled(batch.unread, batch.unread_since, time.time(), client.polling)
    try:
        result = read(_order(session, batch)._replace(settled=settled), client)
    except NotFound as error:
        _ask_for_it(session, batch, error, visit)
        return
    except Incomplete as error:
        _look_again(session, batch, client.polling, visit, error)
        return
    session.recorder.record(Collected(at=now(), batch=batch.number, result=result))
    retries = sum(piece.requests for piece in result.retry)
    log.info(
        "batch %d: %s of %s good, %s to be retried, collected in %.1f s",
        batch.number, f"{result.ok:,}", counted(batch.requests, "answer"), f"{retries:,}", time.monotonic() - started,
    )  # fmt: skip
    if batch.gone and session.risks_paying_twice:
        send_again(session, gone_only=True)


def _order(session: Session, batch: Batch) -> Order:
    access, spec = session.clients.access_of(batch), session.clients.spec_of(batch)
    return Order(access, spec, batch, session.state.output, session.max_attempts)


def _look_again(session: Session, batch: Batch, polling: PollPlan, visit: Visit, error: Incomplete) -> None:
    """Answers that are not all there: nothing counts as unanswered, and they are looked at again.

    What says nothing of the answers, such as a page of a proxy, never counts: in the end somebody has to look at it.
    """
    session.recorder.record(Unread(at=now(), batch=batch.number, reason=error.message))
    clock = time.time()
    pause = pause_after(batch.unread, polling)
    visit.look_again_at = clock + pause
    if not error.fewer and is_settled(batch.unread, batch.unread_since, clock, polling):
        _let_user_choose(session, batch, error, visit)
        return
    log.warning(
        "batch %d: %s; its answers are looked at again in %.0f s, nothing is sent again",
        batch.number, error.message, pause,
    )  # fmt: skip


def _let_user_choose(session: Session, batch: Batch, error: Incomplete, visit: Visit) -> None:
    """Answers that nobody can read, however often they are looked at, were paid: only a word gives them up."""
    told = f"the answers of batch {batch.number} can't be read at {batch.unread} looks: {error.message}"
    if session.risks_paying_twice:
        write_off(session, batch, told)
        return
    visit.unresolved = (
        f"{told}; none of its {counted(batch.requests, 'request')} is sent again; look at it at the provider, and run "
        "the same command again: with --on-unknown resubmit, and perhaps a smaller --batch-size, it sends them again, "
        "at the risk of paying twice"
    )


def _ask_for_it(session: Session, batch: Batch, error: NotFound, visit: Visit) -> None:
    """Results that are not found: not yet, or no longer. What the provider says of the batch itself is told."""
    assert batch.id is not None  # noqa: S101  # results were asked for
    client = session.clients.client_of(batch)
    try:
        status = client.poll(batch.id)
    except NotFound:
        said = error
    else:
        said = NotFound(f"{error.message}, though the batch itself is {status.wording!r}", provider=error.provider)
    note_unfound(session, batch, said, visit)
    visit.look_again_at = max(visit.look_again_at, time.time() + client.polling.first)


def restore_results(run: Run) -> None:
    """Fetch missing or damaged results parts again, then try what was gone or lost once more.

    What can't be read is sent again only after that, and only if the user said so.
    """
    _restore_parts(run)
    for batch in run.recorder.query(lambda ledger: ledger.written_off()):
        _try_once_more(run, batch)
    if run.config.settings.retry_failed or run.risks_paying_twice:
        send_again(run, gone_only=not run.config.settings.retry_failed)


def send_again(session: Session, *, gone_only: bool) -> None:
    """Requests that failed for good get a new allowance of attempts; `gone_only`: those whose batch is gone."""
    since = session.recorder.began.timestamp()
    with session.recorder.reading() as ledger:  # held until it is recorded: two collections would send it twice
        slices = ledger.reopened_gone(since) if gone_only else ledger.reopened()
        if slices:
            session.recorder.record(Reopened(at=now(), slices=slices))


def _try_once_more(run: Run, batch: Batch) -> None:
    """A batch that was gone may be back, one that was given up may have ended."""
    if batch.id is None:
        return
    try:
        client = run.clients.client_of(batch)
        status = client.poll(batch.id)
        if status.phase is BatchPhase.RUNNING:
            return
        failed = (status.error or status.wording) if status.phase is BatchPhase.FAILED else None
        found = replace(batch, gone="", failed=failed, early=status.early)
        result = collect_answers(_order(run, found), client)
    except BatchwerkError as error:
        log.warning("batch %d can still not be read: %s", batch.number, error.message)
        return
    run.recorder.record(Recovered(at=now(), batch=batch.number, result=result))
    log.warning("batch %d could be read after all: %s of its answers are good", batch.number, f"{result.ok:,}")


def _restore_parts(run: Run) -> None:
    for part in run.recorder.query(run.results.parts):
        if run.results.is_whole(part):
            continue
        log.warning("the results of %s are missing or damaged; fetching them again", part.label)
        for batch in part.batches:
            if not run.results.is_whole(run.results.own_part(batch)):  # fetched before a crash, or not yet deleted
                _fetch_again(run, batch)
        if part.is_compacted:
            run.recorder.record(Restored(at=now(), schema_id=run.results.schema_id, part=part.path.stem))


def _fetch_again(run: Run, batch: Batch) -> None:
    try:
        collect_answers(_order(run, batch), run.clients.client_of(batch))
    except NotFound as error:
        reason = f"the results of batch {batch.number} are gone and the provider no longer has them"
        run.recorder.record(Lost(at=now(), batch=batch.number, reason=reason))
        log.warning("%s (%s); --retry-failed requests its rows again", reason, error.message)
