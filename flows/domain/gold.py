"""Answers against what people filled in: how many agree, what is mistaken for what, and the worst of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

MOST_PAIRS = 1_000  # of a label and an answer, that are counted each
SHOWN_PAIRS = 50
EXAMPLES = 5
EXAMPLES_OF_A_PAIR = 2
LONGEST_NUMBER = 100  # characters
TRUE, FALSE = {"true", "yes", "1"}, {"false", "no", "0"}


def value_of(value: Any, like: Any) -> Any:
    """A label as a value that can be compared with an answer: a column may hold `"3"`, 3 or 3.0 for the answer 3."""
    if isinstance(like, bool):
        said = str(value).strip().lower().removesuffix(".0")
        return True if said in TRUE else False if said in FALSE else value
    if isinstance(like, int | float | Decimal):
        return _number(value)
    return (str(value).lower() if isinstance(value, bool) else str(value)).strip()


def _number(value: Any) -> Any:
    text = str(value).strip()
    try:
        return Decimal(text) if len(text) <= LONGEST_NUMBER and not isinstance(value, bool) else value
    except InvalidOperation:
        return value


@dataclass(frozen=True, slots=True)
class Mistake:
    """A row whose answer is not the label."""

    place: Any  # where the row is
    label: Any
    answer: Any
    distance: Decimal | None  # of two numbers


@dataclass
class Agreement:
    """One field of the answers and the column that people filled, counted row by row in bounded memory."""

    answer: str
    column: str
    compared: int = 0
    correct: int = 0
    without_label: int = 0
    without_answer: int = 0
    _distances: Decimal = Decimal(0)
    _numbers: int = 0
    _pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    _more: int = 0  # rows of pairs that are not counted each
    _mistakes: dict[tuple[str, str], list[Mistake]] = field(default_factory=dict)
    _furthest: list[Mistake] = field(default_factory=list)

    def add(self, place: Any, label: Any, answer: Any) -> None:
        """Count a row; a label that is null was not filled, an answer that is null was not given."""
        if label is None:
            self.without_label += 1
            return
        if answer is None:
            self.without_answer += 1
            return
        label = value_of(label, answer)
        answer = value_of(answer, answer)
        self.compared += 1
        distance = _distance(label, answer)
        if distance is not None:
            self._numbers, self._distances = self._numbers + 1, self._distances + distance
        pair = str(label), str(answer)
        if pair in self._pairs or len(self._pairs) < MOST_PAIRS:
            self._pairs[pair] += 1
        else:
            self._more += 1
        if label == answer and isinstance(label, bool) is isinstance(answer, bool):
            self.correct += 1
        else:
            self._keep(pair, Mistake(place, label, answer, distance))

    def _keep(self, pair: tuple[str, str], mistake: Mistake) -> None:
        """Of numbers the rows that are furthest off, of anything else a few rows of each pair."""
        if mistake.distance is not None:
            self._furthest = sorted([*self._furthest, mistake], key=lambda each: -(each.distance or 0))[:EXAMPLES]
        elif pair in self._mistakes or len(self._mistakes) < MOST_PAIRS:
            held = self._mistakes.setdefault(pair, [])
            held += [mistake][: EXAMPLES_OF_A_PAIR - len(held)]

    @property
    def accuracy(self) -> float | None:
        """The share of compared rows whose answer is the label; None if there are none."""
        return self.correct / self.compared if self.compared else None

    @property
    def mean_distance(self) -> float | None:
        """How far numbers are off on average; None if there are none."""
        return float(self._distances / self._numbers) if self._numbers else None

    def confusion(self) -> tuple[list[tuple[str, str, int]], int]:
        """The most frequent pairs of label and answer with their rows, and the rows of all others."""
        shown = self._pairs.most_common(SHOWN_PAIRS)
        rest = self._more + self._pairs.total() - sum(rows for _, rows in shown)
        return [(label, answer, rows) for (label, answer), rows in shown], rest

    def worst(self) -> list[Mistake]:
        """The rows whose numbers are furthest off, then some of the most frequent mistakes."""
        pairs = sorted(self._mistakes, key=lambda pair: -self._pairs[pair])
        turns = (self._mistakes[pair][turn : turn + 1] for turn in range(EXAMPLES_OF_A_PAIR) for pair in pairs)
        return [*self._furthest, *(mistake for held in turns for mistake in held)][:EXAMPLES]


def _distance(label: Any, answer: Any) -> Decimal | None:
    if not isinstance(label, Decimal) or not isinstance(answer, Decimal):
        return None
    return abs(label - answer) if label.is_finite() and answer.is_finite() else None
