"""A short text that matches a regular expression, for `pattern` in schemas; best effort."""

import re
from importlib import import_module
from typing import Any

MAX_MORE = 64  # further repetitions tried to reach the minimum length
UNMATCHED = ""


def matching_text(pattern: str, shortest: int = 0) -> str:
    """The plainest text of at least `shortest` characters that matches; empty if none is found."""
    try:
        tree = import_module("re._parser").parse(pattern)
        compiled = re.compile(pattern)
    except (ImportError, re.error, OverflowError, RecursionError):
        return UNMATCHED
    for more in range(MAX_MORE):
        text = write(tree, more)
        if len(text) >= shortest and compiled.search(text):
            return text
    return UNMATCHED


def write(tree: Any, more: int) -> str:
    """The text of a parsed expression, with `more` repetitions than needed."""
    return "".join(write_node(str(kind), argument, more) for kind, argument in tree)


def write_node(kind: str, argument: Any, more: int) -> str:
    """One node of the parsed expression; anchors and look-arounds write nothing."""
    if kind.endswith("_REPEAT"):
        least, most, inner = argument
        times: int = min(int(most), max(least + more, 1 if most else 0))
        return write(inner, more) * times
    if kind == "SUBPATTERN":
        return write(argument[-1], more)
    if kind == "BRANCH":
        return write(argument[1][0], more)
    return write_character(kind, argument)


def write_character(kind: str, argument: Any) -> str:
    """One character of a kind that stands for one; anything else writes nothing."""
    if kind in ("LITERAL", "RANGE"):
        return chr(argument if kind == "LITERAL" else argument[0])
    if kind in ("ANY", "NOT_LITERAL"):
        return "b" if argument == ord("a") else "a"
    if kind == "CATEGORY":
        return {"CATEGORY_DIGIT": "0", "CATEGORY_SPACE": " ", "CATEGORY_NOT_WORD": " "}.get(str(argument), "a")
    return write_one_of(argument) if kind == "IN" else ""


def write_one_of(members: Any) -> str:
    """The first member of a set; of a negated set some character that is not in it, as far as can be seen."""
    kinds = [(str(kind), argument) for kind, argument in members]
    if kinds[0][0] != "NEGATE":
        return write_character(*kinds[0])
    excluded = {write_character(*kind) for kind in kinds[1:]}
    return next((character for character in "a0Z _" if character not in excluded), "a")
