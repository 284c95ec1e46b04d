"""The steps of a run: plan requests, send them and collect the answers, publish, report, compact."""

from __future__ import annotations

import time
from dataclasses import replace

from flows.batches.collect import restore_results
from flows.batches.loop import send_and_collect
from flows.batches.orchestrator import Orchestrator
from flows.batches.outbox import Outbox
from flows.domain.estimate import Estimate
from flows.domain.sizing import batch_limit
from flows.engine.compact import compact_results
from flows.engine.logs import log_progress
from flows.engine.memory import rare_garbage_collection
from flows.engine.opening import current_plan, make_new_plan, open_run
from flows.engine.publish import publish, published_before
from flows.engine.recorder import Recorder, open_recorder
from flows.engine.run import Run
from flows.engine.translating import readable_errors
from flows.preflight import RunConfig
from flows.report.figures import Figures, figures_of
from flows.report.files import failures_in_history, write_report
from flows.report.forecast import estimate_run
from flows.report.gold import gold_of
from flows.report.insight import contents_of
from flows.report.progress import PLANNING, Progress, ended, publishing, show_last, show_phase
from flows.report.sample import sampled, with_sample
from flows.report.verdict import ENDS, Ending, Exit, verdict
from flows.storage.plan import Plan

INPUT_CHANGED = "the input has changed since the last run: what was collected is kept, and the next run publishes it"


def run_pipeline(config: RunConfig, orchestrator: Orchestrator) -> Figures:
    """Enrich the checked input. Raises the error that stopped the run, after publishing what was collected."""
    started = time.monotonic()
    log_progress()
    with (
        readable_errors(config.state),
        rare_garbage_collection(),
        open_recorder(config) as recorder,
        Outbox(orchestrator) as outbox,
    ):
        show_phase(orchestrator.watchers, Progress(config.source.rows, phase=PLANNING))
        plan = plan_requests(config, recorder, outbox)
        with open_run(config, recorder, plan) as run:
            restore_results(run)
            forecast = estimate_run(run)
            with failures_in_history(run, forecast, started):
                ending = send_and_collect(run, outbox, orchestrator)
            show_phase(orchestrator.watchers, publishing(run))
            figures = publish_and_report(run, ending, forecast, started)
            orchestrator.show_report(figures)
            show_last(orchestrator.watchers, ended(run, figures))
            compact_results(run)
    if ending.error is not None:
        raise ending.error
    return figures


def plan_requests(config: RunConfig, recorder: Recorder, outbox: Outbox) -> Plan:
    """The plan on disk or a new one; meanwhile the first lane is opened for its requests."""
    plan = current_plan(config, recorder)
    if plan is not None:
        return plan
    limit = recorder.query(lambda ledger: batch_limit(config.settings.batch_size, config.spec.limits, ledger, 0.0))
    outbox.expect(limit.batches_of(config.source.rows))
    outbox.open_first_lane()
    return make_new_plan(config, recorder)


def publish_and_report(
    run: Run,
    ending: Ending,
    forecast: Estimate,
    started: float,
    *,
    removes: bool = True,
    publishes: bool = True,
) -> Figures:
    """Write the output, then the report; both include pending and failed rows.

    `removes`: whether output files whose input is gone may be removed. `publishes`: false if the input is no longer
    that of the plan, so that the output stays as it is.
    """
    published = publish(run, removes=removes) if publishes else published_before(run.config.state)
    settings = run.config.settings
    status, message = verdict(published, ending, settings.max_failed, sampled=settings.sample is not None)
    if not publishes and status is not Exit.ERROR:
        status, message = Exit.WAITING, INPUT_CHANGED
    figures = figures_of(
        run, published, forecast, time.monotonic() - started, status, message, contents_of(run, published)
    )
    figures = replace(figures, gold=gold_of(run))
    if settings.sample is not None:
        figures = with_sample(figures, sampled(run))
    write_report(run.config.state, figures)
    if status in ENDS:
        run.config.state.remember_ended()
    return figures
