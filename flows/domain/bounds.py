"""Bounds of what a template may do: steps counted, sizes known before anything is made.

Jinja's sandbox keeps a template from reading what is not its own; it does not keep it from working for ever or from
filling the memory. Work is counted, not timed: a prompt that was rendered once is rendered again after a crash.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from itertools import islice
from typing import Any

from jinja2 import nodes
from jinja2.filters import FILTERS
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

LONGEST_TEXT = 10_000_000  # characters of a prompt, and of every text on the way to it
MOST_STEPS = 100_000  # of all loops of a row's prompt together; also items of a list that a template makes
MOST_BITS = 10_000  # of a whole number
ITEM = 10  # what an item weighs, in characters
PADDED = 5  # digits of a width that nobody wants
_CHUNK = 4_096  # pieces of output that are measured at once
_PADDING = re.compile(r"[%{][^%{}A-Za-z]{0,40}(?:\*|\d{5})|\{[^{}]{0,200}[:!][^{}]{0,200}\{")
_GONE = ("random", "urlize", "xmlattr")  # filters that no prompt needs


class TooMuch(Exception):
    """A template that makes more than any prompt needs."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox whose templates end. Parse with `bounded` what is compiled in it."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.filters = {name: _weighed(name, found) for name, found in FILTERS.items() if name not in _GONE}
        self._thread = threading.local()

    def begin(self) -> None:
        """A row's prompt begins: its steps are counted anew."""
        self._thread.steps = 0

    def step(self) -> None:
        """Called in each round of a loop and in each call of a macro."""
        self._thread.steps += 1
        if self._thread.steps > MOST_STEPS:
            raise TooMuch(f"its loops take more than {MOST_STEPS:,} steps")

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """Joins what a template puts out."""
        found, length, rest = [], 0, iter(pieces)
        while chunk := list(islice(rest, _CHUNK)):
            length += sum(map(len, chunk))
            _check_length(length)
            found.append("".join(chunk))
        return found[0] if len(found) == 1 else "".join(found)

    def join(self, parts: list[Any]) -> str:
        """The operator `~`."""
        _check_length(weight(parts))
        return "".join(map(str, parts))

    def call(self, context: Context, function: Any, *arguments: Any, **named: Any) -> Any:
        """Called for each call in a template."""
        subject = getattr(function, "__self__", None)
        if isinstance(subject, str | bytes):
            _check_method(subject, function.__name__, arguments)
        return super().call(context, function, *arguments, **named)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Nothing needs these, and each fills the memory in one call."""
        return attr not in {"to_bytes", "expandtabs", "translate"} and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`"{}".format`, whose widths and arguments are looked at first."""
        inner = super().wrap_str_format(value)
        if inner is None:
            return None

        def bounded_format(*arguments: Any, **named: Any) -> str:
            _check_format(value.__self__, [*arguments, *named.values()])
            return inner(*arguments, **named)

        return bounded_format

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The operators whose result may be larger than both sides together."""
        if isinstance(left, int) and isinstance(right, int):
            _check_bits(operator, left, right)
        elif operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, str | bytes | list | tuple) and isinstance(times, int):
                    _check_length(weight(sequence) * max(0, times))
        elif operator == "+":
            _check_length(weight([left, right]) if isinstance(left, str | bytes | list | tuple) else 0)
        elif operator == "%" and isinstance(left, str | bytes):
            _check_format(left, right)
        return super().call_binop(context, operator, left, right)


def bounded(tree: nodes.Template) -> nodes.Template:
    """The same template, counting its steps."""
    counted: nodes.Template = _Counting().visit(tree)
    return counted


def has_loops(tree: nodes.Template) -> bool:
    """Whether it takes any steps."""
    return any(True for _ in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)))


def calling(method: str, arguments: list[nodes.Expr]) -> nodes.Call:
    """A call of the environment's own method, which no name of a template can hide."""
    return nodes.Call(nodes.EnvironmentAttribute(method), arguments, [], None, None)


