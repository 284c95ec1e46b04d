"""What a run would do: the command `plan`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from blocks.connections import missing_key
from blocks.printable import counted, printable, printable_lines
from flows.domain.estimate import Estimate
from flows.domain.ledger import Ledger, replay
from flows.domain.money import show_usd
from flows.domain.ranges import Ranges
from flows.domain.sizing import batch_limit, cut_batches
from flows.engine.memory import rare_garbage_collection
from flows.preflight import RunConfig
from flows.report.figures import usd
from flows.report.forecast import estimate_unsent
from flows.storage.journal import read_events
from flows.storage.plan import Plan, checked_generations, read_plan, wanted_requests
from flows.storage.planner import make_plan
from flows.storage.requests import FrozenRequests

SHOWN_PROMPT = 10_000  # characters of the first prompt


@dataclass(frozen=True)
class Preview:
    """What a run would send, and what that would cost."""

    plan: Plan
    estimate: Estimate
    batches: int
    model: str
    emulated: bool
    missing_key: str | None = None  # the variable that a run needs and that is not set

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
            "input_tokens_spread": list(self.plan.spread),
            "output_tokens": self.estimate.output_tokens,
            "estimate_usd": usd(self.estimate.cost),
            "single_estimate_usd": usd(self.estimate.single_cost),
            "ceiling_usd": usd(self.estimate.ceiling),
            "counted_with": self.plan.counted_with,
            "model": self.model,
            "missing_key": self.missing_key,
            "first_prompt": self.plan.first_prompt,
            "exit": 0,
        }

    def text(self) -> str:
        """For people."""
        plan, estimate = self.plan, self.estimate
        unsendable = f", {plan.unsendable:,} can't be sent" if plan.unsendable else ""
        sharing = counted(plan.duplicates, "row shares", "rows share")
        lines = [
            f"rows       {plan.rows:,} of {plan.total_rows:,} ({plan.skipped:,} skipped{unsendable})",
            f"requests   {plan.requests:,} distinct ({sharing} another row's)",
            f"to send    {estimate.requests:,}, batches: {self.batches:,}",
            f"tokens     {self._tokens()} ({printable(self.model)})",
            f"cost       about {show_usd(estimate.cost)}, {show_usd(estimate.single_cost)} as single requests",
        ]
        if estimate.ceiling is not None:
            lines.append(f"           {show_usd(estimate.ceiling)} if every answer is as long as the job allows")
        if plan.first_problem is not None:
            lines.insert(1, f"           {printable(plan.first_problem)}")
        if estimate.cost is None:
            lines[-1] = "cost       unpriced: this model is not in the price table"
        if self.emulated:
            lines.append("           the emulator answers; nothing is billed")
        if self.missing_key is not None:
            lines.append(f"key        {self.missing_key} is not set: `run` needs it, a plan does not")
        if plan.first_prompt is not None:
            lines += ["", "first prompt:", printable_lines(plan.first_prompt[:SHOWN_PROMPT])]
            if len(plan.first_prompt) > SHOWN_PROMPT:
                lines.append(f"… and {counted(len(plan.first_prompt) - SHOWN_PROMPT, 'character')} more")
        return "\n".join(lines)

    def _tokens(self) -> str:
        """Input tokens are exact where they were counted with the model's vocabulary, answers are never."""
        counted, tokens = self.plan.counted_with, self.estimate
        if counted is None:
            least, most = (f"{round(tokens.input_tokens * factor, -1):,.0f}" for factor in self.plan.spread)
            return f"about {tokens.input_tokens:,} in ({least} to {most}), {tokens.output_tokens:,} out"
        return f"{tokens.input_tokens:,} in by {counted}, about {tokens.output_tokens:,} out"


@dataclass(frozen=True)
class Planned:
    """A plan whose requests can be read, as long as its folder is there."""

    config: RunConfig
    plan: Plan
    ledger: Ledger
    wanted: Ranges
    requests: FrozenRequests


@contextmanager
def planning(config: RunConfig) -> Iterator[Planned]:
    """Plan in a temporary folder, not in the state directory. Nothing is sent, nothing is kept."""
    state, memory = config.state, config.settings.memory_limit
    ledger = replay(read_events(state.journal))
    with TemporaryDirectory(prefix="batchwerk-plan-") as scratch:
        with rare_garbage_collection():
            plan, rows = read_plan(state.rows, config.question, ledger.plan), state.rows
            frozen = checked_generations(state.requests, ledger.generations)
            new = Path(scratch) / "requests"
            new.mkdir()
            if plan is None:
                rows = Path(scratch) / "rows.pq"
                plan = make_plan(config.question, frozen, new, rows, memory)
            wanted = wanted_requests(rows, memory, Path(scratch)) if plan.requests else Ranges()
            requests = FrozenRequests([*frozen, *new.iterdir()])
        yield Planned(config, plan, ledger, wanted, requests)


def preview_of(planned: Planned) -> Preview:
    """What a run would send of a plan."""
    config, plan, ledger = planned.config, planned.plan, planned.ledger
    wanted, requests = planned.wanted, planned.requests
    limit = batch_limit(config.settings.batch_size, config.spec.limits, ledger, plan.tokens_per_byte)
    return Preview(
        plan=plan,
        estimate=estimate_unsent(config.spec, ledger, wanted, requests),
        batches=sum(1 for _ in cut_batches(ledger, wanted, requests, limit)),
        model=config.spec.model,
        emulated=config.spec.connection.emulated,
        missing_key=missing_key(config.settings.provider),
    )


def preview(config: RunConfig) -> Preview:
    """What a run would send. Nothing is sent, nothing is kept."""
    with planning(config) as planned:
        return preview_of(planned)
