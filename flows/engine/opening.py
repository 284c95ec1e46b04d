"""Starting a run: plan the requests of the rows, then open everything that works on them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blocks.errors import BatchwerkError
from blocks.printable import counted
from blocks.retries import resting
from blocks.vocabularies import forget_vocabularies
from flows.domain.events import Frozen
from flows.domain.ranges import Ranges
from flows.domain.sampling import sample_of
from flows.engine.budgets import Budgets, open_budgets
from flows.engine.clients import open_clients
from flows.engine.recorder import Recorder, now
from flows.engine.run import Run
from flows.engine.stopping import StopSwitch, catching_signals
from flows.preflight import RunConfig
from flows.storage.memory import give_back_memory
from flows.storage.plan import Plan, checked_generations, generation_path, last_plan, read_plan, wanted_requests
from flows.storage.planner import make_plan
from flows.storage.requests import FrozenRequests
from flows.storage.sealing import seal_of

log = logging.getLogger("batchwerk")


def current_plan(config: RunConfig, recorder: Recorder) -> Plan | None:
    """The plan on disk, if it was made for the same question and input."""
    return read_plan(config.state.rows, config.question, recorder.query(lambda ledger: ledger.plan))


def last_known_plan(config: RunConfig, recorder: Recorder) -> Plan | None:
    """The plan on disk, also if the input has changed since."""
    return last_plan(config.state.rows, recorder.query(lambda ledger: ledger.plan))


def frozen_files(config: RunConfig, recorder: Recorder) -> list[Path]:
    """The files of all frozen requests, as the journal knows them."""
    return checked_generations(config.state.requests, recorder.query(lambda ledger: ledger.generations))


def make_new_plan(config: RunConfig, recorder: Recorder) -> Plan:
    """Freeze the new requests of the input and number them."""
    state, spec, started = config.state, config.spec, time.monotonic()
    frozen = frozen_files(config, recorder)
    plan = make_plan(config.question, frozen, state.requests, state.rows, config.settings.memory_limit)
    forget_vocabularies()  # nothing is counted again in this process
    give_back_memory()
    new = generation_path(state.requests, plan.start)
    recorder.record(
        Frozen(
            at=now(),
            start=plan.start,
            stop=plan.stop,
            spec=spec.fingerprint,
            rows=plan.rows,
            wanted=plan.requests,
            generation=seal_of(new) if plan.stop > plan.start else None,
            plan=seal_of(state.rows),
        )
    )
    log.info(
        "planned %s: %s, %s of them new, in %.1f s",
        counted(plan.rows, "row"), counted(plan.requests, "request"), f"{plan.stop - plan.start:,}",
        time.monotonic() - started,
    )  # fmt: skip
    return plan


@contextmanager
def open_run(config: RunConfig, recorder: Recorder, plan: Plan) -> Iterator[Run]:
    """A run that works on the plan until the end, an error or a signal."""
    state, settings, spec = config.state, config.settings, config.spec
    whole = wanted_requests(state.rows, settings.memory_limit) if plan.requests else Ranges()
    wanted = whole if settings.sample is None else sample_of(whole, settings.sample)
    switch = StopSwitch()
    requests = FrozenRequests(frozen_files(config, recorder))
    with recorder.reading() as ledger:
        budgets = open_budgets(settings, spec, state, recorder.run_id, ledger, requests)
    with (
        open_clients(state, spec, config.typed_url) as clients,
        catching_signals(switch),
        resting(switch.rest),
        _settling(budgets, recorder, requests),
    ):
        yield Run(
            state=state,
            config=config,
            recorder=recorder,
            clients=clients,
            switch=switch,
            max_attempts=settings.max_attempts,
            risks_paying_twice=settings.on_unknown == "resubmit",
            abandon_after=settings.abandon_after,
            plan=plan,
            wanted=wanted,
            whole=whole,
            requests=requests,
            budgets=budgets,
            answered_before=recorder.query(lambda ledger: ledger.tally(wanted).answered),
        )


@contextmanager
def _settling(budgets: Budgets, recorder: Recorder, requests: FrozenRequests) -> Iterator[None]:
    """Whatever ended the work, others may use what it left; where that can't be said, it stays reserved."""
    try:
        yield
    finally:
        with (
            suppress(BatchwerkError, OSError),
            budgets.held(time.time()) as held,
            recorder.reading() as ledger,
        ):
            held.reserve(ledger.batches.values(), (), requests)
