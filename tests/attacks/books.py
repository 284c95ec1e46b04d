"""The provider's side of an attack, read from the emulator's database after it was stopped."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from blocks.emulator.options import EmulatorOptions
from blocks.emulator.service import faults
from blocks.emulator.service.batch import Outcome
from blocks.emulator.wire.tampering import LOST, POISONED, TORN, line_faults
from tests.price_table import row_of


class Line(NamedTuple):
    """A request, and what came of it."""

    custom_id: str
    prompt: str
    prompt_hash: int
    attempt: int
    outcome: str
    text: str
    input_tokens: int
    output_tokens: int
    batch: int


@dataclass(frozen=True)
class Books:
    """What the provider knows, and how it was told to behave."""

    path: Path
    options: EmulatorOptions

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute(sql).fetchall()

    def number(self, sql: str) -> int:
        ((found,),) = self.ask(sql)
        return int(found or 0)

    @cached_property
    def counters(self) -> dict[str, int]:
        return dict(self.ask("SELECT name, value FROM counters"))

    @cached_property
    def outcomes(self) -> dict[str, int]:
        return dict(self.ask("SELECT outcome, count(*) FROM results GROUP BY outcome"))

    @cached_property
    def billed(self) -> list[Line]:
        sql = """SELECT custom_id, prompt, prompt_hash, attempt, outcome, text, input_tokens, output_tokens, place >> 24
            FROM requests JOIN results USING (place) WHERE input_tokens > 0 ORDER BY place"""
        return [Line._make(row) for row in self.ask(sql)]

    @cached_property
    def accepted(self) -> list[Line]:
        """All requests, whatever became of them."""
        sql = "SELECT custom_id, prompt, prompt_hash, attempt, '', '', 0, 0, place >> 24 FROM requests ORDER BY place"
        return [Line._make(row) for row in self.ask(sql)]

    def is_swapped(self, line: Line) -> bool:
        """Whether the answer was given under another id."""
        if line.outcome != Outcome.ANSWERED or line.attempt > self.options.fault_attempts:
            return False
        return faults.hits("swap", self.options.swapped_rate, self.options.seed, line.prompt_hash, line.attempt)

    def is_forgotten(self, line: Line) -> bool:
        """Whether its batch is found no more: one whose create was not answered can't be told from a refused one."""
        return faults.is_nth(line.batch, self.options.vanish_every)

    def is_hit(self, line: Line, *faults: str) -> bool:
        """Whether one of these befell its result on the way."""
        return not line_faults(self.options, line.custom_id).isdisjoint(faults)

    def is_withheld(self, line: Line) -> bool:
        """Whether its answer is counted and not given, or in no form that can be read."""
        return self.is_hit(line, LOST, TORN)

    def is_metered(self, line: Line) -> bool:
        """Whether there is an answer that says what it cost."""
        if self.is_forgotten(line) or self.is_withheld(line) or self.is_hit(line, POISONED):
            return False
        return not faults.usage_is_missing(self.options, line.prompt_hash, line.attempt)

    def owed(self, model: str, lines: Iterable[Line]) -> Decimal:
        """Dollars for those of the answers that say what they cost."""
        price = row_of(self.options.dialect, model)
        used: Counter[str] = Counter()
        for line in filter(self.is_metered, lines):
            used += Counter(input=line.input_tokens, output=line.output_tokens)
        return sum((count * Decimal(price[name]) for name, count in used.items()), Decimal()) / Decimal(10**6)


def answers_to(billed: list[Line]) -> Iterator[tuple[str, Line]]:
    """The text that each billed request asked about, with its line."""
    for line in billed:
        _, _, rest = line.prompt.partition(BEGIN)
        yield rest.partition(END)[0], line


BEGIN, END = "<<", ">>"  # around the text of a row in each prompt
