"""The state of an output, from its state directory alone: the command `status`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from blocks.errors import BatchwerkError, UsageError
from blocks.printable import counted, printable
from flows.domain.batches import State
from flows.domain.budget import BudgetUse
from flows.domain.estimate import Outlook
from flows.domain.ledger import Ledger, replay
from flows.domain.money import show_usd
from flows.engine.budgets import monthly_uses
from flows.engine.clients import read_spec
from flows.report.figures import budgets_usd, range_usd, usd
from flows.report.forecast import outlook_of
from flows.report.progress import money_words
from flows.spec import Spec
from flows.storage.journal import read_events
from flows.storage.plan import checked_generations, wanted_requests
from flows.storage.requests import FrozenRequests
from flows.storage.state import StateDirectory, read_json

MEMORY = "100MB"  # for joining what the rows ask for


@dataclass(frozen=True)
class Status:
    """The state of an output."""

    output: Path
    run: dict[str, Any]
    ledger: Ledger
    published: dict[str, Any]
    outlook: Outlook | None = None  # while something is still to come, as far as it can be told
    emulated: bool = False  # whose answers that is about
    budgets: Sequence[BudgetUse] = ()  # of the month

    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "output": str(self.output),
            "run": self.run["id"],
            "input": self.run["input"],
            "statuses": self.published.get("statuses", {}),
            "complete": bool(self.published.get("complete", False)),
            "requests": self.ledger.frozen,
            "batches": dict(Counter(str(batch.state) for batch in self.ledger.batches.values())),
            "with_provider": sum(batch.requests for batch in self.ledger.in_state(State.SUBMITTED)),
            "final_failures": sum(piece.requests for piece in self.ledger.final),
            "total_cost_usd": usd(self.ledger.spent()),
            "emulated_usd": usd(self.ledger.spent(emulated=True)),
            "under_way": sum(batch.requests for batch in self.ledger.in_flight()),
            "under_way_usd": usd(self.outlook.under_way) if self.outlook else None if self.ledger.in_flight() else 0,
            "expected_usd": usd(self.outlook.total) if self.outlook else None,
            "expected_range_usd": range_usd(self.outlook) if self.outlook else None,
            "budgets": budgets_usd(self.budgets),
            "exit": 0,
        }

    def text(self) -> str:
        """For people."""
        found = self.summary()
        batches = ", ".join(f"{count} {state}" for state, count in found["batches"].items()) or "none"
        rows = ", ".join(f"{count:,} {status}" for status, count in found["statuses"].items()) or "not published yet"
        emulated = self.ledger.spent(emulated=True)
        trial = [f"emulated   {show_usd(emulated)} for the emulator's answers, not billed"] if emulated != 0 else []
        return "\n".join(
            [
                f"output     {printable(str(self.output))}{'' if found['complete'] else ' (not complete)'}",
                f"input      {printable(str(found['input']))}",
                f"rows       {rows}",
                f"requests   {found['requests']:,} in total, {found['with_provider']:,} with the provider now",
                f"batches    {batches}",
                f"cost       {self._cost()}",
                *trial,
                *(f"budget     {use.title}: {use.words()}" for use in self.budgets),
            ]
        )

    def _cost(self) -> str:
        """What batches that are under way will add is never left out."""
        if self.outlook is not None:
            return money_words(self.outlook, emulated=self.emulated)
        if not self.ledger.in_flight():
            return f"{show_usd(self.ledger.spent())} so far"
        requests = counted(sum(batch.requests for batch in self.ledger.in_flight()), "request")
        return f"{show_usd(self.ledger.spent())} so far, {requests} under way at an unknown price"


def read_status(output: Path) -> Status:
    """Read the state of an output, even while a run works on it. Raises UsageError if there is none."""
    state = StateDirectory(output)
    run = state.read_run()
    if run is None:
        raise UsageError(f"{output} was not written by Batchwerk", next_step="pass the OUTPUT that was given to `run`")
    published = read_json(state.published) if state.published.exists() else {}
    ledger = replay(read_events(state.journal))
    budgets = _budgets(state, str(run["id"]), ledger)
    if published.get("complete") and not ledger.in_flight():
        return Status(output, run, ledger, published, budgets=budgets)
    return Status(output, run, ledger, published, *_outlook(state, ledger), budgets)


def _budgets(state: StateDirectory, run_id: str, ledger: Ledger) -> Sequence[BudgetUse]:
    """What is taken of the month's budget; a run's own says little between two runs."""
    try:
        return monthly_uses(state, run_id, ledger)
    except (BatchwerkError, OSError, LookupError, TypeError, ValueError):
        return ()


def _outlook(state: StateDirectory, ledger: Ledger) -> tuple[Outlook | None, bool]:
    """And whether it is about the emulator's answers.

    None if the files that it takes are missing or damaged: a run says so, this only looks.
    """
    try:
        spec = _spec(state, ledger)
        requests = FrozenRequests(checked_generations(state.requests, ledger.generations))
        with TemporaryDirectory(prefix="batchwerk-status-") as scratch:
            wanted = wanted_requests(state.rows, MEMORY, Path(scratch))
        return outlook_of(spec, ledger, wanted, requests), spec.connection.emulated
    except (BatchwerkError, OSError, pa.ArrowInvalid, LookupError, TypeError, ValueError):
        return None, False


def _spec(state: StateDirectory, ledger: Ledger) -> Spec:
    """What the batches that are under way were sent under, else what the last run was to send."""
    under_way = ledger.in_flight()
    return read_spec(state, under_way[-1].spec) if under_way else Spec.from_content(state.last_spec())
