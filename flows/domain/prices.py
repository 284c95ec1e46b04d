"""What models cost: price lists by service and day, read from a table, and what one request costs by them.

A price list in force holds as a whole: all its tiers begin on the same day. Negotiated prices replace the table's for
their model and service from their own first day on. A price that nobody stated is None, never a guess.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from itertools import groupby
from operator import attrgetter

from blocks.batch import Usage
from flows.domain.price_rows import KINDS, PriceRow


class Service(StrEnum):
    """How a request is served, which its price depends on."""

    STANDARD = "standard"  # a single request
    BATCH = "batch"
    FLEX = "flex"  # a single request that may wait
    PRIORITY = "priority"


@dataclass(frozen=True, slots=True)
class Rates:
    """Pico-dollars per token."""

    input: int
    output: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int

    def cost(self, usage: Usage) -> int:
        """Pico-dollars of a request with this usage."""
        read, write_5m, write_1h = usage[2:5]
        if not (read or write_5m or write_1h):  # the usual case: no cache
            return usage[0] * self.input + usage[1] * self.output
        return (
            (usage[0] - read - write_5m - write_1h) * self.input
            + usage[1] * self.output
            + read * self.cache_read
            + write_5m * self.cache_write_5m
            + write_1h * self.cache_write_1h
        )


@dataclass(frozen=True, slots=True)
class Tier:
    """The rates of requests with more than `above` input tokens."""

    above: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class PriceList:
    """The tiers of a service from a day on, ascending by `above`."""

    since: date
    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True)
class DayPrice:
    """What a model costs on one day, by service. Each request is priced by itself, so that its own tier applies."""

    tiers: Mapping[Service, tuple[Tier, ...]]

    def rates(self, input_tokens: int, service: Service = Service.BATCH) -> Rates | None:
        """The rates of a request with this many input tokens; None: unpriced."""
        tiers = self.tiers.get(service)
        if tiers is None:
            return None
        chosen = tiers[0]
        for tier in tiers[1:]:
            if input_tokens > tier.above:
                chosen = tier
        return chosen.rates

    def cost(self, usage: Usage, service: Service = Service.BATCH) -> int | None:
        """Pico-dollars of a request with this usage; None: unpriced."""
        rates = self.rates(usage[0], service)
        return None if rates is None else rates.cost(usage)

    def total(self, usages: Iterable[Usage], service: Service = Service.BATCH) -> int | None:
        """Pico-dollars of requests with these usages; None: unpriced, even if there are none."""
        tiers = self.tiers.get(service)
        if tiers is None:
            return None
        if len(tiers) == 1:  # the usual case: the price depends on nothing
            return sum(map(tiers[0].rates.cost, usages))
        return sum(self.cost(usage, service) or 0 for usage in usages)


UNPRICED = DayPrice({})


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """The price lists of a model by service, ascending by their first day."""

    services: Mapping[Service, tuple[PriceList, ...]]

    def on(self, day: date) -> DayPrice:
        """The lists in force on a day; a service whose first list begins later is unpriced."""
        held = {service: [each for each in lists if each.since <= day] for service, lists in self.services.items()}
        return DayPrice({service: lists[-1].tiers for service, lists in held.items() if lists})

    def rates_from(self, day: date, input_tokens: int, service: Service = Service.BATCH) -> tuple[Rates, ...]:
        """What a request with this many input tokens costs on a day, and after each change that follows."""
        later = (each.since for each in self.services.get(service, ()) if each.since > day)
        found = (self.on(each).rates(input_tokens, service) for each in (day, *later))
        return tuple(rates for rates in found if rates is not None)

    def over(self, other: ModelPrice) -> ModelPrice:
        """These lists, and before their first day those of the other."""
        merged = dict(other.services)
        for service, lists in self.services.items():
            earlier = [each for each in other.services.get(service, ()) if each.since < lists[0].since]
            merged[service] = (*earlier, *lists)
        return ModelPrice(merged)


Prices = Mapping[tuple[str, str], ModelPrice]  # by provider and model


def prices_of(rows: Iterable[PriceRow]) -> Prices:
    """The price lists that the rows of a table make up, in any order."""
    models: dict[tuple[str, str], dict[Service, tuple[PriceList, ...]]] = defaultdict(dict)
    ordered = sorted(rows, key=attrgetter("provider", "model", "service", "since", "above"))
    for (provider, model, service), lists in groupby(ordered, attrgetter("provider", "model", "service")):
        models[provider, model][Service(service)] = tuple(
            PriceList(since, tuple(Tier(row.above, _rates(row)) for row in tiers))
            for since, tiers in groupby(lists, attrgetter("since"))
        )
    return {name: ModelPrice(services) for name, services in models.items()}


def _rates(row: PriceRow) -> Rates:
    """Cached tokens cost as much as others if there is no price for them."""
    return Rates(*(row.pico(kind) for kind in KINDS))


_DATE = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2})$")


def names_of(model: str) -> tuple[str, str]:
    """The names that a model's price may stand under: its own, and that without the date of a version."""
    name = model.removeprefix("models/")
    return name, _DATE.sub("", name)


def price_of(prices: Prices, provider: str, model: str) -> ModelPrice | None:
    """The price of a model, even if named by a dated version; None if it has none."""
    return next((prices[provider, name] for name in names_of(model) if (provider, name) in prices), None)
