"""Whatever became of the files of a state directory: the right output or one sentence, and nothing is paid twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import strategies as st

from flows.storage.state import StateDirectory
from tests.flows.test_state_files import (
    MORE,
    ROWS,
    Case,
    Directory,
    Files,
    check_right,
    of_the_same_place,
    ours,
    told,
)
from tests.flows.undecorated import reviews, write_texts
from tests.fuzz.mutations import KINDS, mutated
from tests.fuzz.rounds import check_rounds

HOW = ["delete", "empty", "yesterday", "foreign", "swap", *KINDS]
Damage = tuple[int, str, int]  # which file, what is done to it, a seed
DAMAGES = st.lists(st.tuples(st.integers(0, 50), st.sampled_from(HOW), st.integers(0, 2**32)), min_size=1, max_size=3)
CASES = st.tuples(DAMAGES, st.booleans())


def built(folder: str, texts: list[str | None], factory: pytest.TempPathFactory) -> tuple[Files, Case]:
    """An output with batches that are with the provider, and its files at an earlier time."""
    case = Case(factory.mktemp(folder) / "x")
    case.first(texts)
    yesterday = Directory(case.state.path).files()
    case.then(texts)
    return yesterday, case


def damage_one(state: StateDirectory, names: list[str], damage: Damage, yesterday: Files, foreign: Files) -> None:
    """Do one thing to one file that is still there."""
    which, how, number = damage
    name = names[which % len(names)]
    path = state.path / name
    if not path.is_file():
        return
    other: Callable[[Files], bytes | None] = lambda files: of_the_same_place(name, files)  # noqa: E731
    content = path.read_bytes()
    match how:
        case "delete":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "yesterday":
            path.write_bytes(other(yesterday) or content)
        case "foreign":
            path.write_bytes(other(foreign) or content)
        case "swap":
            path.write_bytes((state.path / names[number % len(names)]).read_bytes())
        case _:
            path.write_bytes(mutated(content, how, number))


@pytest.mark.slow
def test_any_damage_to_a_state_is_survived_or_said(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One to three files at once, with the same rows or with others before and behind them."""
    all_rows = Case(tmp_path_factory.mktemp("answers") / "x")
    all_rows.ask(reviews(ROWS + MORE))
    answers = told(all_rows.output)
    yesterday, case = built("case", reviews(ROWS), tmp_path_factory)
    _, other = built("foreign", reviews(ROWS)[::-1], tmp_path_factory)
    foreign = Directory(other.state.path).files()
    directory = Directory(case.folder)
    directory.remember()
    others = [*reviews(ROWS + MORE)[ROWS:], *reviews(ROWS)]

    def attempt(found: tuple[list[Damage], bool]) -> None:
        damages, changed = found
        names = [name for name in Directory(case.state.path).files() if ours(name)]
        texts = others if changed else reviews(ROWS)
        try:
            if changed:
                write_texts(case.folder, texts)
            for damage in damages:
                damage_one(case.state, names, damage, yesterday, foreign)
            check_right(case, answers, str(damages), texts)
        finally:
            directory.put_back()

    check_rounds(attempt, CASES, 40)
