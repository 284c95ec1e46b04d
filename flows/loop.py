"""The loop: decide, start, wait. It knows no Prefect: how a task is started comes in as an argument."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from queue import Empty
from typing import Any, Protocol

from blocks.batch import PollPlan
from blocks.errors import StateError
from flows.collect import collect_batch, poll_batch
from flows.domain.actions import Action, Agenda, Collect, Finish, Poll, Reconcile, Rules, Submit, Wait, next_actions
from flows.domain.estimate import input_rate
from flows.domain.ledger import State
from flows.domain.pacing import auto_batch_size, deadline
from flows.run import Run
from flows.submit import LANES, Outbox, submit_batches

COLLECTORS = 2  # batches whose answers are in memory at once, where no helpers collect
POLLERS = 4
LONGEST_NAP = 1.0  # seconds between two looks, so that the progress shown is never old


class Started(Protocol):
    """Work that was started."""

    def wait(self) -> None:
        """Until it has ended, well or not."""
        ...

    def done(self) -> bool:
        """Whether it has ended."""
        ...

    def trouble(self) -> str:
        """Why it ended badly; empty where it did not."""
        ...


Starter = Callable[..., Started]  # (function, *arguments)


class Threads:
    """Starts work on plain threads, where Prefect is not wanted."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(LANES + COLLECTORS)

    def start(self, function: Callable[..., Any], *arguments: Any) -> Started:
        """Start `function`; its failure is the run's to tell."""
        return _Thread(self._pool.submit(function, *arguments))

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


class _Thread:
    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def wait(self) -> None:
        self._future.exception()

    def done(self) -> bool:
        return self._future.done()

    def trouble(self) -> str:
        error = self._future.exception()
        return "" if error is None else repr(error)


class Loop:
    """Works on a run until there is nothing left to do, or nothing that can be done now."""

    def __init__(
        self, run: Run, start: Starter, outbox: Outbox, on_look: Callable[[Run], None], *, submit: bool = True
    ) -> None:
        self._run = run
        self._submit = submit
        self._began = time.time()
        self._start = start
        self._outbox = outbox
        outbox.serve(run)
        self._on_look = on_look
        self._agenda = Agenda.empty()
        self._polling = _poll_plan(run)
        self._pauses: dict[int, float] = {}
        self._started: list[Started] = []

    def work(self) -> str:
        """Returns why it stopped: empty when all is done. Raises what stopped the run."""
        with ThreadPoolExecutor(POLLERS, thread_name_prefix="poll") as pollers:
            try:
                reason = self._until_finished(pollers)
            except BaseException as error:
                self._run.failure = self._run.failure or error  # lanes end after the batch they are at
                raise
            finally:
                self._outbox.close()
                for started in self._started:
                    started.wait()
        if self._run.failure is not None:
            raise self._run.failure
        return reason

    def _until_finished(self, pollers: ThreadPoolExecutor) -> str:
        run = self._run
        while run.active:
            run.changed.clear()
            for action in self._decide():
                match action:
                    case Finish(reason):
                        return reason
                    case Wait(seconds):
                        run.changed.wait(min(seconds, LONGEST_NAP))
                    case Submit(slices):
                        with run.lock:
                            number = run.ledger.reserve(slices).number
                        self._agenda.busy.add(number)
                        self._outbox.put(number)
                    case Reconcile(number):
                        self._agenda.busy.add(number)
                        self._outbox.put(number)
                    case Poll(number):
                        self._agenda.busy.add(number)
                        pollers.submit(poll_batch, run, number)
                    case Collect(number):
                        self._agenda.busy.add(number)
                        self._agenda.collecting.add(number)
                        self._started.append(self._start(collect_batch, run, number))
            while self._outbox.needs_lane():
                self._started.append(self._start(submit_batches, self._outbox))
            self._check_started()
            self._on_look(run)
        return run.stop

    def _check_started(self) -> None:
        """Work that never began says nothing itself: without this its batch would be waited for for ever."""
        ended = [started for started in self._started if started.done()]
        self._started = [started for started in self._started if started not in ended]
        for trouble in filter(None, (started.trouble() for started in ended)):
            if self._run.active:
                raise StateError(
                    f"work on the run could not be started: {trouble}",
                    next_step="run the same command again: it goes on from here",
                )

    def _decide(self) -> list[Action]:
        run, clock = self._run, time.time()
        self._note_finished(clock)
        self._agenda.breaker = run.breaker
        with run.lock:
            return next_actions(run.ledger, run.wanted, run.requests, self._rules(), self._agenda, clock)

    def _note_finished(self, clock: float) -> None:
        """Batches that a thread is done with are free again; when to look at them next grows from pause to pause."""
        while True:
            try:
                number = self._run.finished.get_nowait()
            except Empty:
                break
            self._agenda.busy.discard(number)
            self._agenda.collecting.discard(number)
            self._schedule(number, clock)

    def _schedule(self, number: int, clock: float) -> None:
        batch = self._run.ledger.batches[number]
        if batch.state not in {State.SUBMITTED, State.UNKNOWN}:
            return
        last = self._pauses.get(number)
        pause = self._polling.first if last is None else self._polling.next_pause(last)
        self._pauses[number] = pause
        self._agenda.poll_at[number] = max(clock + pause, self._run.look_again_at.pop(number, 0.0))
        self._agenda.deadline.setdefault(number, clock + deadline(batch.requests, self._polling.patience))
        if number in self._run.unresolved:
            self._agenda.deadline[number] = clock

    def _rules(self) -> Rules:
        settings, limits = self._run.checked.settings, self._run.checked.terms.limits
        size = settings.batch_size
        rows = auto_batch_size(self._run.ledger, limits.max_requests) if size == "auto" else size
        return Rules(
            batch_size=min(rows, limits.max_requests),
            max_in_flight=min(settings.max_in_flight, limits.max_in_flight or settings.max_in_flight) * self._submit,
            max_bytes=limits.max_bytes,
            max_queued_requests=limits.max_queued_requests,
            max_queued_bytes=self._queued_bytes(limits.max_queued_tokens),
            queue_pause=self._polling.longest,
            collectors=self._run.helpers.most or COLLECTORS,
            gather=self._polling.longest,
            let_go_at=None if settings.wait is None else self._began + settings.wait,
            give_up_after=settings.give_up_after,
        )

    def _queued_bytes(self, tokens: int | None) -> int | None:
        """How many bytes of requests stand for so many input tokens."""
        rate = input_rate(self._run.ledger) or self._run.plan.tokens_per_byte
        return None if tokens is None or not rate else int(tokens / rate)


def _poll_plan(run: Run) -> PollPlan:
    """The provider's plan, or the user's interval, which does not grow."""
    plan = run.providers.at(run.checked.terms.connection).polling
    interval = run.checked.settings.poll_interval
    return plan if interval is None else replace(plan, first=interval, longest=interval)
