"""The price table is what its readers take it for."""

import re
from collections import defaultdict
from datetime import date
from decimal import Decimal

import pytest

from tests.price_table import KINDS, table_rows

SERVICES = ("standard", "batch", "flex", "priority")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return table_rows()


def test_every_price_is_a_plain_decimal(rows: list[dict[str, str]]) -> None:
    """Prices are written out as decimals, without exponent or currency; only unknown ones are empty."""
    for row in rows:
        for name in KINDS:
            assert re.fullmatch(r"(\d+(\.\d+)?)?", row[name]), row
        assert row["input"], row
        assert row["output"], row
        assert int(row["above_input_tokens"]) >= 0


def test_every_price_says_where_it_comes_from_and_when_it_was_checked(rows: list[dict[str, str]]) -> None:
    """Each row has a source in words and an ISO date; its first day, if it has one, is an ISO date too."""
    for row in rows:
        assert row["source"].strip()
        assert date.fromisoformat(row["checked"]) <= date(2026, 12, 31)
        assert not row["from"] or date.fromisoformat(row["from"]) > date(2025, 1, 1)


def test_only_priority_is_dearer_than_a_single_request(rows: list[dict[str, str]]) -> None:
    """A batch, and a request that may wait, cost at most as much; each has the tiers and days of its model."""
    place = ("provider", "model", "from", "above_input_tokens")
    standard = {tuple(row[name] for name in place): row for row in rows if row["service"] == "standard"}
    for row in rows:
        base = standard[tuple(row[name] for name in place)]
        for kind in filter(row.get, KINDS):
            factor = 1 if row["service"] == "priority" else -1
            assert factor * Decimal(row[kind]) >= factor * Decimal(base[kind]), row
        assert row["service"] in SERVICES


def test_every_model_has_a_price_for_batches_and_for_single_requests(rows: list[dict[str, str]]) -> None:
    """What a batch saves can be said of each of them."""
    services = defaultdict(set)
    for row in rows:
        services[row["provider"], row["model"]].add(row["service"])
    assert [name for name, held in services.items() if not held >= {"standard", "batch"}] == []


def test_every_tier_stands_once_and_large_requests_are_dearer(rows: list[dict[str, str]]) -> None:
    """No two rows price the same, and every list has a base tier that is not dearer than others."""
    place = ("provider", "model", "service", "from")
    tiers = {(*(row[name] for name in place), int(row["above_input_tokens"])): row for row in rows}
    assert len(tiers) == len(rows)
    for (*names, _), row in tiers.items():
        base = tiers[*names, 0]
        assert all(Decimal(base[name]) <= Decimal(row[name]) for name in ("input", "output"))
