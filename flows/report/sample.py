"""What a sample says of all rows: `plan --sample`."""

from __future__ import annotations

from collections.abc import Iterator

from blocks.printable import counted
from flows.domain.money import show_cost, show_usd
from flows.report.figures import Figures


def sample_text(figures: Figures, next_command: str) -> str:
    """A few lines for people. `next_command` sends the rest."""
    return "\n".join(f"{name:11}{text}" for name, text in _lines(figures, next_command))


def _lines(figures: Figures, next_command: str) -> Iterator[tuple[str, str]]:
    tally, outlook, foretold = figures.tally, figures.outlook, figures.foretold
    failed = f", {tally.failed:,} failed" if tally.failed else ""
    waiting = tally.wanted - tally.answered - tally.failed
    out = f", {waiting:,} without an answer yet" if waiting else ""
    came = f"{tally.answered:,} answered{failed}{out}"
    yield "sampled", f"{tally.wanted:,} of {counted(figures.requests, 'request')}, by chance: {came}"
    if foretold.answered:
        planned = foretold.estimate
        yield (
            "tokens",
            (
                f"{foretold.input_tokens:,} in, {planned.input_tokens:,} were planned; "
                f"{foretold.output_tokens:,} out, {planned.output_tokens:,} were guessed"
            ),
        )
    yield "cost", f"{show_cost(outlook.spent, emulated=figures.emulated)} so far"
    yield "all rows", _all_rows(figures)
    for each in figures.gold:
        if each["compared"]:
            share = f"{each['correct']:,} of {each['compared']:,} as in {each['column']} ({each['accuracy']:.1%})"
            yield "gold", f"{each['field']}: {share}"
    yield "go on", next_command


def _all_rows(figures: Figures) -> str:
    outlook = figures.outlook
    if outlook.total is None:
        return "unpriced: this model is not in the price table"
    if outlook.lowest is None or outlook.highest is None:
        return f"about {show_usd(outlook.total)}; fewer than 30 answers tell no range"
    low, high = show_usd(outlook.lowest), show_usd(outlook.highest)
    return f"about {show_usd(outlook.total)}, {low} to {high} in 95 of 100 cases"
