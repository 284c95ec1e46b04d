"""The benchmark's tables: for a terminal and as Markdown, with the same cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from rich import box
from rich.table import Table


@dataclass(frozen=True)
class Sheet:
    """A table; without columns it is a sentence under a title, for what could not be measured."""

    title: str
    columns: tuple[str, ...] = ()
    rows: Sequence[Sequence[str]] = field(default_factory=list)
    note: str = ""

    def table(self) -> Table:
        """For a terminal."""
        table = Table(title=self.title, caption=self.note or None, box=box.SIMPLE_HEAD, title_justify="left")
        for number, name in enumerate(self.columns):
            table.add_column(name, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For a file."""
        lines = [f"## {self.title}", ""]
        if self.columns:
            align = ["---", *(["---:"] * (len(self.columns) - 1))]
            lines += [f"| {' | '.join(cells)} |" for cells in (self.columns, align, *self.rows)]
            lines += [""] if self.note else []
        return "\n".join([*lines, self.note] if self.note else lines) + "\n"


def spread(values: Iterable[float], digits: int = 1) -> str:
    """The median, with the lowest and highest where there are several."""
    found = sorted(values)
    middle = f"{median(found):,.{digits}f}"
    return middle if len(found) == 1 else f"{middle} ({found[0]:,.{digits}f} to {found[-1]:,.{digits}f})"


def factor(one: float, other: float) -> str:
    """How many times `other` the one is."""
    return f"{one / other:.2f}" if other > 0 else "-"
