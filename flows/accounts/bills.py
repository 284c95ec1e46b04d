"""The command `reconcile`: the books of outputs against a usage export of their provider."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from blocks.errors import StateError, UsageError
from blocks.printable import NAMES, counted, printable
from flows.accounts.usage_exports import Export, merged, read_export, span
from flows.domain.batches import IN_FLIGHT, Batch, State
from flows.domain.ledger import replay
from flows.domain.money import show_usd, to_usd
from flows.domain.prices import names_of
from flows.domain.reconciliation import ALL, Amounts, BookedBatch, Comparison, Reconciliation, reconcile
from flows.spec import Spec
from flows.storage.journal import read_events
from flows.storage.roots import check_inside
from flows.storage.state import StateDirectory, read_json

COUNTS = ("requests", "input_tokens", "output_tokens")


@dataclass(frozen=True)
class Reconciled:
    """A comparison in words."""

    found: Reconciliation
    days: tuple[date, date]
    left_out: int  # entries of the export that are not about batches

    @property
    def exit(self) -> int:
        """The exit status: 1 if something differs by more than is allowed, or is not ours."""
        return self.found.exit

    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "from": self.days[0].isoformat(),
            "to": self.days[1].isoformat(),
            "lines": [self._line(line) for line in self.found.lines],
            "foreign_batches": [line.batch for line in self.found.foreign],
            "unbilled_batches": [f"{batch.output}: {batch.number}" for batch in self.found.unbilled],
            "batches_on_other_days": self.found.outside,
            "entries_left_out": self.left_out,
            "tolerance": float(self.found.tolerance),
            "exit": self.exit,
        }

    def _line(self, line: Comparison) -> dict[str, Any]:
        return {
            "model": line.model,
            "from": line.first.isoformat(),
            "to": line.last.isoformat(),
            "ours": _amounts(line.ours),
            "theirs": _amounts(line.theirs),
            "difference": _amounts(line.difference),
            "not_settled": line.uncertain,
            "foreign_requests": line.foreign_requests,
            "over": line.is_over(self.found.tolerance),
        }

    def text(self) -> str:
        """For people: every line that differs, and how many do not."""
        found = self.found
        differ = [line for line in found.lines if any(line.difference.values())]
        lines = [text for line in differ for text in self._words(line)]
        lines += [
            f"batch {printable(str(each.batch))} of {each.day} is on the bill and in no book" for each in found.foreign
        ]
        lines += [
            f"batch {each.number} of {printable(each.output)} ({', '.join(each.ids)}) is not on the bill"
            for each in found.unbilled
        ]
        if found.outside:
            lines.append(f"{counted(found.outside, 'batch', 'batches')} of ours ran on days that the export lacks")
        if self.left_out:
            lines.append(f"{counted(self.left_out, 'entry', 'entries')} left out: no batches, or no tokens")
        equal, over = len(found.lines) - len(differ), len(found.over)
        verdict = "the books agree" if not self.exit else "THE BOOKS DO NOT AGREE"
        lines.append(
            f"{self.days[0]} to {self.days[1]}: {counted(equal, 'line is', 'lines are')} equal, {len(differ)} differ, "
            f"{over} by more than {float(found.tolerance):.2%} or by requests that are not ours; {verdict}"
        )
        return "\n".join(lines)

    def _words(self, line: Comparison) -> Iterator[str]:
        model = "all models" if line.model == ALL else printable(line.model)
        period = f"{line.first}" if line.first == line.last else f"{line.first} to {line.last}"
        mark = "DIFFERS" if line.is_over(self.found.tolerance) else "differs"
        yield f"{model}, {period}: {mark}"
        for name, our, their, more in zip(
            COUNTS, line.ours.values(), line.theirs.values(), line.difference.values(), strict=False
        ):
            if more:
                yield f"    {name.replace('_', ' ')}: {our:,} here, {their:,} billed, {more:+,}"
        if line.difference.cost:
            yield f"    cost: {show_usd(line.ours.cost)} here, {show_usd(line.theirs.cost)} billed"
        if line.uncertain:
            yield f"    {counted(line.uncertain, 'request')} of ours may be billed and is not settled yet"
        if line.foreign_requests:
            yield f"    {counted(line.foreign_requests, 'request')} of nobody here"


def _amounts(amounts: Amounts) -> dict[str, Any]:
    counts = dict(zip(COUNTS, amounts.values(), strict=False))
    return {**counts, "cost_usd": None if amounts.cost is None else float(to_usd(amounts.cost))}


def reconcile_outputs(outputs: Sequence[Path], usage: Sequence[Path], tolerance: Decimal) -> Reconciled:
    """Compare the books of these outputs, all of one key, with the files of one bill."""
    check_inside([*outputs, *usage])
    bill: Export = merged(read_export(path) for path in usage)
    days = span(bill)
    booked = [batch for output in dict.fromkeys(outputs) for batch in read_books(output, days[1])]
    _check_one_provider(booked)
    return Reconciled(reconcile([batch for _, batch in booked], bill.lines, days, tolerance), days, bill.left_out)


def _check_one_provider(booked: Sequence[tuple[str, BookedBatch]]) -> None:
    providers = sorted({provider for provider, _ in booked})
    if len(providers) > 1:
        raise UsageError(
            f"the outputs were answered by {' and '.join(providers[:NAMES])}",
            next_step="reconcile the outputs of one provider at a time, with its own export",
        )


def read_books(output: Path, until: date) -> Iterator[tuple[str, BookedBatch]]:
    """Each batch that was sent to a real provider, with the provider's name; what is open is counted up to a day."""
    state = StateDirectory(output)
    if state.read_run() is None:
        raise UsageError(f"{output} was not written by Batchwerk", next_step="pass the OUTPUT that was given to `run`")
    specs: dict[str, Spec] = {}
    for batch in replay(read_events(state.journal)).batches.values():
        if batch.emulated or batch.state is State.REFUSED or not batch.spec:
            continue
        if batch.spec not in specs:
            specs[batch.spec] = _read_spec(state.spec(batch.spec))
        spec = specs[batch.spec]
        yield spec.connection.provider, _book(output, batch, names_of(spec.model)[1], until)


def _read_spec(path: Path) -> Spec:
    try:
        return Spec.from_content(read_json(path))
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"{path} is damaged: {error!r}", next_step="restore the state from a backup") from error


def _book(output: Path, batch: Batch, model: str, until: date) -> BookedBatch:
    result, requests = batch.result, batch.requests * (1 + len(batch.copies))
    if result is None:
        amounts, uncertain = Amounts(0, 0, 0, 0), requests if batch.state in IN_FLIGHT and not batch.failed else 0
    else:
        amounts = Amounts(result.metered, result.input_tokens, result.output_tokens, result.cost)
        uncertain = requests if batch.gone or batch.lost else result.unmetered
    last = datetime.fromtimestamp(batch.ended_at, UTC).date() if batch.ended_at else max(batch.sent_on, until)
    ids = (batch.id, *batch.copies) if batch.id is not None else batch.copies
    return BookedBatch(
        str(output), batch.number, ids, model, batch.sent_on, max(batch.sent_on, last), amounts, uncertain
    )
