"""The figures of an output, such as rows and money, from the ledger and the published output alone."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson

from flows.domain.advice import Advice
from flows.domain.batches import Batch
from flows.domain.budget import BudgetUse
from flows.domain.estimate import Estimate, Outlook
from flows.domain.events import BatchResult
from flows.domain.money import PICO, show_usd, total
from flows.domain.sampling import Sampled
from flows.domain.spending import spending, wasted
from flows.engine.run import Run
from flows.report.contents import Contents
from flows.report.forecast import outlook_of
from flows.report.insight import advice_for
from flows.report.verdict import Exit
from flows.storage.output import FAILED, OK, PENDING, SKIPPED, OutputSummary


@dataclass(frozen=True)
class Money:
    """Pico-dollars; None is unknown, never zero."""

    this_call: int | None
    total: int | None
    single: int | None
    estimate: int | None
    rejected: int | None  # of the total, for useless answers
    shared: int  # what duplicate rows would have cost again
    reused: int | None  # answers collected before this run
    elsewhere: int | None  # for requests that no row asks for any longer
    # Of answers of the other kind: the emulator's in a run with a real provider, a real provider's in a trial with the
    # emulator. They are in none of the sums above.
    other_call: int | None = 0
    other_total: int | None = 0
    spending: dict[str, int] | None = None  # the total by reason
    cached: int | None = 0  # what the prompt cache took off the total
    listed: int | None = None  # the total by the price list, whatever was agreed
    stated: int = 0  # what the provider itself says that answers cost, where it does
    cost_of_stated: int | None = 0  # what we count for the same answers


@dataclass(frozen=True)
class Foretold:
    """What was expected of the requests that a run sent, and what became of those that were answered."""

    estimate: Estimate
    answered: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int | None = 0

    def details(self) -> dict[str, Any]:
        """For report.json."""
        expected = self.estimate
        return {
            "requests": expected.requests,
            "answered": self.answered,
            "estimated_input_tokens": expected.input_tokens,
            "input_tokens": self.input_tokens,
            "estimated_output_tokens": expected.output_tokens,
            "output_tokens": self.output_tokens,
            "estimate_usd": usd(expected.cost),
            "cost_usd": usd(self.cost),
            "ceiling_usd": usd(expected.ceiling),
        }


@dataclass(frozen=True)
class Figures:
    """Everything that the report, `--json` and the artifacts show."""

    job: str
    model: str
    provider: str
    dialect: str  # the provider whose protocol and prices apply
    emulated: bool
    input: str
    output: str
    run: str
    rows: dict[str, int]
    selected: tuple[int, int]  # rows of the output, rows of the input
    requests: int
    deduplicated: int
    reused: int
    batches: int
    attempts: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int  # of the input tokens
    unmetered: int
    money: Money
    outcomes: dict[str, int]
    table: list[dict[str, Any]]  # one line per batch
    seconds: float
    exit: Exit
    message: str  # why the output is not complete, and what to do
    notes: list[str] = field(default_factory=list)  # of the output's files
    lost: int = 0  # of `unmetered`, answers that nobody holds: gone, unreadable, or counted and not returned
    nameless: int = 0  # answers that name no request
    ended_at: float = 0.0  # seconds since the epoch
    foretold: Foretold = field(default_factory=lambda: Foretold(Estimate(0, 0, 0, 0, 0)))
    outlook: Outlook = field(default_factory=lambda: Outlook(0, 0, None))  # of all rows, also after a sample
    sample: Sampled | None = None  # of a run that sent some requests to judge all by
    advice: list[Advice] = field(default_factory=list)
    budgets: list[BudgetUse] = field(default_factory=list)
    contents: Contents = field(default_factory=Contents)
    gold: list[dict[str, Any]] = field(default_factory=list)  # answers against what people filled, by field
    commands: dict[str, str] = field(default_factory=dict)  # to go on with, by what they do

    def summary(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "rows": sum(self.rows.values()),
            "succeeded": self.rows.get(OK, 0),
            "failed": self.rows.get(FAILED, 0),
            "skipped": self.rows.get(SKIPPED, 0),
            "pending": self.rows.get(PENDING, 0),
            "requests": self.requests,
            "deduplicated": self.deduplicated,
            "reused": self.reused,
            "batches": self.batches,
            "attempts": self.attempts,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "emulated": self.emulated,
            "cost_usd": usd(self.money.this_call),
            "total_cost_usd": usd(self.money.total),
            "billed_usd": usd(self.money.other_total if self.emulated else self.money.total),
            "emulated_usd": usd(self.money.total if self.emulated else self.money.other_total),
            "list_cost_usd": usd(self.money.listed),
            "stated_by_provider_usd": usd(self.money.stated) if self.money.stated else None,
            "cost_of_stated_usd": usd(self.money.cost_of_stated) if self.money.stated else None,
            "single_cost_usd": usd(self.money.single),
            "estimate_usd": usd(self.money.estimate),
            "expected_usd": usd(self.outlook.total),
            "expected_range_usd": range_usd(self.outlook),
            **({"sample": {**_sample(self.sample), "next": self.commands.get("continue")}} if self.sample else {}),
            **({"budgets": budgets_usd(self.budgets)} if self.budgets else {}),
            **({"gold": [_headline(each) for each in self.gold]} if self.gold else {}),
            "seconds": round(self.seconds, 3),
            "exit": int(self.exit),
        }

    def details(self) -> dict[str, Any]:
        """The content of report.json: the summary and all details."""
        return {
            **self.summary(),
            "run": self.run,
            "job": self.job,
            "model": self.model,
            "provider": self.provider,
            "dialect": self.dialect,
            "input": self.input,
            "output": self.output,
            "rejected_cost_usd": usd(self.money.rejected),
            "wasted_usd": usd(wasted(self.money.spending)),
            "spending_usd": None if self.money.spending is None else _each_usd(self.money.spending),
            "saved_by_batch_price_usd": usd(less(self.money.single, self.money.total)),
            "saved_by_deduplication_usd": usd(self.money.shared),
            "saved_by_reuse_usd": usd(self.money.reused),
            "saved_by_prompt_cache_usd": usd(self.money.cached),
            "cost_of_rows_that_left_usd": usd(self.money.elsewhere),
            "cached_input_tokens": self.cached_tokens,
            "answers_without_usage": self.unmetered,
            "answers_billed_and_lost": self.lost,
            "answers_to_no_request": self.nameless,
            "outcomes": self.outcomes,
            "message": self.message,
            "notes": self.notes,
            "ended_at": round(self.ended_at, 3),
            "budgets": budgets_usd(self.budgets),
            "advice": [{"what": each.what, "how": each.how, "saves_usd": usd(each.saves)} for each in self.advice],
            "estimate": self.foretold.details(),
            "contents": asdict(self.contents),
            "gold": self.gold,
            "commands": self.commands,
            "batch_table": [
                {name: usd(value) if name == "cost_usd" else value for name, value in line.items()}
                for line in self.table
            ],
        }


def _headline(gold: Mapping[str, Any]) -> dict[str, Any]:
    return {name: gold[name] for name in ("field", "column", "compared", "correct", "accuracy")}


def _sample(sample: Sampled) -> dict[str, Any]:
    everything = sample.all
    return {
        "requests": sample.requests,
        "of": sample.of,
        "answered": sample.answered,
        "failed": sample.failed,
        "measured": sample.measured,
        "estimated_input_tokens": sample.estimated_input,
        "input_tokens": sample.input,
        "estimated_output_tokens": sample.estimated_output,
        "output_tokens": sample.output,
        "cost_usd": usd(sample.cost),
        "all_input_tokens": everything and asdict(everything.input_tokens),
        "all_output_tokens": everything and asdict(everything.output_tokens),
    }


def budgets_usd(uses: Iterable[BudgetUse]) -> list[dict[str, Any]]:
    """For JSON."""
    return [
        {
            "budget": use.title,
            "limit_usd": usd(use.limit),
            "taken_usd": usd(use.here + use.elsewhere),
            "taken_by_other_outputs_usd": usd(use.elsewhere),
        }
        for use in uses
    ]


def _each_usd(amounts: Mapping[str, int]) -> dict[str, Any]:
    return {name: usd(amount) for name, amount in amounts.items()}


APART = 100  # a hundredth of a sum: from there on a difference is told


def disagreement(money: Money) -> str | None:
    """What is said where the provider's own sum is more than one per cent from ours, or ours is unknown."""
    stated, ours = money.stated, money.cost_of_stated
    if not stated or (ours is not None and abs(stated - ours) * APART <= max(stated, ours)):
        return None
    return (
        f"the provider says that answers cost {show_usd(stated)} for which {show_usd(ours)} is counted here: compare "
        "the price table with its price list, and `batchwerk reconcile` with its bill"
    )


