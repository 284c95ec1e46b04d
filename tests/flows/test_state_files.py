"""Every file of the state directory may be lost, cut, or replaced by an old or a foreign one: never a wrong answer.

Files are found, not listed: a new one is covered by being there. The emulator's database is the provider, and stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from blocks.errors import BatchwerkError
from flows.storage.state import StateDirectory
from tests.flows.undecorated import emulator_ledger, enrich, reviews, write_job, write_texts

ROWS, MORE = 12, 8
Files = dict[str, bytes]


class Directory:
    """A state directory that is put back, file by file, as it was: the same inodes, so that it is the same one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keep = folder.parent / f"{folder.name}.kept"
        self.before: Files = {}

    def files(self) -> Files:
        found = (path for path in self.folder.rglob("*") if path.is_file() and not path.is_relative_to(self.keep))
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in sorted(found)}

    def remember(self) -> None:
        self.before = self.files()
        self.times = {name: (self.folder / name).stat().st_mtime_ns for name in self.before}
        for name in self.before:
            link = self.keep / name
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(self.folder / name, link)

    def put_back(self) -> None:
        for name in self.files():
            (self.folder / name).unlink()
        for name, content in self.before.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(self.keep / name, path)
            path.write_bytes(content)
            os.utime(path, ns=(self.times[name], self.times[name]))


class Case:
    """An output with answers of two inputs and batches that are with the provider."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.output = folder / "out.parquet"
        self.parameters: dict[str, Any] = {
            "input": str(folder / "input.parquet"),
            "output": str(self.output),
            "job": str(write_job(folder)),
            "batch_size": 4,
        }
        self.state = StateDirectory(self.output)

    def ask(self, texts: list[str | None], **more: Any) -> None:
        write_texts(self.folder, texts)
        enrich(**{**self.parameters, **more})

    def first(self, texts: list[str | None]) -> None:
        """Half of the rows are asked and answered."""
        self.ask(texts, limit=ROWS // 2)

    def then(self, texts: list[str | None]) -> None:
        """All of them; the last batches are with the provider."""
        self.ask(texts, limit=ROWS - 2)
        self.ask(texts, wait=0, options={"latency": "1"})


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the emulator answers to each text."""
    case = Case(tmp_path_factory.mktemp("answers") / "x")
    case.ask(reviews(ROWS + MORE))
    return told(case.output)


@pytest.fixture(scope="module")
def yesterday_and_case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, Case, Directory]:
    case = Case(tmp_path_factory.mktemp("case") / "x")
    case.first(reviews(ROWS))
    yesterday = Directory(case.state.path).files()
    case.then(reviews(ROWS))
    directory = Directory(case.folder)
    directory.remember()
    return yesterday, case, directory


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of another output of the same rows in another order, at the same time of its life."""
    case = Case(tmp_path_factory.mktemp("foreign") / "x")
    case.first(reviews(ROWS)[::-1])
    case.then(reviews(ROWS)[::-1])
    return Directory(case.state.path).files()


def told(output: Path) -> dict[str, str]:
    """The answer to each text."""
    rows = pq.read_table(output, columns=["text", "sentiment", "topics", "_status"]).to_pylist()
    assert {row["_status"] for row in rows} == {"ok"}
    return {row["text"]: str((row["sentiment"], row["topics"])) for row in rows}


def delete(path: Path, _: bytes | None) -> bool:
    path.unlink()
    return True


def cut(path: Path, _: bytes | None) -> bool:
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)
    return True


def empty(path: Path, _: bytes | None) -> bool:
    with path.open("rb+") as file:
        file.truncate(0)
    return True


def replace(path: Path, other: bytes | None) -> bool:
    if other is not None and other != path.read_bytes():
        path.write_bytes(other)
        return True
    return False


def ours(name: str) -> bool:
    return not name.startswith("emulator-")


def of_the_same_place(name: str, files: Files) -> bytes | None:
    """What stands there in other files: under the same name, or, for a spec, under a name of the same kind."""
    alike = [content for other, content in files.items() if Path(other).parent == Path(name).parent == Path("specs")]
    return files.get(name, alike[-1] if alike else None)


def refusal(case: Case) -> BatchwerkError | None:
    """The sentence that a run ends with, if it does not get through."""
    try:
        enrich(**case.parameters)
    except BatchwerkError as error:
        return error
    return None


def check_right(case: Case, answers: dict[str, str], name: str, texts: list[str | None]) -> None:
    """The right output, or one sentence; then and later nothing is paid twice."""
    for _ in range(2):
        error = refusal(case)
        if error is None:
            assert told(case.output) == {text: answers[str(text)] for text in texts}, name
        else:
            assert "\n" not in error.message, name
            assert error.next_step, f"{name}: {error}"
        books = emulator_ledger(case.output, "SELECT count(*), count(DISTINCT prompt_hash) FROM billed")
        assert books[0][0] == books[0][1], f"{name} was paid twice"


DAMAGES: dict[str, tuple[Callable[[Path, bytes | None], bool], str]] = {
    "deleted": (delete, ""),
    "cut": (cut, ""),
    "emptied": (empty, ""),
    "yesterday's": (replace, "yesterday"),
    "another output's": (replace, "foreign"),
}


QUICK = ("deleted", True)  # the others take too long for every run of the tests


@pytest.mark.parametrize(
    ("damage", "changed"),
    [
        pytest.param(damage, changed, marks=[] if (damage, changed) == QUICK else [pytest.mark.slow])
        for damage in DAMAGES
        for changed in (False, True)
    ],
)
def test_a_file_that_is_not_what_it_was_never_gives_a_wrong_answer(
    yesterday_and_case: tuple[Files, Case, Directory],
    foreign: Files,
    answers: dict[str, str],
    damage: str,
    *,
    changed: bool,
) -> None:
    """Each file in turn, with the same rows and with others before and behind them."""
    yesterday, case, directory = yesterday_and_case
    act, source = DAMAGES[damage]
    others = {"": {}, "yesterday": yesterday, "foreign": foreign}[source]
    texts = [*reviews(ROWS + MORE)[ROWS:], *reviews(ROWS)] if changed else reviews(ROWS)
    acted = 0
    for name in filter(ours, Directory(case.state.path).files()):
        try:
            if changed:
                write_texts(case.folder, texts)
            if act(case.state.path / name, of_the_same_place(name, others)):
                acted += 1
                check_right(case, answers, f"{name} {damage}", texts)
        finally:
            directory.put_back()
    assert acted >= 3, "nothing was damaged"
