"""The second pass of a plan: new requests are rendered, measured and written to disk, numbered in the order of rows.

A row that can't be rendered, or is too large for the provider, is found here, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from flows.domain.prompts import Unrenderable
from flows.domain.tokens import TokenCounter
from flows.storage.encoding import request_bytes
from flows.storage.files import replacing
from flows.storage.key_tables import KeyTables, NewKeys
from flows.storage.plan import VALUE, Question, generation_path
from flows.storage.sealing import fresh_token
from flows.storage.source import column_values
from flows.storage.tables import Flags, NumberedWriter, Numbers


class Freezer:
    """Freezes the new requests of one plan, numbered from `start`."""

    def __init__(self, question: Question, keys: KeyTables, start: int) -> None:
        self._question = question
        self._keys = keys
        self.start = self.stop = start
        self.tokens = TokenCounter(question.codec, question.vocabulary)
        self.first_prompt: str | None = None
        self.first_problem: str | None = None

    def freeze(self, folder: Path) -> Path | None:
        """Write a generation into the folder; None if no new request can be sent."""
        chunks = self._keys.new_keys()
        first = next(chunks, None)
        if first is None:
            return None
        question, path = self._question, generation_path(folder, self.start)
        windows = question.source.windows(question.prompt.columns, question.limit)
        schema = _generation_schema(question.source.schema, question.prompt.columns)
        with replacing(path) as temporary, NumberedWriter(temporary, schema) as writer:
            for rows, new in _align(windows, first, chunks):
                self._freeze_rows(rows, new, writer)
            writer.add_metadata(fresh_token())
        if self.stop == self.start:
            path.unlink()
            return None
        return path

    def _freeze_rows(self, rows: pa.Table, new: NewKeys, writer: NumberedWriter) -> None:
        prompts = self._question.prompt.render([column_values(column) for column in rows.columns])
        sizes, problems = self._measure(prompts)
        good = np.array([problem is None for problem in problems], dtype=np.bool_)
        sent = [prompt for prompt, problem in zip(prompts, problems, strict=True) if problem is None]
        if self.first_prompt is None and sent:
            self.first_prompt = str(sent[0])
        if not good.all():
            reasons = [problem for problem in problems if problem is not None]
            self.first_problem = self.first_problem or reasons[0]
            self._keys.add_unsendable(new.hi[~good], new.lo[~good], reasons)
        if good.any():
            tokens = self.tokens.tokens_of([str(prompt) for prompt in sent], sizes[good].tolist())
            self._write(rows, new, {"bytes": sizes[good], "tokens": np.array(tokens, np.int64)}, good, writer)

    def _measure(self, prompts: list[str | Unrenderable]) -> tuple[Numbers, list[str | None]]:
        """The bytes of each request, 0 for one without a prompt; and why it can't be sent, if it can't."""
        codec, max_bytes = self._question.codec, self._question.max_request_bytes
        sizes = np.array(
            [0 if isinstance(prompt, Unrenderable) else request_bytes(codec, prompt) for prompt in prompts],
            dtype=np.int64,
        )
        problems = [prompt.reason if isinstance(prompt, Unrenderable) else None for prompt in prompts]
        if max_bytes is not None:
            for index in np.flatnonzero(sizes > max_bytes):
                problems[index] = (
                    f"the request has {sizes[index]:,} bytes, but the provider accepts at most {max_bytes:,}"
                )
        return sizes, problems

    def _write(
        self, rows: pa.Table, new: NewKeys, measures: dict[str, Numbers], good: Flags, writer: NumberedWriter
    ) -> None:
        start, self.stop = self.stop, self.stop + int(good.sum())
        kept = rows.filter(pa.array(good))
        columns = {
            "request": pa.array(np.arange(start, self.stop, dtype=np.int64)),
            "hi": pa.array(new.hi[good]),
            "lo": pa.array(new.lo[good]),
            **{name: pa.array(values) for name, values in measures.items()},
        } | {f"{VALUE}{name}": kept.column(name) for name in kept.schema.names}
        writer.write(pa.table(columns))


def _align(
    windows: Iterator[pa.Table], left: NewKeys | None, chunks: Iterator[NewKeys]
) -> Iterator[tuple[pa.Table, NewKeys]]:
    """The first rows of new keys, a window's or less at a time. `left` is the first of the chunks of keys."""
    start = 0
    for window in windows:
        stop = start + window.num_rows
        while left is not None and left.row[0] < stop:
            inside, rest = left.split(stop)
            yield _takeable(window).take(pa.array(inside.row - start)), inside
            left = rest if len(rest.row) else next(chunks, None)
        if left is None:
            return
        start = stop


def _generation_schema(source: pa.Schema, names: list[str]) -> pa.Schema:
    fields = [
        pa.field("request", pa.int64()),
        pa.field("hi", pa.uint64()),
        pa.field("lo", pa.uint64()),
        pa.field("bytes", pa.int64()),
        pa.field("tokens", pa.int64()),  # input tokens, counted or estimated
    ]
    values = (pa.field(f"{VALUE}{name}", _takeable_type(source.field(name).type)) for name in names)
    return pa.schema([*fields, *values])


def _takeable(table: pa.Table) -> pa.Table:
    """The same values in types that Arrow can take rows from: no views, no dictionaries."""
    return table.cast(pa.schema([pa.field(field.name, _takeable_type(field.type)) for field in table.schema]))


def _takeable_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_dictionary(kind):
        return _takeable_type(kind.value_type)
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_takeable_type(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_takeable_type(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_takeable_type(field.type)) for field in kind])
    return kind
