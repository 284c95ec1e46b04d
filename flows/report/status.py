"""The state of an output, from its state directory alone: the command `status`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from blocks.errors import BatchwerkError, UsageError
from blocks.printable import counted, printable
from flows.domain.batches import State
from flows.domain.estimate import Outlook
from flows.domain.ledger import Ledger, replay
from flows.domain.money import show_usd
from flows.engine.clients import read_spec
from flows.report.figures import range_usd, usd
from flows.report.forecast import outlook_of
from flows.report.progress import money_words
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
    outlook: Outlook | None = None  # while batches are under way, as far as it can be told
    emulated: bool = False  # whose answers that is about

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
            ]
        )

    def _cost(self) -> str:
        """What batches that are under way will add is never left out."""
        if not self.ledger.in_flight():
            return f"{show_usd(self.ledger.spent())} so far"
        if self.outlook is None:
            requests = counted(sum(batch.requests for batch in self.ledger.in_flight()), "request")
            return f"{show_usd(self.ledger.spent())} so far, {requests} under way at an unknown price"
        return money_words(self.outlook, emulated=self.emulated)


def read_status(output: Path) -> Status:
    """Read the state of an output, even while a run works on it. Raises UsageError if there is none."""
    state = StateDirectory(output)
    run = state.read_run()
    if run is None:
        raise UsageError(f"{output} was not written by Batchwerk", next_step="pass the OUTPUT that was given to `run`")
    published = read_json(state.published) if state.published.exists() else {}
    ledger = replay(read_events(state.journal))
    open_batches = ledger.in_flight()
    emulated = bool(open_batches) and all(batch.emulated for batch in open_batches)
    return Status(output, run, ledger, published, _outlook(state, ledger) if open_batches else None, emulated)


def _outlook(state: StateDirectory, ledger: Ledger) -> Outlook | None:
    """None if the files that it takes are missing or damaged: a run says so, this only looks."""
    try:
        spec = read_spec(state, ledger.in_flight()[-1].spec)
        requests = FrozenRequests(checked_generations(state.requests, ledger.generations))
        with TemporaryDirectory(prefix="batchwerk-status-") as scratch:
            wanted = wanted_requests(state.rows, MEMORY, Path(scratch))
        return outlook_of(spec, ledger, wanted, requests)
    except (BatchwerkError, OSError, pa.ArrowInvalid):
        return None
