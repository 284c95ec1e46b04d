"""What a run may spend: its own budget, and one that a month has, for its output or for all that share a name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from flows.domain.batches import Batch
from flows.domain.budget import Budget, Ceiling
from flows.domain.events import Slice
from flows.domain.money import from_usd
from flows.domain.sizing import Sizes
from flows.engine.recorder import now
from flows.preflight import RunConfig
from flows.storage.budgets import SharedBudget
from flows.storage.requests import FrozenRequests

MONTHLY = "the same command goes on next month, or with a larger --monthly-budget"


@dataclass(frozen=True, kw_only=True)
class SpendingLimits:
    """The budgets of a run. What is decided under them is kept where others see it before they decide."""

    sizes: Sizes
    run: Budget | None = None
    month: Budget | None = None  # since when is said anew with each decision: a run may outlast a month
    shared: SharedBudget | None = None

    @contextmanager
    def deciding(self) -> Iterator[tuple[Budget, ...]]:
        """The budgets as they are now; meanwhile no other output decides under the same name."""
        own = () if self.run is None else (self.run,)
        if self.month is None:
            yield own
            return
        begins = _beginning_of_month(now())
        month = replace(self.month, since=begins.timestamp())
        if self.shared is None:
            yield (*own, month)
            return
        with self.shared.locked(f"{begins:%Y-%m}") as elsewhere:
            yield (*own, replace(month, elsewhere=elsewhere))

    def keep(self, budgets: Sequence[Budget], batches: Iterable[Batch], new: Sequence[list[Slice]]) -> None:
        """Note what this output has spent or may be billed, with the batches that were just decided on."""
        if self.shared is None:
            return
        month = budgets[-1]
        decided = sum(month.ceiling.of(slices, self.sizes) for slices in new)
        self.shared.note(month.committed(batches, self.sizes) + decided)


def spending_limits(config: RunConfig, requests: FrozenRequests) -> SpendingLimits:
    """Those of a run; what they need was checked before."""
    spec, settings, longest = config.spec, config.settings, config.spec.form.max_output_tokens
    if spec.price is None or longest is None:
        return SpendingLimits(sizes=requests)
    ceiling = Ceiling(spec.price.rates_from(now().date(), requests.largest), longest, requests.largest)
    emulated, name = spec.connection.emulated, settings.budget_name
    run, month = settings.budget, settings.monthly_budget
    what = "the monthly budget" if name is None else f"the monthly budget {name}"
    return SpendingLimits(
        sizes=requests,
        run=None if run is None else Budget(from_usd(run), config.state.began(), ceiling, emulated),
        month=None if month is None else Budget(from_usd(month), 0.0, ceiling, emulated, name=what, next_step=MONTHLY),
        shared=None if name is None else SharedBudget.of(name, settings.output, emulated=emulated),
    )


def _beginning_of_month(at: datetime) -> datetime:
    return at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
