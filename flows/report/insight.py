"""What a run's figures are made of beyond its sums: advice, and what the output holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date
from hashlib import blake2b
from pathlib import Path

import orjson

from blocks.connections import shortest_prefix_of
from flows.domain.advice import Advice, Used, advice
from flows.domain.batches import Batch
from flows.domain.money import total
from flows.domain.prices import Rates
from flows.domain.spending import spending
from flows.domain.tokens import estimate_tokens
from flows.engine.recorder import now
from flows.engine.run import Run
from flows.report.contents import Contents, Layout, read_contents
from flows.spec import Spec
from flows.storage.output import OK, OutputSummary
from flows.storage.price_files import table_prices
from flows.storage.results import answer_type
from flows.storage.source import identity_of
from flows.storage.state import read_or_none


def advice_for(run: Run, batches: Sequence[Batch]) -> list[Advice]:
    """What would have made the answers to this job, of this model, cheaper; empty for an unpriced one."""
    spec = run.config.spec
    alike = {each for each in {batch.spec for batch in batches} if _asks_the_same(run, each)}
    mine = [batch for batch in batches if batch.spec in alike]
    results = [batch.result for batch in mine if batch.result is not None]
    cost, reasons = total(result.cost for result in results), spending(mine, 0, 0)
    answers = sum(sum(r.outcomes.get(name, 0) for name in ("ok", "rejected", "cut_off")) for r in results)
    input_tokens, today = sum(result.input_tokens for result in results), now().date()
    rates = spec.price_on(today).rates(input_tokens // max(1, answers))
    if rates is None or cost is None or reasons is None:
        return []
    return advice(
        Used(
            answers=answers,
            input_tokens=input_tokens,
            output_tokens=sum(result.output_tokens for result in results),
            cached_tokens=sum(result.cached_tokens for result in results),
            cost=cost,
            rates=rates,
            spending=reasons,
            others=_others(spec.connection.provider, today, input_tokens // max(1, answers)),
            system_tokens=_system_tokens(spec),
            shortest_prefix=shortest_prefix_of(spec.connection, spec.model),
            longest_output=max((result.longest_output for result in results), default=0),
            max_output_tokens=spec.form.max_output_tokens,
            emulated=spec.connection.emulated,
        )
    )


def _asks_the_same(run: Run, fingerprint: str) -> bool:
    """Whether a spec differs from the run's in no more than options."""
    spec, content = run.config.spec, read_or_none(run.config.state.spec(fingerprint)) or {}
    provider = content.get("connection", {}).get("provider")
    return fingerprint == spec.fingerprint or (content.get("job"), content.get("model"), provider) == (
        spec.content["job"],
        spec.model,
        spec.connection.provider,
    )


def _others(provider: str, day: date, input_tokens: int) -> dict[str, Rates]:
    """What requests of this size cost in batches of the provider's models."""
    listed = {
        name: price.on(day).rates(input_tokens)
        for (seller, name), price in table_prices().items()
        if seller == provider
    }
    return {name: rates for name, rates in listed.items() if rates is not None}


def _system_tokens(spec: Spec) -> int:
    """About how many tokens the system text has."""
    return round(estimate_tokens(spec.form.system)) if spec.form.system else 0


def contents_of(run: Run, published: OutputSummary) -> Contents:
    """What the output's files hold, as they were published last; those that somebody changed since are left out."""
    config, files = run.config, published_files(run)
    renamed, command = config.layout.rename, config.command(retry_failed=True)
    answers = {field.name: renamed.get(field.name, field.name) for field in answer_type(config.layout.schema)}
    status, error = (renamed.get(name, name) for name in ("_status", "_error"))
    layout = Layout(answers, config.question.prompt.columns, status, error)
    read = [[str(path), identity_of(path), rows] for path, rows in files.items()], asdict(layout), command
    key = blake2b(orjson.dumps(read), digest_size=16).hexdigest()
    return _read_before(run, key) or replace(read_contents(files, layout, published.statuses[OK], command), key=key)


def _read_before(run: Run, key: str) -> Contents | None:
    """What the last report says of the same files: a night without news doesn't read millions of rows."""
    known = (read_or_none(run.config.state.report("json")) or {}).get("contents")
    if not isinstance(known, dict) or known.get("key") != key or known.keys() != asdict(Contents()).keys():
        return None
    return Contents(**known)


def published_files(run: Run) -> dict[Path, int]:
    """The output's files and their rows, as they were published last, without those that somebody changed since."""
    config, held = run.config, (read_or_none(run.config.state.published) or {}).get("files", {})
    files: dict[Path, int] = {}
    for name, file in held.items():
        place = config.settings.output / name if config.source.is_folder else config.settings.output
        if "aside" not in file and place.exists() and identity_of(place) == file["output"]:
            files[place] = sum(file["statuses"].values())
    return files
