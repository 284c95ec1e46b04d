"""Prompts: a sandboxed Jinja template, the columns it uses, and many renderings at once.

Rendering is deterministic (nothing random, no clock), because a request that is sent again after a crash has to be
the same to the byte.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, meta, nodes

from blocks.errors import UsageError
from blocks.printable import SHORT, printable, some_names
from flows.domain.bounds import BoundedEnvironment, bounded, calling, has_loops, weight

SHOWN_COLUMNS = 20  # of an input, in a message
ROW = "row"  # how a template reaches columns whose names are not identifiers
# Between renderings. No suffix of it is also a prefix, so it is found at the right place whatever text precedes it.
SEPARATOR = "\x00\x1e\x1f"
_ROWS = "__rows"
_NOT_IN_A_LOOP = (
    nodes.Block,
    nodes.CallBlock,
    nodes.Extends,
    nodes.FromImport,
    nodes.Import,
    nodes.Include,
    nodes.Macro,
)
_DICT_METHODS = {"items", "keys", "values", "get"}


@dataclass(frozen=True, slots=True)
class Unrenderable:
    """Why a row's prompt could not be rendered."""

    reason: str


class _Sandbox(BoundedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        """`row.copy` is the column `copy`, not the method that dicts have."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


def _shown(value: Any) -> Any:
    """How a value appears in a prompt: a null as nothing, and never as a Python object's address."""
    if type(value) is str:  # the usual case; this runs for each value of each row
        return value
    if value is None:
        return ""
    if isinstance(value, list | tuple | dict):
        weight(value)
    elif isinstance(value, Iterator) or (callable(value) and not isinstance(value, StrictUndefined)):
        raise TypeError(f"an expression yields a {type(value).__name__}, not text; a `| join` or `()` may be missing")
    return value


def _environment() -> _Sandbox:
    environment = _Sandbox(
        undefined=StrictUndefined,
        keep_trailing_newline=True,  # a prompt is sent exactly as it was written
        finalize=_shown,
    )
    del environment.globals["lipsum"]
    return environment


class Prompt:
    """A checked prompt template, bound to the columns of an input."""

    def __init__(self, source: str, available: Sequence[str]) -> None:
        self._environment = _environment()
        self._source = source
        for name in available:
            self._environment.globals.pop(name, None)  # a column `range` is the column
        try:
            self._tree = self._environment.parse(source)
            self._single = self._environment.from_string(bounded(self._environment.parse(source)))
        except TemplateSyntaxError as error:
            problem = printable(error.message or "", 2 * SHORT)
            raise UsageError(
                f"the prompt is not a valid template: {problem} (line {error.lineno})",
                next_step="fix `prompt` in the job file; it is a Jinja template",
            ) from error
        self._direct, self._through_row = self._names_used(available)
        self.columns = [name for name in available if name in self._direct or name in self._through_row]
        if not self.columns:
            raise UsageError(
                "the prompt uses no column of the input: all rows would send the same prompt",
                next_step="put a column in double braces, such as {{ text }} or {{ row['Review Text'] }}",
            )
        self._bulk = self._compile_loop()

    def render(self, columns: Sequence[Sequence[Any]]) -> list[str | Unrenderable]:
        """One prompt per row, from the values of `self.columns` in that order."""
        rows = list(zip(*columns, strict=True))
        if self._bulk is not None and rows:
            try:
                text = self._bulk.render({_ROWS: self._bound(rows)})
            except Exception:  # noqa: BLE001  # a template may raise anything; the rows are then rendered one by one
                return [self._render_one(row) for row in rows]
            prompts = text.split(SEPARATOR)
            if len(prompts) == len(rows) + 1:
                return list(prompts[:-1])
        return [self._render_one(row) for row in rows]

    def _render_one(self, row: tuple[Any, ...]) -> str | Unrenderable:
        values = dict(zip(self.columns, row, strict=True))
        context = {name: values[name] for name in self._direct} | {ROW: values}
        self._environment.begin()
        try:
            return self._single.render(context)
        except Exception as error:  # noqa: BLE001  # see above; the row comes out with this reason
            return Unrenderable(f"the prompt could not be rendered: {str(error) or type(error).__name__}")

    def _names_used(self, available: Sequence[str]) -> tuple[list[str], set[str]]:
        """Columns used by name and through `row`. Dynamic use of `row` means all columns."""
        names = meta.find_undeclared_variables(self._tree)
        direct = sorted(names - {ROW})  # without Jinja's globals
        through_row = self._row_access(available) if ROW in names else set()
        for name in [*direct, *sorted(through_row)]:
            if name not in available:
                raise UsageError(*_unknown_column(name, available))
        return direct, through_row

    def _row_access(self, available: Sequence[str]) -> set[str]:
        uses = [node for node in self._tree.find_all(nodes.Name) if node.name == ROW]
        fixed: set[str] = set()
        named = 0
        for node in self._tree.find_all((nodes.Getitem, nodes.Getattr)):
            name = _fixed_name(node)
            if name is None or (name in _DICT_METHODS and name not in available):
                continue
            fixed.add(name)
            named += 1
        return fixed if named == len(uses) else fixed | set(available)

    def _compile_loop(self) -> Any:
        """The template in a loop over rows, ten times as fast as row by row; None if it can't be put in a loop."""
        if any(True for _ in self._tree.find_all(_NOT_IN_A_LOOP)):
            return None
        if "loop" in meta.find_undeclared_variables(self._tree):
            return None
        names = [*self._direct, *([ROW] if self._through_row else [])]
        targets: list[nodes.Expr] = [nodes.Name(name, "store") for name in names]
        target = targets[0] if len(targets) == 1 else nodes.Tuple(targets, "store")
        tree = bounded(self._environment.parse(self._source))
        begin = [nodes.ExprStmt(calling("begin", []))] if has_loops(tree) else []
        body = [*begin, *tree.body, nodes.Output([nodes.TemplateData(SEPARATOR)])]
        loop = nodes.For(target, nodes.Name(_ROWS, "load"), body, [], None, False)  # noqa: FBT003  # Jinja's node
        try:
            return self._environment.from_string(nodes.Template([loop], lineno=1))
        except TemplateSyntaxError:  # valid alone but not in a loop, such as setting `loop`
            return None

    def _bound(self, rows: list[tuple[Any, ...]]) -> Iterator[Any]:
        """What the loop's targets take from each row."""
        if not self._through_row:
            at = [self.columns.index(name) for name in self._direct]
            if len(at) == 1:
                return (row[at[0]] for row in rows)
            return (tuple(row[i] for i in at) for row in rows) if at != list(range(len(self.columns))) else iter(rows)
        dicts = (dict(zip(self.columns, row, strict=True)) for row in rows)
        if not self._direct:
            return iter(dicts)
        return ((*(values[name] for name in self._direct), values) for values in dicts)


def _fixed_name(node: nodes.Node) -> str | None:
    """The column in `row["a column"]` or `row.column`."""
    if not isinstance(node, nodes.Getitem | nodes.Getattr):
        return None
    if not (isinstance(node.node, nodes.Name) and node.node.name == ROW):
        return None
    if isinstance(node, nodes.Getattr):
        return node.attr
    return node.arg.value if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str) else None


def _unknown_column(name: str, available: Sequence[str]) -> tuple[str]:
    close = difflib.get_close_matches(name[:SHORT], available[:1_000], n=1)
    hint = f"; did you mean {printable(close[0], SHORT)!r}?" if close else ""
    has = some_names(available, SHOWN_COLUMNS)
    return (f"the prompt uses a column {printable(name, SHORT)!r} that the input does not have{hint} (it has: {has})",)


def blank(value: Any) -> bool:
    """Whether a value is null, or text without a visible character."""
    return value is None or (isinstance(value, str) and (not value or value.isspace()))
