"""What the documents say is true: their commands run, their links lead somewhere, their tables match the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from urllib.parse import unquote

import pyarrow.parquet as pq
import pytest

from blocks.emulator import EmulatorOptions
from tests.options_page import PAGE, options_page

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
README, WIRE, PROVIDERS = ROOT / "README.md", ROOT / "docs/wire-protocols.md", ROOT / "docs/providers.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = ("run", "plan", "status", "cancel", "report", "setup", "emulator")
ELSEWHERE = {  # options of other programs that the documents call
    "--all",
    "--no-prompt",
    "--pool",
    "--quick",
    "--type",
}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*\b")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
NAMED_PATH = re.compile(r"\b(?:flows|blocks|tests|data|docs)/(?:[\w.-]+/)*[\w-]+\.(?:py|md|csv|yaml|parquet)\b")
CITATION = re.compile(r"§\s?(\d+(?:\.\d+)?)")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks_of(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return [body for named, body in FENCE.findall(text_of(page)) if named == language]


def prose_of(page: Path) -> str:
    return FENCE.sub("", text_of(page))


def anchors_of(page: Path) -> set[str]:
    """The anchors that headings get on GitHub."""
    titles = (re.sub(r"[^\w\- ]", "", title.strip().lower()) for title in HEADING.findall(prose_of(page)))
    return {title.replace(" ", "-") for title in titles}


def helped(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "batchwerk", command, "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def help_texts() -> dict[str, str]:
    """What each command prints for `--help`."""
    return {command: helped(command).stdout for command in COMMANDS}


@pytest.mark.prefect
def test_the_commands_for_own_data_work_as_the_readme_prints_them(tmp_path: Path) -> None:
    """The README's job file and its three commands enrich all sample rows in an empty folder."""
    (job,) = blocks_of(README, "yaml")
    (commands,) = [block for block in blocks_of(README, "sh") if "batchwerk report" in block]
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "data/reviews.parquet", tmp_path / "data")
    (tmp_path / "my_job.yaml").write_text(job, encoding="utf-8")
    done = subprocess.run(
        ["bash", "-ec", commands.replace(".venv/bin/", f"{BIN}/")],
        cwd=tmp_path,
        env={**os.environ, "PREFECT_HOME": str(tmp_path / "prefect")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "out/mine.parquet")
    assert table.num_rows == pq.read_metadata(ROOT / "data/reviews.parquet").num_rows
    assert set(table.column("_status").to_pylist()) == {"ok", "skipped"}
    assert {"sentiment", "topics"} <= set(table.column_names)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    """`--help` of each command succeeds and prints its usage."""
    done = helped(command)
    assert done.returncode == 0, done.stderr
    assert "usage: batchwerk" in done.stdout.lower()


def test_the_list_of_commands_is_complete() -> None:
    """The commands checked here are those that `batchwerk --help` lists."""
    done = subprocess.run(
        [BIN / "batchwerk", "--help"], capture_output=True, text=True, timeout=120, check=True, cwd=ROOT
    )
    listed = re.findall(r"^  ([a-z]+)  ", done.stdout.partition("Commands:")[2], re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)


def test_every_option_of_run_is_documented(help_texts: dict[str, str]) -> None:
    """Whatever `run --help` prints is explained in some page."""
    documented = {option for page in PAGES for option in OPTION.findall(text_of(page))}
    printed = set(OPTION.findall(help_texts["run"]))
    assert printed
    assert printed - documented == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_that_a_page_names_exists(page: Path, help_texts: dict[str, str]) -> None:
    """No page mentions an option that no command has."""
    existing = {option for text in help_texts.values() for option in OPTION.findall(text)} | ELSEWHERE
    assert set(OPTION.findall(text_of(page))) - existing == set()


def test_every_switch_that_the_emulators_page_names_exists() -> None:
    """The table of things to rehearse names switches of the emulator only."""
    table = "\n".join(line for line in text_of(ROOT / "docs/emulator.md").splitlines() if line.startswith("|"))
    named = set(re.findall(r"`(\w+)`", table))
    assert named
    assert named - {each.name for each in fields(EmulatorOptions)} == set()


def cited_sections() -> Iterator[tuple[str, str]]:
    """Every section number that a comment or docstring cites, and the file that does."""
    for folder in ("blocks", "flows", "tests", "data"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path != Path(__file__).resolve():
                yield from ((number, str(path.relative_to(ROOT))) for number in CITATION.findall(text_of(path)))


def test_every_cited_section_exists() -> None:
    """A `§` in the code leads to a heading of the page on wire protocols."""
    numbers = set(re.findall(r"^#{2,3} (\d+(?:\.\d+)?) ", text_of(WIRE), re.MULTILINE))
    cited = list(cited_sections())
    assert cited
    assert [(number, path) for number, path in cited if number not in numbers] == []


def test_every_section_on_wire_protocols_names_its_sources() -> None:
    """A section without subsections ends with where its facts are from."""
    sections = re.split(r"^#{2,3} (?=\d)", text_of(WIRE), flags=re.MULTILINE)[1:]
    bodies = [section.partition("\n") for section in sections]
    assert [
        title for title, _, body in bodies if body.strip() and not re.search(r"^Sources?: ", body, re.MULTILINE)
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """Links between pages name an existing file and, after `#`, one of its headings."""
    broken = []
    for link in LINK.findall(prose_of(page)):
        if "://" in link:
            continue
        name, _, anchor = unquote(link).partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    """A path of the project in the text is a path in the project."""
    assert {path for path in NAMED_PATH.findall(text_of(page)) if not (ROOT / path).is_file()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_is_longer_than_120_characters(page: Path) -> None:
    """Pages can be read in an editor as they are, apart from the table that the code writes."""
    lines = [] if page == PAGE else text_of(page).splitlines()
    assert [number for number, line in enumerate(lines, 1) if len(line) > 120] == []


def test_the_readme_is_a_page() -> None:
    """The README has at most 110 lines; what one looks up is elsewhere."""
    assert len(text_of(README).splitlines()) <= 110


def documented_options() -> dict[tuple[str, str], tuple[str, ...]]:
    """The table of options: provider and option, with the values in their order, the default first."""
    rows = re.findall(r"^\| `(\w+)` \| `([a-z_]+)` \| (.+?) \|", text_of(PROVIDERS), re.MULTILINE)
    return {(provider, option): tuple(re.findall(r"`([^`]+)`", values)) for provider, option, values in rows}


def test_the_table_of_options_is_the_catalogs() -> None:
    """Providers, options, values and defaults on the page are those of the code; a number has no values."""
    from blocks.catalog import ENTRIES, NUMBER  # noqa: PLC0415  # only this test knows the catalogue's form

    offered = {
        (provider, option): () if values is NUMBER else tuple(values)
        for provider, entry in ENTRIES.items()
        for option, values in entry.options.items()
    }
    assert documented_options() == offered


def test_the_page_of_options_is_what_the_parameters_declare() -> None:
    """Whoever adds a parameter writes the page anew: `python -m tests.options_page`."""
    assert PAGE.read_text(encoding="utf-8") == options_page()
