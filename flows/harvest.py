"""The steps of a harvest: collect what the last run sent, send again what failed, publish, report."""

from __future__ import annotations

import time

from blocks.errors import UsageError
from flows.batches.collect import restore_results
from flows.batches.loop import send_and_collect
from flows.batches.orchestrator import Orchestrator
from flows.batches.outbox import Outbox
from flows.engine.logs import log_progress
from flows.engine.memory import rare_garbage_collection
from flows.engine.opening import current_plan, last_known_plan, open_run
from flows.engine.recorder import Recorder, open_recorder
from flows.engine.translating import readable_errors
from flows.pipeline import publish_and_report
from flows.preflight import RunConfig
from flows.report.figures import Figures
from flows.report.files import failures_in_history
from flows.report.forecast import estimate_run
from flows.report.progress import ended, publishing, show_last, show_phase
from flows.report.verdict import Ending
from flows.storage.plan import Plan

UNSENT = Ending("the rest was never sent", next_step="only a run of the output sends it, not a harvest")


def harvest_output(config: RunConfig, orchestrator: Orchestrator) -> Figures:
    """Collect what the output's last run sent, and repeat what failed; `config` is what that run was asked for.

    Nothing is planned, and nothing is sent that was not sent before; after a cancellation nothing is sent at all.
    Raises Busy if a run works on the output.
    """
    started = time.monotonic()
    log_progress()
    with (
        readable_errors(config.state),
        rare_garbage_collection(),
        open_recorder(config, remember=False) as recorder,
        Outbox(orchestrator) as outbox,
    ):
        plan = current_plan(config, recorder)
        with open_run(config, recorder, plan or _last_plan(config, recorder)) as whole:
            run = whole.only_sent()
            restore_results(run)
            forecast = estimate_run(run)
            with failures_in_history(run, forecast, started):
                ending = send_and_collect(run, outbox, orchestrator, submit=not config.state.is_cancelled())
            ending = UNSENT if ending == Ending() else ending
            show_phase(orchestrator.watchers, publishing(run))
            figures = publish_and_report(run, ending, forecast, started, removes=False, publishes=plan is not None)
            orchestrator.show_report(figures)
            show_last(orchestrator.watchers, ended(run, figures))
    if ending.error is not None:
        raise ending.error
    return figures


def _last_plan(config: RunConfig, recorder: Recorder) -> Plan:
    plan = last_known_plan(config, recorder)
    if plan is None:
        output = config.settings.output
        raise UsageError(f"nothing was planned for {output} yet", next_step=f"`batchwerk run` enriches {output}")
    return plan