class _Counting(NodeTransformer):
    def _count(self, node: Any) -> Any:
        node = self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(calling("step", [])))
        return node

    visit_For = visit_Macro = visit_CallBlock = _count  # noqa: N815  # the names that Jinja looks for

    def visit_Concat(self, node: Any) -> Any:  # noqa: N802  # the name that Jinja looks for
        node = self.generic_visit(node)
        return calling("join", [nodes.List(node.nodes)])


def weight(value: Any) -> int:
    """About how many characters a value has when it is written out: one that is listed twice counts twice."""
    total, left = 0, [value]
    while left:
        each = left.pop()
        if isinstance(each, str | bytes):
            total += len(each)
            continue
        total += ITEM
        if isinstance(each, Mapping):
            left += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple | set | frozenset):
            total += ITEM * len(each)
            left += each
        _check_length(total)
    return total


def _check_length(length: int) -> None:
    if length > LONGEST_TEXT:
        raise TooMuch(f"it has, or makes on the way, more than {LONGEST_TEXT:,} characters")


def _check_bits(operator: str, left: int, right: int) -> None:
    bits = {"*": left.bit_length() + right.bit_length(), "**": left.bit_length() * abs(right)}.get(operator, 0)
    if bits > MOST_BITS:
        raise TooMuch(f"it makes a number of more than {MOST_BITS:,} bits")


def _check_format(pattern: Any, arguments: Any) -> None:
    """Wide fields, and many fields with long texts."""
    text = pattern.decode("latin-1") if isinstance(pattern, bytes) else str(pattern)
    if _PADDING.search(text):
        raise TooMuch("it formats a field that is very wide")
    _check_length(len(text) + (text.count("%") + text.count("{")) * (weight(arguments) + 10**PADDED))


def _check_method(subject: Any, name: str, arguments: tuple[Any, ...]) -> None:
    numbers = [each for each in arguments if isinstance(each, int)]
    if name in {"center", "ljust", "rjust", "zfill"}:
        _check_length(max(numbers, default=0))
    elif name == "replace" and len(arguments) > 1:
        _check_length(len(subject) + (subject.count(arguments[0]) + 1) * len(arguments[1]))
    elif name == "join" and arguments and isinstance(arguments[0], list | tuple | Mapping):
        _check_length(weight(arguments[0]) + len(subject) * len(arguments[0]))


def _weighed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that looks at the size of what it is given, and of what it will make, first."""

    @wraps(function)
    def weighed(*arguments: Any, **named: Any) -> Any:
        given = arguments[1:] if hasattr(function, "jinja_pass_arg") else arguments
        for each in given:
            if isinstance(each, list | tuple | dict):
                weight(each)
        if name == "join" and given and not isinstance(given[0], str | list | tuple | dict):
            items = list(islice(given[0], MOST_STEPS))
            arguments = (*arguments[: len(arguments) - len(given)], items, *given[1:])
            given = (items, *given[1:])
        _check_filter(name, [*given, *named.values()])
        return function(*arguments, **named)

    return weighed


def _check_filter(name: str, given: list[Any]) -> None:
    text = given[0] if given and isinstance(given[0], str) else ""
    numbers = [each for each in given[1:] if isinstance(each, int)]
    texts = [len(each) for each in given[1:] if isinstance(each, str)]
    match name:
        case "center" | "tojson" | "round" | "batch" | "slice" | "indent" | "truncate" if max(numbers, default=0) > 999:
            raise TooMuch(f"the filter {name} is given a number that is too large")
        case "indent":
            _check_length(len(text) + (text.count("\n") + 1) * max([*numbers, *texts, 0]))
        case "tojson":
            _check_length(weight(given[0]) * (max(numbers, default=0) + 1))
        case "join":
            _check_length(weight(given[0]) + max(texts, default=0) * len(given[0]))
        case "replace":
            _check_length(len(text) + (text.count(str(given[1])) + 1) * len(str(given[2])))
        case "wordwrap":
            _check_length(len(text) * max([*texts, 1]))
        case "format":
            _check_format(text, given[1:])
        case "striptags" | "wordcount" | "title":
            _check_length(len(text) * (1 + text.count("<!--")))
        case "sum" if any(isinstance(each, list | tuple) for each in given):
            _check_length(weight(given[0]) * len(given[0]) // MOST_STEPS)
