"""The published answers against the columns that people filled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from blocks.printable import printable
from flows.domain.gold import Agreement, Mistake
from flows.engine.run import Run
from flows.report.contents import SHOWN_COLUMNS, SHOWN_TEXT
from flows.report.insight import published_files
from flows.storage.tables import NumberedTable
from flows.storage.windows import windows_of


def gold_of(run: Run) -> list[dict[str, Any]]:
    """For each field with a gold column what came of the comparison; of all rows that are published."""
    config, renamed = run.config, run.config.layout.rename
    files = published_files(run)
    found = [Agreement(answer, column) for answer, column in config.gold.items()]
    for path in files if found else ():
        _read(path, found, renamed)
    inputs = config.question.prompt.columns[:SHOWN_COLUMNS]
    return [_details(each, inputs) for each in found]


def _read(path: Path, found: list[Agreement], renamed: Mapping[str, str]) -> None:
    pairs = [(each, each.column, renamed.get(each.answer, each.answer)) for each in found]
    with pq.ParquetFile(path, pre_buffer=False) as file:
        held = set(file.schema_arrow.names)
        pairs = [pair for pair in pairs if held.issuperset(pair[1:])]  # an output of before the column was added
        at, columns = 0, list(dict.fromkeys(name for _, *names in pairs for name in names))
        for window in windows_of(path, file, columns):
            for each, label, answer in pairs:
                values = zip(window.column(label).to_pylist(), window.column(answer).to_pylist(), strict=True)
                for number, (said, given) in enumerate(values, at):
                    each.add((path, number), said, given)
            at += window.num_rows


def _details(found: Agreement, inputs: list[str]) -> dict[str, Any]:
    """For report.json; all that quotes rows is printable and bounded."""
    confusion, rest = found.confusion()
    return {
        "field": found.answer,
        "column": found.column,
        "compared": found.compared,
        "correct": found.correct,
        "accuracy": found.accuracy,
        "mean_distance": found.mean_distance,
        "rows_without_label": found.without_label,
        "rows_without_answer": found.without_answer,
        "confusion": [{"label": _text(label), "answer": _text(said), "rows": rows} for label, said, rows in confusion],
        "rows_of_other_pairs": rest,
        "examples": [_example(mistake, inputs) for mistake in found.worst()],
    }


def _example(mistake: Mistake, inputs: list[str]) -> dict[str, Any]:
    path, number = mistake.place
    with NumberedTable(path) as table:
        (values,) = table.read(number, number + 1, inputs).to_pylist() if inputs else ({},)
    return {
        "file": printable(path.name),
        "row": number + 1,
        "label": _text(mistake.label),
        "answer": _text(mistake.answer),
        "input": {printable(name): _text(values[name]) for name in inputs},
    }


def _text(value: Any) -> str:
    return printable(str(value), SHOWN_TEXT)
