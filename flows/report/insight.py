"""What a run's figures are made of beyond its sums: advice, and what the output holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blocks.connections import shortest_prefix_of
from flows.domain.advice import Advice, Used, advice
from flows.domain.batches import Batch
from flows.domain.money import total
from flows.domain.spending import spending
from flows.domain.tokens import estimate_tokens
from flows.engine.run import Run
from flows.report.contents import Contents, Layout, read_contents
from flows.spec import Spec, price_table
from flows.storage.output import OK, OutputSummary
from flows.storage.results import answer_type
from flows.storage.source import identity_of
from flows.storage.state import read_or_none


def advice_for(run: Run, batches: Sequence[Batch]) -> list[Advice]:
    """What would have made the answers to this job, of this model, cheaper; empty for an unpriced one."""
    spec = run.config.spec
    mine = [batch for batch in batches if batch.spec == spec.fingerprint]
    results = [batch.result for batch in mine if batch.result is not None]
    cost, reasons = total(result.cost for result in results), spending(mine, 0, 0)
    if spec.price is None or cost is None or reasons is None:
        return []
    provider = spec.connection.provider
    return advice(
        Used(
            answers=sum(sum(r.outcomes.get(name, 0) for name in ("ok", "rejected", "cut_off")) for r in results),
            input_tokens=sum(result.input_tokens for result in results),
            output_tokens=sum(result.output_tokens for result in results),
            cached_tokens=sum(result.cached_tokens for result in results),
            cost=cost,
            price=spec.price,
            spending=reasons,
            others={name: price for (seller, name), price in price_table().items() if seller == provider},
            system_tokens=_system_tokens(spec),
            shortest_prefix=shortest_prefix_of(spec.connection, spec.model),
            longest_output=max((result.longest_output for result in results), default=0),
            max_output_tokens=spec.form.max_output_tokens,
        )
    )


def _system_tokens(spec: Spec) -> int:
    """About how many tokens the system text has."""
    return round(estimate_tokens(spec.form.system)) if spec.form.system else 0


def contents_of(run: Run, published: OutputSummary) -> Contents:
    """What the output's files hold, as they were published last; those that somebody changed since are left out."""
    config, held = run.config, (read_or_none(run.config.state.published) or {}).get("files", {})
    files: dict[Path, int] = {}
    for name, file in held.items():
        place = config.settings.output / name if config.source.is_folder else config.settings.output
        if "aside" not in file and place.exists() and identity_of(place) == file["output"]:
            files[place] = sum(file["statuses"].values())
    renamed, command = config.layout.rename, config.command(retry_failed=True)
    answers = {field.name: renamed.get(field.name, field.name) for field in answer_type(config.layout.schema)}
    status, error = (renamed.get(name, name) for name in ("_status", "_error"))
    layout = Layout(answers, config.question.prompt.columns, status, error)
    return read_contents(files, layout, published.statuses[OK], command)
