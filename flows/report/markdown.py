"""The report as markdown, the most important facts first."""

from __future__ import annotations

from collections.abc import Iterator

from blocks.printable import LONGEST_LINE, SHOWN, counted, printable
from flows.domain.money import show_cost, show_usd
from flows.domain.outcomes import Outcome
from flows.report.figures import Figures, less
from flows.report.sample import sample_lines
from flows.storage.output import FAILED, OK, PENDING, SKIPPED

SHOWN_PAIRS = 20  # of a label and an answer; report.json has more
MAX_BATCHES = 200  # lines of the batch table; report.json has all


def headline(figures: Figures) -> str:
    """One sentence: rows, requests, money."""
    rows = figures.rows
    parts = [f"{rows.get(OK, 0):,} of {counted(sum(rows.values()), 'row')} ok"]
    parts += [f"{rows[name]:,} {name}" for name in (FAILED, SKIPPED, PENDING) if rows.get(name)]
    cost = show_usd(figures.money.this_call)
    would = "would have cost" if figures.emulated else "cost"
    sent = f"this run sent {counted(figures.attempts, 'request')}, its answers {would} {cost}"
    return f"{', '.join(parts)}; {sent}{_of_the_other_kind(figures)}"


def _of_the_other_kind(figures: Figures) -> str:
    """What a run collected of another one, if that was a trial and this is not, or the reverse."""
    if figures.money.other_call == 0:
        return ""
    cost = show_usd(figures.money.other_call)
    if figures.emulated:
        return f"; it also collected answers of a real provider, which cost {cost}"
    return f"; it also collected answers of the emulator, which would have cost {cost} and were not billed"


def cost_table(figures: Figures) -> list[dict[str, str]]:
    """The costs and savings, one line each."""
    money = figures.money
    lines = [
        ("this run", money.this_call, "answers collected by this run"),
        ("estimated for this run", money.estimate, "before anything was sent"),
        ("this output in total", money.total, "all runs, all attempts"),
        *(
            []
            if money.listed in {None, money.total}
            else [("the same by the price list", money.listed, "without what was agreed")]
        ),
        *([("the provider's own sum", money.stated, f"{show_usd(money.cost_of_stated)} here")] if money.stated else []),
        ("the same as single requests", money.single, "at the provider's standard price"),
        ("saved by the batch price", less(money.single, money.total), ""),
        ("saved by de-duplication", money.shared, f"{_sharing(figures)} request"),
        *([("saved by the prompt cache", money.cached, "")] if money.cached else []),
        ("saved by reuse", money.reused, "answers collected before this run"),
        ("spent on useless answers", money.rejected, "billed, but invalid, cut off or refused"),
        ("spent on rows that left the input", money.elsewhere, ""),
    ]
    if money.other_total != 0:
        if figures.emulated:
            lines.append(("billed by real providers", money.other_total, "in no other line"))
        else:
            lines.append(("the emulator's answers", money.other_total, "would have cost this; in no other line"))
    return [{"what": what, "usd": show_usd(pico), "note": note} for what, pico, note in lines]


def markdown(figures: Figures) -> str:
    """The whole report."""
    return "\n".join(_lines(figures)) + "\n"


def code(text: object, most: int = SHOWN) -> str:
    """A text of others as code: no character of it is markup then, not even in the cell of a table."""
    shown = printable(str(text), most).replace("`", "'").replace("|", "/").strip()
    return f"`{shown}`" if shown else ""


def _lines(figures: Figures) -> Iterator[str]:
    yield f"# {code(figures.job)}: {code(figures.output)}"
    yield ""
    yield f"{headline(figures)}."
    if figures.message:
        yield ""
        yield f"**Not complete:** {code(' '.join(figures.message.split()), LONGEST_LINE)}"
    for note in figures.notes:
        yield ""
        yield f"**Note:** {code(note)}."
    if figures.emulated:
        yield ""
        yield "The embedded emulator answered: it is not a model, its answers mean nothing, and nothing was billed."
        yield f"The costs are what the price table says for this model at {figures.dialect}."
    yield from _rows(figures)
    yield from _sample(figures)
    yield from _gold(figures)
    yield from _costs(figures)
    yield from _batches(figures)


