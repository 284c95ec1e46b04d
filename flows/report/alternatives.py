"""A plan's requests as other models would get them: rendered once, and counted once with each vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from blocks.vocabularies import Vocabulary
from flows.domain.estimate import Unsent, estimate
from flows.domain.events import Slice
from flows.domain.ledger import Ledger
from flows.domain.ranges import Ranges
from flows.domain.sizing import batch_limit, cut_batches
from flows.domain.tokens import TokenCounter, expected_output_tokens
from flows.engine.memory import rare_garbage_collection
from flows.engine.recorder import now
from flows.preflight import RunConfig
from flows.report.preview import Planned, Preview, preview
from flows.storage.encoding import request_bytes
from flows.storage.source import column_values
from flows.storage.tables import Numbers


def previews_of(planned: Planned, others: Sequence[RunConfig]) -> list[Preview]:
    """What each would send of the same rows, as if nothing had been asked before.

    The input is not read again, unless a request may be too large for one provider and not for another.
    """
    if planned.plan.unsendable:
        return [preview(config) for config in others]
    counts, prompt = _Counts(), planned.config.question.prompt
    asked = [_Asked(config, counts) for config in others]
    with rare_garbage_collection():
        slices = [Slice(start, stop) for start, stop in planned.wanted]
        for table, _ in planned.requests.read_values(slices, prompt.columns):
            prompts = [str(text) for text in prompt.render([column_values(column) for column in table.columns])]
            for each in asked:
                each.add(prompts)
    return [each.preview(planned) for each in asked]


class _Counts:
    """The tokens of the newest prompts, by vocabulary: models share those, and most of the work is counting."""

    def __init__(self) -> None:
        self._prompts: Sequence[str] = ()
        self._found: dict[str, list[int]] = {}

    def of(self, vocabulary: Vocabulary, prompts: Sequence[str]) -> list[int]:
        if prompts is not self._prompts:
            self._prompts, self._found = prompts, {}
        if vocabulary.name not in self._found:
            self._found[vocabulary.name] = vocabulary.count(prompts)
        return self._found[vocabulary.name]


class _Once:
    """A model's vocabulary that counts no prompts which another model's has counted."""

    def __init__(self, vocabulary: Vocabulary, counts: _Counts) -> None:
        self._vocabulary = vocabulary
        self._counts = counts

    @property
    def name(self) -> str:
        return self._vocabulary.name

    @property
    def is_exact(self) -> bool:
        return self._vocabulary.is_exact

    def tokens_of(self, prompts: Sequence[str]) -> list[int]:
        return self._vocabulary.framed(self._counts.of(self._vocabulary, prompts))


class _Asked:
    """What one model would be sent."""

    def __init__(self, config: RunConfig, counts: _Counts) -> None:
        self._config = config
        vocabulary = config.spec.vocabulary
        self._counted = None if vocabulary is None else _Once(vocabulary, counts)
        self._counter = TokenCounter(config.spec.codec, self._counted)
        self._sizes: list[int] = []
        self._tokens = 0

    def add(self, prompts: Sequence[str]) -> None:
        sizes = [request_bytes(self._config.spec.codec, prompt) for prompt in prompts]
        self._tokens += sum(self._counter.tokens_of(prompts, sizes))
        self._sizes += sizes

    def preview(self, planned: Planned) -> Preview:
        spec, count, form = self._config.spec, len(self._sizes), self._config.spec.form
        if max(self._sizes, default=0) > (spec.limits.max_request_bytes or float("inf")):
            return preview(self._config)
        unsent = Unsent(
            count, self._tokens, expected_output_tokens(form.schema, form.max_output_tokens), form.max_output_tokens
        )
        limit = batch_limit(self._config.settings.batch_size, spec.limits, Ledger(), self._counter.per_byte)
        is_exact = self._counted is not None and self._counted.is_exact
        return Preview(
            plan=replace(
                planned.plan,
                start=0,
                stop=count,
                tokens_per_byte=self._counter.per_byte,
                counted_with=self._counted.name if self._counted is not None and is_exact else None,
                spread=self._counter.spread,
            ),
            estimate=estimate(unsent, spec.price_on(now().date()), Ledger(), emulated=spec.connection.emulated),
            batches=sum(1 for _ in cut_batches(Ledger(), Ranges([(0, count)]), _Sizes(self._sizes), limit)),
            model=spec.model,
            emulated=spec.connection.emulated,
        )


class _Sizes:
    """The bytes of requests that are numbered from 0."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._before: Numbers = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    def fit(self, start: int, stop: int, size: int) -> int:
        """As `flows.domain.sizing.Sizes` has it."""
        fitting = int(np.searchsorted(self._before, self._before[start] + size, side="right")) - 1
        return max(start, min(stop, fitting))

    def total(self, start: int, stop: int) -> int:
        """As `flows.domain.sizing.Sizes` has it."""
        return int(self._before[stop] - self._before[start])
