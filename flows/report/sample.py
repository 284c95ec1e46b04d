"""What a sample says of all rows: `plan --sample`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from blocks.printable import counted, printable
from flows.domain.estimate import Outlook
from flows.domain.money import show_cost, show_usd
from flows.domain.outcomes import Outcome
from flows.domain.sampling import Extrapolation, Measured, Sampled, Span, extrapolate
from flows.domain.tokens import expected_output_tokens
from flows.engine.run import Run
from flows.report.figures import Figures
from flows.storage.lookup import ResultLookup

MEANING = "about 19 in 20 such ranges hold it"


def sampled(run: Run) -> Sampled:
    """What came of the requests that the run drew. Reads the answers, whichever process collected them."""
    numbers = [number for start, stop in run.wanted for number in range(start, stop)]
    with run.recorder.reading() as ledger:
        tally = ledger.tally(run.wanted)
        lookup = ResultLookup(run.results, ledger, run.config.spec.schema)
        measured = list(_measured(run, lookup, numbers))
    form = run.config.spec.form
    costs = [each.cost for each in measured if each.cost is not None]
    return Sampled(
        requests=tally.wanted,
        of=len(run.whole),
        answered=tally.answered,
        failed=tally.failed,
        measured=len(measured),
        estimated_input=sum(each.planned for each in measured),
        estimated_output=len(measured) * expected_output_tokens(form.schema, form.max_output_tokens),
        input=sum(each.input for each in measured),
        output=sum(each.output for each in measured),
        cost=sum(costs) if len(costs) == len(measured) else None,
        all=extrapolate(measured, len(run.whole), sum(run.requests.tokens(*part) for part in run.whole)),
    )


def _measured(run: Run, lookup: ResultLookup, numbers: list[int]) -> Iterator[Measured]:
    """The requests that have come to their end and whose usage is known, with that of all their attempts."""
    ascending = np.array(numbers, dtype=np.int64)
    final = set(ascending[lookup.is_final(ascending)].tolist())
    columns = ["request", "outcome", "input_tokens", "output_tokens", "cost"]
    attempts: dict[int, list[tuple[str, int | None, int | None, int | None]]] = {}
    for number, *attempt in zip(*(lookup.results_of(ascending).column(n).to_pylist() for n in columns), strict=True):
        attempts.setdefault(number, []).append(tuple(attempt))
    for number, tried in attempts.items():
        known = [(given, came, cost) for _, given, came, cost in tried if given is not None and came is not None]
        if known and (number in final or any(outcome == Outcome.OK for outcome, *_ in tried)):
            inputs, outputs, costs = zip(*known, strict=True)
            cost = None if None in costs else sum(each for each in costs if each is not None)
            yield Measured(run.requests.tokens(number, number + 1), sum(inputs), sum(outputs), cost)


def with_sample(figures: Figures, sample: Sampled) -> Figures:
    """The figures of a run that sent a sample: what that says of all rows is the better forecast."""
    spent, cost = figures.outlook.spent, None if sample.all is None else sample.all.cost
    if spent is None or cost is None:
        return replace(figures, sample=sample)
    lowest, highest = (None if each is None else max(spent, each) for each in (cost.lowest, cost.highest))
    outlook = Outlook(spent, figures.outlook.under_way, max(spent, cost.expected), lowest, highest)
    return replace(figures, sample=sample, outlook=outlook)


def sample_text(figures: Figures, sample: Sampled) -> str:
    """A few lines for people."""
    lines = [*sample_lines(figures, sample), *_judged(figures), ("next", _next(figures, sample))]
    return "\n".join(f"{name:11}{text}" for name, text in lines)


def sample_lines(figures: Figures, sample: Sampled) -> Iterator[tuple[str, str]]:
    """What was drawn, what it took and what all will take, each with its name."""
    failed = f", {sample.failed:,} failed" if sample.failed else ""
    out = f", {sample.waiting:,} without an answer yet" if sample.waiting else ""
    drawn = f"{sample.requests:,} of {counted(sample.of, 'request')}, drawn at random"
    yield "sampled", f"{drawn}: {sample.answered:,} answered{failed}{out}"
    if sample.measured:
        unknown = sample.answered + sample.failed - sample.measured
        without = f" (without {unknown:,} whose usage is unknown)" if unknown else ""
        given = f"{sample.input:,} in, estimated {sample.estimated_input:,}"
        yield "tokens", f"{given}; {sample.output:,} out, estimated {sample.estimated_output:,}{without}"
    yield "cost", f"{show_cost(figures.outlook.spent, emulated=figures.emulated)} so far"
    yield "all rows", _all_rows(figures.outlook, sample.all)


def _judged(figures: Figures) -> Iterator[tuple[str, str]]:
    for each in figures.gold:
        if each["compared"]:
            share = f"{each['correct']:,} of {counted(each['compared'], 'row')} as in the column {each['column']}"
            yield "gold", printable(f"{each['field']}: {share} ({each['accuracy']:.1%})")


def _next(figures: Figures, sample: Sampled) -> str:
    return "the same command again, which waits for the sample" if sample.waiting else figures.commands["continue"]


def _all_rows(outlook: Outlook, everything: Extrapolation | None) -> str:
    if everything is None:
        return "nothing was measured, so nothing can be told"
    if everything.cost is None:
        tokens = f"about {_tokens(everything.input_tokens)} in, {_tokens(everything.output_tokens)} out"
        return f"no price: this model is not in the price table; {tokens}"
    if outlook.lowest is None or outlook.highest is None:
        return f"about {show_usd(outlook.total)}; so few answers tell no range"
    if outlook.lowest == outlook.highest:
        return f"{show_usd(outlook.total)}, all is answered"
    return f"about {show_usd(outlook.total)}, {show_usd(outlook.lowest)} to {show_usd(outlook.highest)}: {MEANING}"


def _tokens(span: Span) -> str:
    return f"{span.expected:,}"
