"""Looking without touching: what a run would do (`plan`), and where an output stands (`status`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from blocks.errors import UsageError
from flows.domain.actions import cut_batches
from flows.domain.estimate import Estimate
from flows.domain.ledger import Ledger, replay
from flows.domain.money import show_usd
from flows.domain.pacing import auto_batch_size
from flows.domain.ranges import Ranges
from flows.garbage import searched_rarely
from flows.preflight import Checked
from flows.report.figures import estimate_backlog, usd
from flows.storage.journal import read_events
from flows.storage.plan import Plan, generations, read_plan, wanted_requests
from flows.storage.planner import make_plan
from flows.storage.requests import FrozenRequests
from flows.storage.state import StateDirectory, read_json


@dataclass(frozen=True)
class Outline:
    """What a run would send, and what that would cost."""

    plan: Plan
    estimate: Estimate
    batches: int
    model: str
    emulated: bool

    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "rows": self.plan.rows,
            "skipped": self.plan.skipped,
            "unsendable": self.plan.unsendable,
            "first_problem": self.plan.first_problem,
            "requests": self.plan.requests,
            "deduplicated": self.plan.duplicates,
            "to_send": self.estimate.requests,
            "batches": self.batches,
            "input_tokens": self.estimate.input_tokens,
            "output_tokens": self.estimate.output_tokens,
            "estimate_usd": usd(self.estimate.cost),
            "single_estimate_usd": usd(self.estimate.single_cost),
            "model": self.model,
            "first_prompt": self.plan.first_prompt,
            "exit": 0,
        }

    def text(self) -> str:
        """For people."""
        plan, estimate = self.plan, self.estimate
        unsendable = f", {plan.unsendable:,} can't be sent" if plan.unsendable else ""
        lines = [
            f"rows       {plan.rows:,} of {plan.total_rows:,} ({plan.skipped:,} skipped{unsendable})",
            f"requests   {plan.requests:,} distinct ({plan.duplicates:,} rows share another row's)",
            f"to send    {estimate.requests:,}, batches: {self.batches:,}",
            f"tokens     about {estimate.input_tokens:,} in, {estimate.output_tokens:,} out ({self.model})",
            f"cost       about {show_usd(estimate.cost)}, {show_usd(estimate.single_cost)} as single requests",
        ]
        if plan.first_problem is not None:
            lines.insert(1, f"           {plan.first_problem}")
        if estimate.cost is None:
            lines[-1] = "cost       unpriced: the price table lacks this model"
        if self.emulated:
            lines.append("           the emulator answers, nothing is billed")
        if plan.first_prompt is not None:
            lines += ["", "first prompt:", plan.first_prompt]
        return "\n".join(lines)


def outline(checked: Checked) -> Outline:
    """Plan beside the state, not in it. Nothing is sent, nothing is kept."""
    state = checked.state
    ledger = replay(read_events(state.journal))
    with searched_rarely(), TemporaryDirectory(prefix="batchwerk-plan-") as scratch:
        plan, rows = read_plan(state.rows, checked.question), state.rows
        frozen = generations(state.requests)
        new = Path(scratch) / "requests"
        new.mkdir()
        if plan is None:
            rows = Path(scratch) / "rows.pq"
            plan = make_plan(checked.question, frozen, new, rows, checked.settings.memory_limit)
        wanted = wanted_requests(rows, checked.settings.memory_limit) if plan.requests else Ranges()
        requests = FrozenRequests([*frozen, *generations(new)])
        expected = estimate_backlog(checked, plan, ledger, wanted, requests)
        size = checked.settings.batch_size
        most = checked.terms.limits.max_requests
        rows_a_batch = auto_batch_size(ledger, most) if size == "auto" else min(size, most)
        batches = sum(
            1 for _ in cut_batches(ledger.backlog(wanted), requests, rows_a_batch, checked.terms.limits.max_bytes)
        )
    return Outline(plan, expected, batches, checked.terms.model, checked.terms.connection.emulated)


@dataclass(frozen=True)
class Standing:
    """Where an output stands, from its state directory alone."""

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
            "with_provider": sum(batch.requests for batch in self.ledger.in_flight()),
            "final_failures": sum(part.requests for part in self.ledger.final),
            "total_cost_usd": usd(self.ledger.spent()),
            "exit": 0,
        }

    def text(self) -> str:
        """For people."""
        found = self.summary()
        batches = ", ".join(f"{count} {state}" for state, count in found["batches"].items()) or "none"
        rows = ", ".join(f"{count:,} {status}" for status, count in found["statuses"].items()) or "not published yet"
        return "\n".join(
            [
                f"output     {self.output}{'' if found['complete'] else ' (not complete)'}",
                f"input      {found['input']}",
                f"rows       {rows}",
                f"requests   {found['requests']:,} ever, {found['with_provider']:,} with the provider now",
                f"batches    {batches}",
                f"cost       {show_usd(self.ledger.spent())} so far",
            ]
        )


def standing(output: Path) -> Standing:
    """Read where an output stands; the run that works on it, if any, is not disturbed."""
    state = StateDirectory(output)
    run = state.read_run()
    if run is None:
        raise UsageError(f"{output} was not written by Batchwerk", next_step="name the OUTPUT that you gave to `run`")
    published = read_json(state.published) if state.published.exists() else {}
    return Standing(output, run, replay(read_events(state.journal)), published)
