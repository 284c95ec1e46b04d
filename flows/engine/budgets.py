"""The budgets of a run: its own, and that of the month, which several outputs may share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from blocks.errors import UsageError
from flows.domain.batches import Batch
from flows.domain.budget import Budget, BudgetUse, Ceiling, Month
from flows.domain.events import Slice
from flows.domain.ledger import Ledger
from flows.domain.money import from_usd
from flows.domain.sizing import Sizes
from flows.engine.clients import read_spec
from flows.engine.recorder import now
from flows.settings import Settings, read_settings
from flows.spec import Spec
from flows.storage.plan import checked_generations
from flows.storage.requests import FrozenRequests
from flows.storage.shared_budgets import SharedBudget
from flows.storage.state import StateDirectory

NEXT_MONTH = "the same command goes on next month (UTC), or now with a larger --monthly-budget"


@dataclass(frozen=True)
class Held:
    """The budgets as they are at one moment; until it is over nobody else takes from a shared one."""

    budgets: tuple[Budget, ...]
    month: Month
    shared: SharedBudget | None = None

    def reserve(self, batches: Iterable[Batch], new: Iterable[Sequence[Slice]], sizes: Sizes) -> None:
        """Keep what this output has taken of a shared budget, with new batches that are about to be reserved."""
        if self.shared is not None:
            monthly = self.budgets[-1]
            wanted = sum(monthly.ceiling.of(slices, sizes) for slices in new)
            self.shared.note(self.month, monthly.committed(batches, sizes) + wanted)


@dataclass(frozen=True)
class Budgets:
    """What a run may spend. Empty: as much as it takes."""

    own: Budget | None = None
    monthly: Budget | None = None
    shared: SharedBudget | None = None

    @contextmanager
    def held(self, at: float) -> Iterator[Held]:
        """The budgets at a time, in seconds since the epoch. Raises Busy or StateError for a shared one."""
        with nullcontext() if self.shared is None else self.shared.held():
            yield Held(self.at(at), Month.of(at), self.shared)

    def at(self, at: float) -> tuple[Budget, ...]:
        """As `held`, to look at them only."""
        monthly = [] if self.monthly is None else [self._of(Month.of(at), self.monthly)]
        return (*([] if self.own is None else [self.own]), *monthly)

    def _of(self, month: Month, monthly: Budget) -> Budget:
        name = "" if self.shared is None else f" {self.shared.name}"
        elsewhere = 0 if self.shared is None else self.shared.others(month)
        title = f"the monthly budget{name} ({month})"
        return replace(monthly, since=month.began, elsewhere=elsewhere, title=title)

    def uses(self, ledger: Ledger, sizes: Sizes) -> list[BudgetUse]:
        """How much of them is taken now."""
        return [budget.use(ledger.batches.values(), sizes) for budget in self.at(time.time())]

    def check(self, ledger: Ledger, spec: str) -> None:
        """Raises UsageError if a batch counts that may cost anything. `spec`: the name of the run's."""
        for budget in self.at(time.time()):
            if batch := budget.boundless(ledger.batches.values(), spec):
                raise UsageError(
                    f"{budget.title} can't be kept: what batch {batch.number} may cost is unknown, because its model "
                    "has no price or its job no max_output_tokens",
                    next_step="leave the budget out until it is collected, or start another output",
                )


def open_budgets(
    settings: Settings, spec: Spec, state: StateDirectory, run_id: str, ledger: Ledger, requests: FrozenRequests
) -> Budgets:
    """The budgets that the settings name; what they need of the job was checked before."""
    ceiling = _ceiling(spec, requests)
    if ceiling is None or (settings.budget is None and settings.monthly_budget is None):
        return Budgets()
    emulated = spec.connection.emulated
    earlier = _earlier(state, ledger, requests, spec)
    own = monthly = shared = None
    if settings.budget is not None:
        own = Budget(from_usd(settings.budget), state.began(), ceiling, emulated, earlier)
    if settings.monthly_budget is not None:
        since = Month.of(time.time()).began
        monthly = Budget(from_usd(settings.monthly_budget), since, ceiling, emulated, earlier, next_step=NEXT_MONTH)
        if settings.budget_name is not None:
            shared = SharedBudget(settings.budget_name, run_id, Path(state.output), emulated=emulated)
    return Budgets(own, monthly, shared)


def monthly_uses(state: StateDirectory, run_id: str, ledger: Ledger) -> list[BudgetUse]:
    """How much is taken of the month's budget that the last run had; nothing is written."""
    settings = read_settings({**state.last_settings(), "budget": None})
    if settings.monthly_budget is None:
        return []
    spec = Spec.from_content(state.last_spec())
    requests = FrozenRequests(checked_generations(state.requests, ledger.generations))
    return open_budgets(settings, spec, state, run_id, ledger, requests).uses(ledger, requests)


def _earlier(state: StateDirectory, ledger: Ledger, requests: FrozenRequests, spec: Spec) -> dict[str, Ceiling]:
    """The most that batches can cost which were sent with another model, job or price, as far as that has a bound."""
    others = {batch.spec for batch in ledger.batches.values()} - {"", spec.fingerprint}
    found = {name: _ceiling(read_spec(state, name), requests) for name in others}
    return {name: ceiling for name, ceiling in found.items() if ceiling is not None}


def _ceiling(spec: Spec, requests: FrozenRequests) -> Ceiling | None:
    """None if nobody can tell: without a price, or a limit of how long answers can be."""
    longest = spec.form.max_output_tokens
    if spec.price is None or longest is None:
        return None
    rates = spec.price.rates_from(now().date(), requests.largest)
    return Ceiling(rates, longest, requests.largest) if rates else None
