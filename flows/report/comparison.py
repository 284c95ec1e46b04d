"""The same plan for several models and providers, side by side: `plan --compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blocks.catalog import LOCAL, PROVIDERS
from blocks.printable import printable
from flows.domain.money import show_usd
from flows.preflight import RunConfig, check
from flows.report.preview import Preview, preview

HEADINGS = ("", "requests", "tokens in", "tokens out", "batch", "single", "at most")
NO_PRICE = "no price"


@dataclass(frozen=True)
class Alternative:
    """What another model would take for the same rows."""

    name: str  # provider and model
    preview: Preview

    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        provider, _, model = self.name.partition(":")
        shown = ("to_send", "batches", "input_tokens", "input_tokens_spread", "counted_with", "output_tokens",
                 "estimate_usd", "single_estimate_usd", "ceiling_usd", "unsendable")  # fmt: skip
        found = self.preview.summary()
        return {"provider": provider, "model": model, **{name: found[name] for name in shown}}

    def cells(self) -> list[str]:
        """A line of the table."""
        found = self.preview.estimate
        about = "" if self.preview.plan.counted_with else "~"
        most = "no limit" if found.cost is not None and found.ceiling is None else _usd(found.ceiling)
        return [
            printable(self.name), f"{found.requests:,}", f"{about}{found.input_tokens:,}",
            f"~{found.output_tokens:,}", _usd(found.cost), _usd(found.single_cost), most,
        ]  # fmt: skip


def compare(config: RunConfig, others: Sequence[str], own: Preview) -> list[Alternative]:
    """The run's own plan and the others', cheapest first, those without a price last.

    `others`: `PROVIDER:MODEL`, or a model of the run's own provider. Raises UsageError as a run with them would.
    """
    mine = config.settings.provider
    found = [Alternative(f"{mine}:{own.model}", own)]
    for other in others:
        provider, _, model = other.partition(":") if other.partition(":")[0] in PROVIDERS else (mine, "", other)
        asked = _asked_of(config, provider, model)
        found.append(Alternative(f"{provider}:{asked.spec.model}", preview(asked)))
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
    return check(settings.model_copy(update={**changes, "budget": None}))


def comparison_text(found: Sequence[Alternative]) -> str:
    """A table; `~` stands before what is estimated."""
    rows = [list(HEADINGS), *(each.cells() for each in found)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(HEADINGS))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _usd(pico: int | None) -> str:
    return NO_PRICE if pico is None else show_usd(pico)
