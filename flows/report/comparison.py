"""The same plan for several models and providers, side by side: `plan --compare`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from blocks.batch import Usage
from blocks.catalog import LOCAL, PROVIDERS
from blocks.printable import printable
from flows.domain.money import show_usd
from flows.engine.recorder import now
from flows.preflight import RunConfig, check
from flows.report.alternatives import previews_of
from flows.report.figures import usd
from flows.report.preview import Planned, Preview
from flows.spec import Spec

HEADINGS = ("", "requests", "reused", "tokens in", "tokens out", "batch", "range", "single", "at most")
NO_PRICE = "no price"
NOTES = {
    "~": "~ is estimated: the vocabulary is not public or not installed; answers are guessed from the schema",
    "range": "range: a batch, as far as the tokens in may be off; `--sample N` measures the answers too",
    NO_PRICE: "no price is not zero: `batchwerk prices` lists what is known, --prices FILE adds to it",
}


@dataclass(frozen=True)
class Alternative:
    """What another model would take for the same rows."""

    name: str  # provider and model
    preview: Preview
    spec: Spec

    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        provider, _, model = self.name.partition(":")
        shown = ("to_send", "batches", "input_tokens", "input_tokens_spread", "counted_with", "output_tokens",
                 "estimate_usd", "single_estimate_usd", "ceiling_usd", "unsendable")  # fmt: skip
        found, between = self.preview.summary(), self.between
        return {
            "provider": provider,
            "model": model,
            **{name: found[name] for name in shown},
            "reused": self.reused,
            "estimate_range_usd": between and [usd(each) for each in between],
        }

    @property
    def reused(self) -> int:
        """Requests that were sent before."""
        return self.preview.plan.requests - self.preview.estimate.requests

    @property
    def between(self) -> tuple[int, int] | None:
        """What a batch costs at least and at most, as far as the tokens of requests may be off."""
        found = self.preview.estimate
        rates = self.spec.price_on(now().date()).rates(found.input_tokens // max(1, found.requests))
        if rates is None:
            return None
        least, most = (Usage(int(found.input_tokens * off), found.output_tokens) for off in self.preview.plan.spread)
        return rates.cost(least), rates.cost(most)

    def cells(self) -> list[str]:
        """A line of the table."""
        found, between = self.preview.estimate, self.between
        about = "" if self.preview.plan.counted_with else "~"
        most = "no limit" if found.cost is not None and found.ceiling is None else _usd(found.ceiling)
        spread = "" if between is None or between[0] == between[1] else " to ".join(_usd(each) for each in between)
        return [
            printable(self.name), f"{found.requests:,}", f"{self.reused:,}", f"{about}{found.input_tokens:,}",
            f"~{found.output_tokens:,}", _usd(found.cost), spread, _usd(found.single_cost), most,
        ]  # fmt: skip


def compare(planned: Planned, own: Preview, others: Sequence[str]) -> list[Alternative]:
    """The run's own plan and the others', cheapest first, those without a price last.

    `others`: `PROVIDER:MODEL`, or a model of the run's own provider. Raises UsageError as a run with them would.
    """
    config = planned.config
    mine = config.settings.provider
    names, asked = [], []
    for other in others:
        provider, _, model = other.partition(":") if other.partition(":")[0] in PROVIDERS else (mine, "", other)
        asked.append(_asked_of(config, provider, model))
        names.append(f"{provider}:{asked[-1].spec.model}")
    found = [Alternative(f"{mine}:{own.model}", own, config.spec)]
    for name, preview, each in zip(names, previews_of(planned, asked), asked, strict=True):
        found.append(Alternative(name, preview, each.spec))
    return sorted(found, key=lambda each: (each.preview.estimate.cost is None, each.preview.estimate.cost or 0))


def _asked_of(config: RunConfig, provider: str, model: str) -> RunConfig:
    """The same rows asked of another model, as if nothing had been asked before: what was, was another question.

    A provider is asked for by its dialect, which takes no key.
    """
    settings = config.settings
    options = settings.options if provider == settings.provider else {}
    if provider in PROVIDERS:
        provider, options = LOCAL, {**options, "dialect": provider}
    nowhere = settings.output.with_stem(f"{settings.output.stem}-compared")
    changes = {"provider": provider, "options": options, "model": model or None, "output": nowhere, "base_url": None}
    return check(settings.model_copy(update={**changes, "budget": None, "monthly_budget": None, "budget_name": None}))


def comparison_text(found: Sequence[Alternative]) -> str:
    """A table, without columns that say nothing, and what its signs mean."""
    rows = [list(HEADINGS), *(each.cells() for each in found)]
    shown = [place for place in range(len(HEADINGS)) if any(row[place] not in ("", "0") for row in rows[1:])]
    widths = {place: max(len(row[place]) for row in rows) for place in shown}
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
    table = "\n".join(lines)
    return "\n".join([table, "", *(note for sign, note in NOTES.items() if sign in table)])


def _aligned(row: Sequence[str], widths: dict[int, int]) -> Iterator[str]:
    for place, width in widths.items():
        yield row[place].rjust(width) if place else row[place].ljust(width)


def _usd(pico: int | None) -> str:
    return NO_PRICE if pico is None else show_usd(pico)