def range_usd(outlook: Outlook) -> list[orjson.Fragment | None] | None:
    """The lowest and the highest total that is expected; None until that can be told."""
    return None if outlook.lowest is None else [usd(outlook.lowest), usd(outlook.highest)]


def less(first: int | None, second: int | None) -> int | None:
    """The difference; None if either amount is unknown."""
    return None if first is None or second is None else first - second


def usd(pico: int | None) -> orjson.Fragment | None:
    """Dollars as a JSON number with all digits, which a float would lose."""
    if pico is None:
        return None
    whole, rest = divmod(abs(pico), PICO)
    digits = f"{whole}.{rest:012d}".rstrip("0").rstrip(".")
    return orjson.Fragment(f"-{digits}" if pico < 0 else digits)


def figures_of(
    run: Run,
    published: OutputSummary,
    forecast: Estimate,
    seconds: float,
    exit_status: Exit,
    message: str,
    contents: Contents,
) -> Figures:
    """The figures of a finished run. `contents`: of the output that it published."""
    config, since = run.config, run.recorder.began.timestamp()
    sent, emulated = run.recorder.sent_here(), run.config.spec.connection.emulated
    with run.recorder.reading() as ledger:
        every, others = ledger.collected(emulated=emulated), ledger.collected(emulated=not emulated)
        new = [batch for batch in ledger.batches.values() if batch.result is not None and batch.collected_at >= since]
        here = [batch.result for batch in new if batch.result is not None and batch.emulated is emulated]
        others_here = [batch.result for batch in new if batch.result is not None and batch.emulated is not emulated]
        outcomes = dict(sorted(ledger.outcomes(emulated=emulated).items()))
        table = [_line(batch) for _, batch in sorted(ledger.batches.items())]
        alike = [batch for batch in ledger.batches.values() if batch.emulated is emulated]
        spent = spending(alike, published.good_cost, published.repeated_cost)
        hints = advice_for(run, alike)
        outlook = outlook_of(config.spec, ledger, run.whole, run.requests)
        budgets = run.budgets.uses(ledger, run.requests)
    money = _money(every, here, published, forecast)
    return Figures(
        job=config.spec.job.name,
        model=config.layout.model,
        provider=config.settings.provider,
        dialect=config.spec.connection.provider,
        emulated=emulated,
        input=str(config.settings.input),
        output=str(config.settings.output),
        run=run.recorder.run_id,
        rows=dict(published.statuses),
        selected=(run.plan.rows, run.plan.total_rows),
        requests=run.plan.requests,
        deduplicated=run.plan.duplicates,
        reused=run.answered_before,
        batches=len(sent),
        attempts=sum(batch.requests for batch in run.recorder.accepted_here()),
        input_tokens=sum(result.input_tokens for result in here),
        output_tokens=sum(result.output_tokens for result in here),
        cached_tokens=sum(result.cached_tokens for result in here),
        unmetered=sum(result.unmetered for result in every),
        lost=sum(result.lost for result in every),
        nameless=sum(result.nameless for result in every),
        money=replace(
            money,
            spending=spent,
            other_call=total(result.cost for result in others_here),
            other_total=total(result.cost for result in others),
        ),
        outcomes=outcomes,
        table=table,
        seconds=seconds,
        exit=exit_status,
        message=message,
        notes=[*published.notes, *([said] if (said := disagreement(money)) else [])],
        ended_at=time.time(),
        foretold=_foretold(forecast, [batch.result for batch in sent if batch.result is not None]),
        outlook=outlook,
        advice=hints,
        budgets=budgets,
        contents=contents,
        commands={"continue": config.command(sample=None), "retry": config.command(retry_failed=True)},
    )