def _rows(figures: Figures) -> Iterator[str]:
    shown, all_rows = figures.selected
    yield ""
    yield "## Rows"
    yield ""
    yield "| rows | count |"
    yield "| --- | ---: |"
    for name in (OK, FAILED, SKIPPED, PENDING):
        yield f"| {name} | {figures.rows.get(name, 0):,} |"
    yield f"| all | {sum(figures.rows.values()):,}{f' of {all_rows:,} in the input' if shown != all_rows else ''} |"
    yield ""
    yield (
        f"{counted(figures.requests, 'distinct request')} ({_sharing(figures)}, "
        f"{counted(figures.reused, 'was', 'were')} answered before this run). Answers so far: "
        + (", ".join(f"{count:,} {name}" for name, count in figures.outcomes.items()) or "none")
        + "."
    )


def _sharing(figures: Figures) -> str:
    return f"{counted(figures.deduplicated, 'row shares', 'rows share')} another row's"


def _sample(figures: Figures) -> Iterator[str]:
    if figures.sample is None:
        return
    yield ""
    yield "## The sample"
    yield ""
    for name, text in sample_lines(figures, figures.sample):
        yield f"* {name}: {code(text, LONGEST_LINE)}"


def _gold(figures: Figures) -> Iterator[str]:
    for found in figures.gold:
        yield ""
        yield f"## {code(found['field'])} against {code(found['column'])}"
        yield ""
        if not found["compared"]:
            yield "No row has both an answer and a label."
            continue
        off = "" if found["mean_distance"] is None else f", off by {found['mean_distance']:.4g} on average"
        yield f"{found['correct']:,} of {counted(found['compared'], 'row')} agree ({found['accuracy']:.1%}){off}."
        yield (
            f"Left out: {found['rows_without_label']:,} without a label, {found['rows_without_answer']:,} without an "
            "answer."
        )
        yield ""
        yield "| label | answer | rows |"
        yield "| --- | --- | ---: |"
        for pair in found["confusion"][:SHOWN_PAIRS]:
            yield f"| {code(pair['label'])} | {code(pair['answer'])} | {pair['rows']:,} |"
        rest = found["rows_of_other_pairs"] + sum(pair["rows"] for pair in found["confusion"][SHOWN_PAIRS:])
        if rest:
            yield f"| other pairs | | {rest:,} |"
        yield ""
        for example in found["examples"]:
            said = "; ".join(f"{code(name)}: {code(text)}" for name, text in example["input"].items())
            yield (
                f"* row {example['row']:,} of {code(example['file'])}: {code(example['label'])} by people, "
                f"{code(example['answer'])} by the model. {said}"
            )


def _costs(figures: Figures) -> Iterator[str]:
    yield ""
    yield f"## Cost ({code(figures.model)} at {code(figures.provider)})"
    yield ""
    yield "| | USD | |"
    yield "| --- | ---: | --- |"
    for line in cost_table(figures):
        yield f"| {line['what']} | {line['usd']} | {line['note']} |"
    for use in figures.budgets:
        yield ""
        yield f"Of {use.title}: {use.words()}."
    yield ""
    cached = f" ({figures.cached_tokens:,} of them from a cache)" if figures.cached_tokens else ""
    yield f"Tokens of this run: {figures.input_tokens:,} in{cached}, {figures.output_tokens:,} out."
    gone = figures.outcomes.get(Outcome.GONE, 0)
    if gone:
        requests = counted(gone, "request was", "requests were")
        yield f"{requests} in batches that are gone or were given up: whether that was billed, and what, is unknown."
    lost = max(figures.lost, gone)
    if lost > gone:
        answers = counted(lost - gone, "answer")
        yield f"{answers} can't be read or were never returned: what that cost is unknown, and no part of these sums."
    if figures.unmetered > lost:
        answers = counted(figures.unmetered - lost, "answer")
        yield f"{answers} came without usage: what that cost is unknown, and no part of these sums."
    if figures.nameless:
        yield f"{counted(figures.nameless, 'result line names', 'result lines name')} no request."


def _batches(figures: Figures) -> Iterator[str]:
    yield ""
    yield "## Batches"
    yield ""
    yield "| batch | state | requests | ok | cost | sending s | provider s | collecting s | note |"
    yield "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    for line in figures.table[-MAX_BATCHES:]:
        times = " | ".join(_seconds(line[f"{name}_seconds"]) for name in ("sending", "provider", "collecting"))
        cost = show_cost(line["cost_usd"], emulated=line["emulated"]) if line["state"] == "collected" else ""
        counts = f"{line['requests']:,} | {line['ok']:,}"
        yield f"| {line['batch']} | {line['state']} | {counts} | {cost} | {times} | {code(line['note'])} |"
    if len(figures.table) > MAX_BATCHES:
        yield f"\nThe last {MAX_BATCHES} of {counted(len(figures.table), 'batch', 'batches')}; report.json has all."


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
