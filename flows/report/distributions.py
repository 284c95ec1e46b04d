"""How the values of an output field are distributed, counted window by window in little memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.printable import printable

MOST_VALUES = 1_000  # different ones that are counted each; more of them are free text, or a range of numbers
SHOWN_VALUES = 12
LONGEST_VALUE = 200  # characters; a longer one is free text
SHOWN_CHARACTERS = 60  # of a value
BINS = 20
MOST_FIELDS = 40  # leaves of nested fields included
_NUMBERS = (pa.types.is_integer, pa.types.is_floating)


class Distribution:
    """The values of one field, of which there may be any number."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._values: Counter[Any] = Counter()
        self._is_free = False  # too many different values to count each
        self._count = self._nulls = 0
        self._low, self._high, self._sum = float("inf"), float("-inf"), 0.0
        self._sizes: Counter[int] = Counter()  # texts by their length in characters, as a power of two
        self._bins: Counter[int] = Counter()  # numbers by their size, as a power of ten in tenths

    def add(self, values: pa.Array) -> None:
        """Count more values."""
        self._nulls += values.null_count
        values = values.drop_null()
        self._count += len(values)
        if not len(values):
            return
        if any(check(values.type) for check in _NUMBERS):
            self._add_numbers(values)
        elif pa.types.is_string(values.type):
            lengths = np.maximum(pc.utf8_length(values).to_numpy(), 1)
            self._sizes.update(np.ceil(np.log2(lengths)).astype(int).tolist())
            if lengths.max() > LONGEST_VALUE:
                self._is_free, self._values = True, Counter()
        if not self._is_free:
            self._count_each(values)

    def _count_each(self, values: pa.Array) -> None:
        for pair in values.value_counts():
            self._values[pair["values"].as_py()] += pair["counts"].as_py()
        if len(self._values) > MOST_VALUES:
            self._is_free, self._values = True, Counter()

    def _add_numbers(self, values: pa.Array) -> None:
        numbers = values.cast(pa.float64(), safe=False).to_numpy()
        self._low, self._high = min(self._low, float(numbers.min())), max(self._high, float(numbers.max()))
        self._sum += float(numbers.sum())
        signs = np.sign(numbers)
        sizes = np.floor(10 * np.log10(np.maximum(np.abs(numbers), 1e-9))).astype(int) + 91
        self._bins.update((signs * sizes).astype(int).tolist())

    def details(self) -> dict[str, Any]:
        """For report.json."""
        found: dict[str, Any] = {"field": self.name, "given": self._count, "nulls": self._nulls}
        if np.isfinite([self._low, self._high, self._sum]).all() and self._count:
            found |= {"lowest": self._low, "highest": self._high, "mean": self._sum / self._count}
        if not self._is_free:
            top = sorted(self._values.items(), key=lambda pair: (-pair[1], str(pair[0])))
            shown = top[:SHOWN_VALUES]
            found |= {
                "different": len(top),
                "top": [{"value": _shown(value), "count": count} for value, count in shown],
                "rest": sum(count for _, count in top[SHOWN_VALUES:]),
            }
        elif self._sizes:
            found["lengths"] = [{"to": 2**power, "count": count} for power, count in sorted(self._sizes.items())]
        else:
            found["sizes"] = list(_merged(self._bins))
        return found


def _merged(bins: Counter[int]) -> Iterator[dict[str, Any]]:
    """At most so many ranges of numbers, each with the numbers that are in it."""
    keys = sorted(bins)
    step = max(1, -(-(keys[-1] - keys[0] + 1) // BINS))
    groups: Counter[int] = Counter()
    for key in keys:
        groups[(key - keys[0]) // step] += bins[key]
    for group, count in sorted(groups.items()):
        first = keys[0] + group * step
        yield {"from": _edge(first), "to": _edge(first + step), "count": count}


def _edge(key: int) -> float:
    """The number at which a bin begins."""
    size = 0.0 if key == 0 else 10 ** ((abs(key) - 91) / 10)
    return float(f"{size if key > 0 else -size:.3g}")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return printable(value if isinstance(value, str) else str(value), SHOWN_CHARACTERS)


def leaves(name: str, values: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """The simple values inside a column, with their names: of each item of a list, of each member of an object."""
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from leaves(f"{name}[]", values.drop_null().flatten())
    elif pa.types.is_struct(kind):
        held = values.drop_null()
        for index in range(kind.num_fields):
            yield from leaves(f"{name}.{kind.field(index).name}", held.field(index))
    else:
        yield name, values
