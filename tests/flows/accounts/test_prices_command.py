"""The price table in words, and against what others say."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

from flows.accounts.price_check import check_prices
from flows.accounts.price_listing import listing
from flows.cli import call
from flows.domain.price_rows import PriceRow
from flows.storage.price_files import price_table
from tests.price_table import table_rows


def rows_of(model: str, service: str = "batch") -> list[PriceRow]:
    return [row for row in price_table() if (row.model, row.service) == (model, service)]


def test_every_difference_from_genai_prices_is_explained_in_the_table() -> None:
    """Over all models that both know, all tiers and services, on every day on which a price changes."""
    found = check_prices(price_table())
    assert [f"{each.row.place}: {each.text()}" for each in found.differences if not each.explained] == []
    assert found.exit == 0
    assert found.models > 50
    assert found.compared > 1_000


def test_a_difference_that_no_note_explains_is_told_and_ends_with_status_1() -> None:
    """Ours and theirs side by side, on the first day on which they differ."""
    (row,) = rows_of("claude-opus-5")
    found = check_prices([replace(row, prices={**row.prices, "output": Decimal(13)})])
    assert (found.exit, len(found.differences)) == (1, 1)
    assert "NOT EXPLAINED" in found.text()
    assert "output on 2026-10-14: 13 here, 12.5 there" in found.text()


@pytest.mark.parametrize(
    ("note", "explained"),
    [
        ("genai-prices has the price of another day: output 12.5", True),
        ("genai-prices has the price of another day: output 12.50000", False),
        ("genai-prices has the price of another day: output 12", False),
        ("genai-prices has the price of another day: input 12.5", False),
        ("output 12.5", False),
    ],
)
def test_a_note_explains_only_what_it_names(note: str, *, explained: bool) -> None:
    """A price that changes over there after the note was written is a new difference."""
    (row,) = rows_of("claude-opus-5")
    found = check_prices([replace(row, prices={**row.prices, "output": Decimal(13)}, note=note)])
    assert [each.explained for each in found.differences] == [explained]


def test_a_price_change_that_the_table_lacks_is_found() -> None:
    """Also one that is announced for a day to come."""
    rows = [row for row in rows_of("gemini-3.8-flash") if row.since == date.min]
    found = check_prices(rows)
    assert {(each.kind, each.day) for each in found.differences} == {
        (kind, date(2027, 1, 1)) for kind in ("input", "output", "cache_read")
    }


def test_the_listing_has_the_rows_that_hold_now_or_later() -> None:
    """Those that are over are left out for people; programs get all."""
    listed = listing(["mistral-small-latest"], None, date(2026, 12, 1))
    assert [line.split()[:4] for line in listed.text().splitlines()[1:3]] == [
        ["mistral", "mistral-small-latest", service, "2026-03-16"] for service in ("standard", "batch")
    ]
    assert len(listed.summary()["prices"]) == 4


def test_the_command_lists_what_the_table_has(capsys: pytest.CaptureFixture[str]) -> None:
    """As text in the columns of the table, so that a program reads exact prices."""
    assert call(["prices", "gpt-4.1-mini-2025-04-14", "--provider", "openai", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["prices"]
    assert shown == [row for row in table_rows() if row["model"] == "gpt-4.1-mini"]


def test_a_model_without_a_price_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """Not an empty list."""
    assert call(["prices", "gpt-0", "--provider", "gemini"]) == 2
    assert "no price of gpt-0 at gemini" in capsys.readouterr().err