def _money(every: list[BatchResult], here: list[BatchResult], published: OutputSummary, forecast: Estimate) -> Money:
    paid, this_call = total(r.cost for r in every), total(r.cost for r in here)
    return Money(
        this_call=this_call,
        total=paid,
        single=total(r.single_cost for r in every),
        estimate=forecast.cost,
        rejected=total(r.rejected_cost for r in every),
        shared=published.shared_cost,
        reused=None if paid is None or this_call is None else paid - this_call,
        elsewhere=None if paid is None else paid - published.rows_cost,
        cached=total(r.cache_saved for r in every),
        listed=total(r.list_cost for r in every),
        stated=sum(r.stated_cost for r in every),
        cost_of_stated=total(r.cost_of_stated for r in every),
    )


def _foretold(forecast: Estimate, results: list[BatchResult]) -> Foretold:
    return Foretold(
        forecast,
        answered=sum(sum(result.outcomes.values()) for result in results),
        input_tokens=sum(result.input_tokens for result in results),
        output_tokens=sum(result.output_tokens for result in results),
        cost=total(result.cost for result in results),
    )


def _line(batch: Batch) -> dict[str, Any]:
    """A batch in the table: its requests, end, times and cost."""
    result = batch.result
    attempts: dict[int, int] = defaultdict(int)
    for piece in batch.slices:
        attempts[piece.attempt] += piece.requests
    return {
        "batch": batch.number,
        "id": batch.id,
        "state": str(batch.state),
        "emulated": batch.emulated,
        "requests": batch.requests,
        "attempts": {str(attempt): count for attempt, count in sorted(attempts.items())},
        "ok": result.ok if result else 0,
        "outcomes": result.outcomes if result else {},
        "input_tokens": result.input_tokens if result else 0,
        "output_tokens": result.output_tokens if result else 0,
        "cost_usd": result.cost if result and not batch.gone else None,
        "times": [round(at, 3) for at in _times(batch)],
        "waiting_seconds": _between(batch.waiting_from, batch.sending_from),
        "sending_seconds": _between(batch.sending_from, batch.submitted_at),
        "provider_seconds": _between(batch.submitted_at, batch.ended_at),
        "collecting_seconds": _between(batch.ended_at, batch.collected_at),
        "note": batch.failed or batch.reason,
    }


def _times(batch: Batch) -> tuple[float, ...]:
    """When it was decided, had a slot and a permit, was accepted, had ended, and was collected; 0: not yet."""
    return batch.waiting_from, batch.sending_from, batch.submitted_at, batch.ended_at, batch.collected_at


def _between(first: float, last: float) -> float | None:
    return round(last - first, 3) if first and last else None
