"""Usage exports of providers as lines of a bill (docs/wire-protocols.md §12).

Pages of OpenAI's `/organization/usage/completions` and `/organization/costs`, and of Anthropic's
`usage_report/messages` and `cost_report`, as their APIs answer them: one page, a list of pages, or one page a line.
Anything else by hand, as CSV or as a JSON list: day, model, input_tokens, output_tokens, and perhaps requests,
cost_usd and batch.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from blocks.errors import UsageError
from blocks.printable import SHORT, printable
from flows.domain.money import PICO
from flows.domain.prices import names_of
from flows.domain.reconciliation import ALL, Amounts, BilledLine
from flows.storage.small_files import read_small_file

MOST_BYTES = 200_000_000
MOST_OF_A_NUMBER = 10**18
BY_HAND = ("day", "model", "requests", "input_tokens", "output_tokens", "cost_usd", "batch")
NEEDED = ("day", "model")
_HELP = "see docs/reconcile.md for what is read"


@dataclass
class Export:
    """The lines of a bill, and the days that it covers."""

    lines: list[BilledLine] = field(default_factory=list)
    days: set[date] = field(default_factory=set)
    left_out: int = 0  # entries for single requests, and for what is no tokens

    def add(self, other: Export) -> None:
        """Add what another file says."""
        self.lines += other.lines
        self.days |= other.days
        self.left_out += other.left_out


def read_export(path: Path) -> Export:
    """Raises UsageError for a file that can't be read as any of the formats, or that lacks a page."""
    if not path.exists():
        raise UsageError(f"the usage export {path} does not exist")
    text = read_small_file(path, "the usage export", MOST_BYTES).removeprefix("\ufeff").strip()
    try:
        export = _pages(_json(text)) if text[:1] in {"{", "["} else _by_hand(_csv(text))
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        InvalidOperation,
        csv.Error,
        OverflowError,
        RecursionError,
    ) as error:
        said = printable(f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error), 200)
        raise UsageError(f"the usage export {path} can't be read: {said}", next_step=_HELP) from error
    if not export.days:
        raise UsageError(f"the usage export {path} has no lines", next_step=_HELP)
    return export


def _json(text: str) -> list[Any]:
    """The JSON values of a text: a value, the items of a list, or one value a line. Numbers stay exact."""
    try:
        value = json.loads(text, parse_float=Decimal)
    except json.JSONDecodeError:
        return [json.loads(line, parse_float=Decimal) for line in text.splitlines() if line.strip()]
    return value if isinstance(value, list) else [value]


def _csv(text: str) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    unknown = [name for name in reader.fieldnames or () if name not in BY_HAND]
    if unknown:
        raise ValueError(f"there is no column {printable(unknown[0], SHORT)!r}; the columns are {', '.join(BY_HAND)}")
    return list(reader)


def _pages(values: list[Any]) -> Export:
    if not all(isinstance(value, dict) and isinstance(value.get("data"), list) for value in values):
        return _by_hand(values)
    if values[-1].get("has_more"):
        raise ValueError("its last page says that there are more: fetch the pages that follow, by `next_page`")
    export = Export()
    for page in values:
        for bucket in page["data"]:
            _read_bucket(bucket, export)
    return export


def _read_bucket(bucket: Mapping[str, Any], export: Export) -> None:
    """The results of one stretch of time, which lies within a day, UTC; a longer one can't be compared by day."""
    first, last = _stretch(bucket)
    if last > first:
        raise ValueError(f"a bucket goes from {first} to {last}: export days, hours or minutes")
    export.days.add(first)
    for result in bucket["results"]:
        line = _openai(result, first) if "start_time" in bucket else _anthropic(result, first)
        if line is None:
            export.left_out += 1
        else:
            export.lines.append(line)


def _stretch(bucket: Mapping[str, Any]) -> tuple[date, date]:
    if "start_time" in bucket:
        start, end = (datetime.fromtimestamp(int(bucket[name]), UTC) for name in ("start_time", "end_time"))
    else:
        start, end = (datetime.fromisoformat(bucket[name]) for name in ("starting_at", "ending_at"))
    return start.astimezone(UTC).date(), (end - timedelta(microseconds=1)).astimezone(UTC).date()


