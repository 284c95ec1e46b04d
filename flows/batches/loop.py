"""The loop: decide, start, wait. Independent of Prefect: the orchestrator that starts work is an argument."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from queue import Empty
from typing import Any

from blocks.batch import PollPlan
from blocks.errors import AuthenticationFailed, BatchwerkError, UsageError
from flows.batches.collect import collect_batch
from flows.batches.collector_pool import CollectorPool, collectors_for
from flows.batches.orchestrator import COLLECTORS, Orchestrator
from flows.batches.outbox import Outbox, raise_failure
from flows.batches.poll import poll_batch
from flows.batches.submit import submit_batch
from flows.domain.actions import Action, Collect, Finish, Poll, Reconcile, Rules, Submit, Wait, next_actions
from flows.domain.agenda import Agenda
from flows.domain.budget import Budget
from flows.domain.ledger import Ledger
from flows.engine.run import Run
from flows.report.progress import ProgressReporter
from flows.report.verdict import Ending

POLLERS = 4
MAX_NAP = 1.0  # seconds between two iterations, so that the progress shown is recent


def send_and_collect(run: Run, outbox: Outbox, orchestrator: Orchestrator, *, submit: bool = True) -> Ending:
    """Work until every request has its answer, or until nothing more can be done now.

    If answers were collected, an error is returned in the ending, so that they are published first; else it is raised.
    """
    with outbox:  # lanes release their slots before the output is published
        if not run.recorder.has_work(run.wanted):
            return Ending()
        if submit:
            run.recorder.query(lambda ledger: run.budgets.check(ledger, run.config.spec.fingerprint))
        tally = run.tally()
        with closing(CollectorPool(collectors_for(tally.unsent + tally.in_flight))) as pool:
            return _ending_of(run, Loop(run, outbox, orchestrator, pool, submit=submit))


def _ending_of(run: Run, loop: Loop) -> Ending:
    try:
        return loop.work()
    except BatchwerkError as error:
        if run.recorder.collected_here():
            return Ending(error=error)
        if isinstance(error, AuthenticationFailed) and not any(batch.id for batch in run.recorder.sent_here()):
            raise UsageError(error.message, next_step=error.next_step) from error  # a wrong key is a usage error
        raise


class Loop:
    """Works on a run until there is nothing left to do, or nothing that can be done now."""

    def __init__(
        self, run: Run, outbox: Outbox, orchestrator: Orchestrator, pool: CollectorPool, *, submit: bool
    ) -> None:
        self._run = run
        self._outbox = outbox
        self._orchestrator = orchestrator
        self._pool = pool
        self._submit = submit
        self._began = self._decided_at = time.time()
        self._agenda = Agenda(_poll_plan(run))
        self._collections: list[Future[Any]] = []

    def work(self) -> Ending:
        """Returns why it stopped. Raises the error that stopped the run, after all work under way has ended."""
        switch, orchestrator = self._run.switch, self._orchestrator
        progress = ProgressReporter(self._run, orchestrator.watchers, orchestrator.waits)
        if (wait := self._run.config.settings.wait) is not None:
            switch.patient_until = self._began + wait
        with ThreadPoolExecutor(POLLERS, thread_name_prefix="poll") as pollers:
            try:
                finish = self._until_finished(pollers, progress)
            except BaseException as error:
                switch.fail(error)
                raise
            finally:
                switch.stop_retrying()
                self._outbox.close()
                for collection in self._collections:
                    collection.exception()
        if switch.failure is not None:
            raise switch.failure
        return Ending(finish.reason, self._agenda.unresolved, is_over_budget=finish.is_over_budget)

    def _until_finished(self, pollers: ThreadPoolExecutor, progress: ProgressReporter) -> Finish:
        switch = self._run.switch
        while switch.active:
            switch.changed.clear()
            if self._orchestrator.stop_reason:
                switch.request(self._orchestrator.stop_reason)
                break
            self._note_visits()
            for action in self._decide():
                match action:
                    case Finish():
                        return action
                    case Wait(seconds):
                        switch.changed.wait(min(seconds, MAX_NAP))
                    case Submit(slices):
                        self._send(self._run.recorder.reserve(slices, self._decided_at).number)
                    case Reconcile(number):
                        self._send(number)
                    case Poll(number):
                        self._agenda.begin(number)
                        pollers.submit(poll_batch, self._run, number)
                    case Collect(number):
                        self._collect(number)
            self._outbox.open_lanes()
            self._check_collections()
            progress.look()
        return Finish(switch.reason)

    def _send(self, number: int) -> None:
        self._agenda.begin(number)
        self._outbox.put(partial(submit_batch, self._run, number))

    def _collect(self, number: int) -> None:
        self._agenda.begin(number, collecting=True)
        work = partial(collect_batch, self._run, self._pool)
        self._collections.append(self._orchestrator.start("collect batch", work, number))

    def _check_collections(self) -> None:
        """Work that never started reports nothing itself: without this, the loop would wait for its batch for ever."""
        ended = [collection for collection in self._collections if collection.done()]
        self._collections = [collection for collection in self._collections if collection not in ended]
        for collection in ended if self._run.switch.active else ():
            raise_failure(collection)

    def _note_visits(self) -> None:
        clock = time.time()
        while True:
            try:
                visit = self._run.visits.get_nowait()
            except Empty:
                return
            self._agenda.finish(visit, self._run.recorder.batch(visit.batch), clock)

    def _decide(self) -> list[Action]:
        run = self._run
        self._agenda.breaker = run.switch.breaker
        self._decided_at = time.time()
        with run.budgets.held(self._decided_at) as held, run.recorder.reading() as ledger:
            rules, self._agenda.accepted = self._rules(ledger, held.budgets), len(ledger.ids())
            actions = next_actions(ledger, run.wanted, run.requests, rules, self._agenda, self._decided_at)
            new = [action.slices for action in actions if isinstance(action, Submit)]
            held.reserve(ledger.batches.values(), new, run.requests)
            unsent = sum(piece.requests for piece in ledger.unsent(run.wanted))
        self._outbox.expect(max(0, rules.limit.batches_of(unsent) - len(new)))
        return actions

    def _rules(self, ledger: Ledger, budgets: tuple[Budget, ...]) -> Rules:
        settings, limits = self._run.config.settings, self._run.config.spec.limits
        max_in_flight = min(settings.max_in_flight, limits.max_in_flight or settings.max_in_flight)
        return Rules(
            limit=self._run.batch_limit(ledger),
            max_in_flight=max_in_flight if self._submit else 0,
            collectors=self._pool.most or COLLECTORS,
            retry_linger=self._agenda.polling.longest,
            queue_pause=self._agenda.polling.longest,
            stop_waiting_at=None if settings.wait is None else self._began + settings.wait,
            give_up_after=settings.give_up_after,
            budgets=budgets,
        )


def _poll_plan(run: Run) -> PollPlan:
    """The provider's plan, or the user's constant interval."""
    plan, interval = run.clients.current().polling, run.config.settings.poll_interval
    return plan if interval is None else replace(plan, first=interval, longest=interval)
