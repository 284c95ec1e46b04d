"""Prices for tests."""

from flows.domain.prices import DayPrice, Rates, Service, Tier


def day_price(*tiers: tuple[int, Rates, Rates]) -> DayPrice:
    """What a model costs: above how many input tokens, in a batch, and as a single request."""
    batch = tuple(Tier(above, rates) for above, rates, _ in tiers)
    return DayPrice({Service.BATCH: batch, Service.STANDARD: tuple(Tier(above, single) for above, _, single in tiers)})
