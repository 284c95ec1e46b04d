"""The tests themselves, read from the source: each says what it proves, proves something, and times nothing."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py"))
FEWEST_WORDS = 3
CLOCKS = {"time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "perf_counter_ns"}
PROVING = ("check", "assert", "expect")  # how helpers that assert are called
WITHOUT_ASSERT = {
    "test_what_a_schema_lets_through_its_column_can_hold": "reading raises where it is wrong",
    "test_what_a_form_may_send_passes_the_schema_and_the_flow": "both validations raise where they refuse",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def functions_in(path: Path) -> list[Function]:
    """The tests of a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, Function) and node.name.startswith("test_")]


def called(node: ast.AST) -> str:
    """The last part of the name that a call names; empty for what is no call."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def is_sentence(text: str | None) -> bool:
    return text is not None and text.rstrip().endswith((".", "!", "?")) and len(text.split()) >= FEWEST_WORDS


def reads_clock(node: ast.AST, times: set[str]) -> bool:
    return any(called(each) in CLOCKS or (isinstance(each, ast.Name) and each.id in times) for each in ast.walk(node))


def times_something(test: Function) -> bool:
    """Whether it asserts on how long something took: on a difference with a reading of the clock in it."""
    read = (each for each in ast.walk(test) if isinstance(each, ast.Assign) and reads_clock(each.value, set()))
    times = {target.id for each in read for target in each.targets if isinstance(target, ast.Name)}
    differences = (
        each
        for claim in ast.walk(test)
        if isinstance(claim, ast.Assert)
        for each in ast.walk(claim)
        if isinstance(each, ast.BinOp) and isinstance(each.op, ast.Sub)
    )
    return any(reads_clock(each, times) for each in differences)


def proves_something(test: Function) -> bool:
    return any(
        isinstance(node, ast.Assert) or called(node) in {"raises", "fail"} or called(node).startswith(PROVING)
        for node in ast.walk(test)
    )


def all_tests() -> list[Function]:
    """Of all files."""
    return [test for path in FILES for test in functions_in(path)]


def test_every_test_is_described_by_a_sentence() -> None:
    """What stands below a test's name tells a reader which behaviour it protects."""
    assert [test.name for test in all_tests() if not is_sentence(ast.get_docstring(test))] == []


def test_no_test_measures_time() -> None:
    """A busy machine must not fail a test; how fast something is, is the benchmark's business."""
    assert [test.name for test in all_tests() if times_something(test)] == []


def test_no_test_passes_whatever_happens() -> None:
    """Each has an assertion, expects an error, or calls a helper whose name says that it checks."""
    assert [t.name for t in all_tests() if not proves_something(t) and t.name not in WITHOUT_ASSERT] == []


def test_exceptions_are_needed() -> None:
    """A test that is gone or asserts by now is no exception any more."""
    assert {test.name for test in all_tests() if not proves_something(test)} == set(WITHOUT_ASSERT)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("begun = time.monotonic()\n    assert time.monotonic() - begun < 5", True),
        ("begun = perf_counter()\n    end = perf_counter()\n    assert end - begun < 5", True),
        ("end = time.monotonic() + 5\n    assert time.monotonic() < end", False),
        ("assert rows - 1 == 5", False),
    ],
)
def test_measured_time_is_found(body: str, *, found: bool) -> None:
    """A deadline that ends a wait is no measurement."""
    (test,) = ast.parse(f"def test_it():\n    {body}\n").body
    assert isinstance(test, ast.FunctionDef)
    assert times_something(test) is found
