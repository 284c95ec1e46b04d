"""The price table against `genai-prices`, which others maintain: the command `prices check`.

A difference is explained if the note of our row names `genai-prices` and what it says, such as `input 2`. So a note
explains what it was written for and nothing that changes later.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib import metadata
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

from blocks.errors import UsageError
from blocks.printable import counted
from flows.domain.price_rows import KINDS, PriceRow

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo

PACKAGE = "genai-prices"
THEIR_NAMES = {"gemini": "google"}  # of providers
THEIR_KINDS = dict(
    zip(KINDS, ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok"), strict=True)
)
CONTEXTS: dict[str, dict[str, str]] = {
    "standard": {},
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}

_Lists = Mapping[date, Mapping[int, PriceRow]]  # of one model and service: first day → tier → row


@dataclass(frozen=True, slots=True)
class Difference:
    """One price that the two state differently on a day, for requests with more than `above` input tokens."""

    row: PriceRow
    day: date
    above: int
    kind: str
    ours: Decimal | None
    theirs: Decimal

    @property
    def explained(self) -> bool:
        """Whether the note of our row says what they have."""
        said = re.search(rf"\b{self.kind} {re.escape(f'{self.theirs.normalize():f}')}(?!\.?\d)", self.row.note)
        return PACKAGE in self.row.note and said is not None

    def text(self) -> str:
        """The two prices."""
        above = f" above {self.above:,} input tokens" if self.above else ""
        ours = "nothing" if self.ours is None else f"{self.ours:f}"
        return f"{self.kind}{above} on {self.day}: {ours} here, {self.theirs.normalize():f} there"


@dataclass(frozen=True)
class PriceCheck:
    """What came of a comparison."""

    version: str
    models: int  # that both know
    compared: int  # prices
    differences: list[Difference]

    @property
    def exit(self) -> int:
        """The exit status: 1 if a difference is not explained."""
        return int(any(not each.explained for each in self.differences))

    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        found = [
            {**each.row.fields(), "difference": each.text(), "explained": each.explained} for each in self.differences
        ]
        return {
            "genai_prices": self.version,
            "models": self.models,
            "compared": self.compared,
            "differences": found,
            "exit": self.exit,
        }

    def text(self) -> str:
        """For people: the differences of each row with its note, those that are not explained last."""
        lines: list[str] = []
        for explained in (True, False):
            found = [each for each in self.differences if each.explained is explained]
            for (provider, model, service, *_), each in groupby(found, lambda each: each.row.place):
                differ = list(each)
                note = differ[0].row.note if explained else "NOT EXPLAINED by its note"
                lines += [f"{provider} {model} {service}: {note}", *(f"    {one.text()}" for one in differ)]
        compared = f"{counted(self.compared, 'price')} of {counted(self.models, 'model')}"
        differ_in_all = counted(len(self.differences), "differs", "differ")
        return "\n".join([*lines, f"{compared} compared with {PACKAGE} {self.version}: {differ_in_all}"])


def check_prices(rows: Sequence[PriceRow]) -> PriceCheck:
    """Compare all prices that both state. Raises UsageError if the package is not installed."""
    models: dict[tuple[str, str], list[PriceRow]] = defaultdict(list)
    for row in rows:
        models[row.provider, row.model].append(row)
    known, compared = 0, 0
    differences: dict[tuple[Any, ...], Difference] = {}  # the first day on which each was seen
    for (provider, name), ours in models.items():
        theirs = _their_model(provider, name)
        known += theirs is not None
        for each in _compare(ours, theirs) if theirs is not None else ():
            compared += 1
            if each.ours != each.theirs:
                differences.setdefault((each.row.place, each.above, each.kind, each.theirs), each)
    return PriceCheck(metadata.version(PACKAGE), known, compared, list(differences.values()))


def _their_model(provider: str, model: str) -> ModelInfo | None:
    try:
        from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415  # optional, and a second to import
    except ImportError as error:
        raise UsageError(f"{PACKAGE} is not installed", next_step=f"install it: pip install {PACKAGE}") from error
    try:
        return get_snapshot().find_provider_model(model, None, THEIR_NAMES.get(provider, provider), None)[1]
    except LookupError:
        return None


def _compare(rows: Iterable[PriceRow], theirs: ModelInfo) -> Iterator[Difference]:
    """Every price that both state, on each day on which one of them may have begun to differ."""
    services: dict[str, dict[date, dict[int, PriceRow]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        services[row.service][row.since][row.above] = row
    for service, lists in services.items():
        for day in sorted({*_our_days(lists), *_their_days(theirs)}):
            held = [since for since in lists if since <= day]
            prices = _their_prices(theirs, service, day)
            if held and prices:
                yield from _compare_day(lists[max(held)], prices, day)


def _compare_day(tiers: Mapping[int, PriceRow], prices: Mapping[str, Any], day: date) -> Iterator[Difference]:
    starts = {tier.start for price in prices.values() for tier in getattr(price, "tiers", ())}
    for above in sorted({*tiers, *starts}):
        row = tiers[max(tier for tier in tiers if tier <= above)]
        for kind, price in prices.items():
            yield Difference(row, day, above, kind, row.prices.get(kind), _price_above(price, above))


def _price_above(price: Any, above: int) -> Decimal:
    """Their price for requests with more input tokens than this."""
    tiers = [tier for tier in getattr(price, "tiers", ()) if tier.start <= above]
    return Decimal(tiers[-1].price if tiers else getattr(price, "base", price))


def _their_prices(model: ModelInfo, service: str, day: date) -> dict[str, Any]:
    """By kind; nothing if they state none for this service on this day, where they would take the standard price."""
    at, context = datetime(day.year, day.month, day.day, tzinfo=UTC), CONTEXTS[service]
    variants = [each for each in model.price_variants or () if each.when == context]
    if context and not any(each.constraint is None or each.constraint.active(at) for each in variants):
        return {}
    stated = model.get_prices(at, context)
    prices = {kind: getattr(stated, name) for kind, name in THEIR_KINDS.items()}
    return {kind: price for kind, price in prices.items() if price is not None}


def _our_days(lists: _Lists) -> Iterator[date]:
    """A day on which each list holds: its last one, or that on which the newest was checked."""
    starts = sorted(lists)
    yield from (following - timedelta(days=1) for _, following in pairwise(starts))
    newest = starts[-1]
    yield max(newest, *(date.fromisoformat(row.checked) for row in lists[newest].values() if row.checked))


def _their_days(model: ModelInfo) -> Iterator[date]:
    """The days on which their prices change."""
    conditional = model.prices if isinstance(model.prices, list) else []
    for each in [*conditional, *(model.price_variants or ())]:
        if isinstance(start := getattr(each.constraint, "start_date", None), date):
            yield start