def _openai(result: Mapping[str, Any], day: date) -> BilledLine | None:
    match result["object"]:
        case "organization.usage.completions.result":
            if result.get("batch") is False:
                return None
            counts = (_count(result[name]) for name in ("num_model_requests", "input_tokens", "output_tokens"))
            return BilledLine(day, _model(result.get("model")), Amounts(*counts))
        case "organization.costs.result":
            amount = result.get("amount") or {}
            if str(amount.get("currency") or "usd").lower() != "usd":
                raise ValueError("its costs are not in US dollars")
            return BilledLine(day, ALL, Amounts(cost=_pico(amount.get("value") or 0)))
        case _:
            return None


def _anthropic(result: Mapping[str, Any], day: date) -> BilledLine | None:
    if result.get("service_tier") not in {None, "batch"}:
        return None
    if "amount" in result:
        if str(result.get("currency") or "USD").upper() != "USD":
            raise ValueError("its costs are not in US dollars")
        cents = Decimal(str(result["amount"]))  # in the currency's smallest unit, with decimals
        model = _model(result.get("model"))
        return BilledLine(day, model, Amounts(cost=_pico(cents / 100)))
    written = result.get("cache_creation") or {}
    parts = [result["uncached_input_tokens"], result.get("cache_read_input_tokens"), *written.values()]
    tokens_in = sum(_count(part or 0) for part in parts)
    return BilledLine(day, _model(result.get("model")), Amounts(None, tokens_in, _count(result["output_tokens"])))


def _by_hand(rows: Iterable[Any]) -> Export:
    export = Export()
    for number, row in enumerate(rows, 1):
        try:
            line = _line(row)
        except (ValueError, InvalidOperation, AttributeError, TypeError) as error:
            raise ValueError(f"entry {number}: {error}") from error
        export.lines.append(line)
        export.days.add(line.day)
    return export


def _line(row: Mapping[str, Any]) -> BilledLine:
    stated = {name: value for name, value in row.items() if value is not None and value != ""}
    unknown, missing = [name for name in stated if name not in BY_HAND], [name for name in NEEDED if name not in stated]
    if unknown or missing:
        problem = f"there is no column {printable(str(unknown[0]), SHORT)!r}" if unknown else f"it has no {missing[0]}"
        raise ValueError(f"{problem}; the columns are {', '.join(BY_HAND)}")
    readers: dict[str, Callable[[Any], int]] = {
        "requests": _count,
        "input_tokens": _count,
        "output_tokens": _count,
        "cost_usd": _pico,
    }
    amounts = (read(stated[name]) if name in stated else None for name, read in readers.items())
    batch = str(stated["batch"]) if "batch" in stated else None
    return BilledLine(date.fromisoformat(str(stated["day"])), _model(stated["model"]), Amounts(*amounts), batch)


def _model(name: object) -> str:
    """A model without the date of its version; ALL if the export does not group by model."""
    return ALL if name is None or name in {"", ALL} else names_of(str(name))[1]


def _count(value: object) -> int:
    number = Decimal(str(value))
    if number != number.to_integral_value() or not 0 <= number < MOST_OF_A_NUMBER:
        raise ValueError(f"{printable(str(value), SHORT)!r} is no count")
    return int(number)


def _pico(usd: object) -> int:
    """Exact as far as a bill is: what is finer than a pico-dollar is rounded."""
    amount = Decimal(str(usd))
    if not amount.is_finite() or abs(amount) >= MOST_OF_A_NUMBER:
        raise ValueError(f"{printable(str(usd), SHORT)!r} is no amount of dollars")
    return int((amount * PICO).to_integral_value())


def merged(exports: Iterable[Export]) -> Export:
    """What several files say together, such as usage and costs."""
    whole = Export()
    for export in exports:
        whole.add(export)
    return whole


def span(export: Export) -> tuple[date, date]:
    """The first and the last day of an export."""
    return min(export.days), max(export.days)
