"""Answers against what people filled in."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from flows.domain.gold import MOST_PAIRS, SHOWN_PAIRS, Agreement


def agreement(*rows: tuple[Any, Any]) -> Agreement:
    found = Agreement("field", "column")
    for number, (label, answer) in enumerate(rows):
        found.add(number, label, answer)
    return found


@pytest.mark.parametrize(
    ("label", "answer", "same"),
    [
        ("a", "a", True),
        (" a ", "a", True),
        ("A", "a", False),
        (3, 3, True),
        (3.0, 3, True),
        ("3", 3, True),
        ("3.0", 3.0, True),
        (Decimal("3.00"), 3, True),
        (4, 3, False),
        ("three", 3, False),
        (0.1, 0.1, True),
        (True, True, True),
        ("true", True, True),
        ("No", False, True),
        (1, True, True),
        (0.0, False, True),
        ("maybe", True, False),
        (True, 1, False),
        (1, "1", True),
        (float("nan"), 3.0, False),
        ("9" * 5_000, 9, False),
    ],
)
def test_values_are_compared_by_what_they_mean(label: Any, answer: Any, *, same: bool) -> None:
    """A column may hold as text what the answer has as a number, and the reverse."""
    found = agreement((label, answer))
    assert (found.compared, found.correct) == (1, int(same))


def test_what_is_missing_is_left_out_and_counted() -> None:
    """A null label was not filled, a null answer was not given; neither is wrong."""
    found = agreement((None, "a"), ("a", None), (None, None), ("a", "a"), ("a", "b"))
    assert (found.without_label, found.without_answer, found.compared) == (2, 1, 2)
    assert found.accuracy == 0.5
    assert agreement((None, "a")).accuracy is None


def test_confusion_has_the_rows_of_each_pair() -> None:
    """The most frequent first, those that agree included."""
    found = agreement(*[("a", "a")] * 3, *[("a", "b")] * 2, ("b", "a"))
    assert found.confusion() == ([("a", "a", 3), ("a", "b", 2), ("b", "a", 1)], 0)
    assert [(each.place, each.label, each.answer) for each in found.worst()] == [
        (3, "a", "b"),
        (5, "b", "a"),
        (4, "a", "b"),
    ]


def test_confusion_is_bounded() -> None:
    """Free text has as many pairs as rows; none of them is lost from the sum."""
    rows = 3 * MOST_PAIRS
    found = agreement(*((f"label {n}", f"answer {n}") for n in range(rows)))
    shown, rest = found.confusion()
    assert len(shown) == SHOWN_PAIRS
    assert sum(count for _, _, count in shown) + rest == rows
    assert len(found.worst()) == 5


def test_the_worst_numbers_are_those_that_are_furthest_off() -> None:
    """Not those that are mistaken most often."""
    found = agreement((1, 2), (1, 2), (1, 50), (1, 1), (1, -9), ("n/a", 7))
    assert [each.place for each in found.worst()][:2] == [2, 4]
    assert found.mean_distance == (1 + 1 + 49 + 0 + 10) / 5
