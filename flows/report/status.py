"""The state of an output, from its state directory alone: the command `status`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocks.errors import UsageError
from blocks.printable import printable
from flows.domain.batches import State
from flows.domain.ledger import Ledger, replay
from flows.domain.money import show_usd
from flows.report.figures import usd
from flows.storage.journal import read_events
from flows.storage.state import StateDirectory, read_json


@dataclass(frozen=True)
class Status:
    """The state of an output."""

    output: Path
    run: dict[str, Any]
    ledger: Ledger
    published: dict[str, Any]

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
                f"cost       {show_usd(self.ledger.spent())} so far",
                *trial,
            ]
        )


def read_status(output: Path) -> Status:
    """Read the state of an output, even while a run works on it. Raises UsageError if there is none."""
    state = StateDirectory(output)
    run = state.read_run()
    if run is None:
        raise UsageError(f"{output} was not written by Batchwerk", next_step="pass the OUTPUT that was given to `run`")
    published = read_json(state.published) if state.published.exists() else {}
    return Status(output, run, replay(read_events(state.journal)), published)
