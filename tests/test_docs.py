"""What the documents say is true: their commands run, their links lead somewhere, their tables match the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from blocks import catalog
from blocks.emulator import EmulatorOptions
from flows.cli import app, call
from tests.pages import OPTIONS, options_page, providers_page

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
README, WIRE, PROVIDERS = ROOT / "README.md", ROOT / "docs/wire-protocols.md", ROOT / "docs/providers.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = (
    *("run", "plan", "status", "harvest", "cancel", "report", "setup", "emulator", "doctor", "history"),
    *("prices", "reconcile"),
)
ELSEWHERE = {  # options of other programs that the documents call
    "--all",
    "--markdown",
    "--no-prompt",
    "--only",
    "--pool",
    "--quick",
    "--runs",
    "--type",
}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*\b")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
# Folders are recognised between backticks only: elsewhere "flows/blocks" may just be two words.
NAMED_FILE = re.compile(r"\b(?:flows|blocks|tests|data|docs)/(?:[\w.-]+/)*[\w-]+\.(?:py|md|csv|yaml|parquet)\b")
NAMED_PATH = re.compile(r"`((?:flows|blocks|tests|data|docs)/[\w./-]*)`")
PROVIDER_OPTION = re.compile(r"--option ([a-z_]+)=")
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


@cache
def helped(command: str) -> Result:
    """What a command says of itself, without a process of its own: `batchwerk --help` below is one."""
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [command, "--help"], prog_name="batchwerk")


@pytest.fixture(scope="module")
def help_texts() -> dict[str, str]:
    """What each command prints for `--help`."""
    return {command: helped(command).stdout for command in COMMANDS}


@pytest.mark.prefect
@pytest.mark.xdist_group("prefect and secrets")  # its temporary server is not alone while it starts
def test_the_commands_for_own_data_work_as_the_readme_prints_them(tmp_path: Path) -> None:
    """The README's job file and its three commands enrich all sample rows in an empty folder."""
    (job,) = blocks_of(README, "yaml")
    (commands,) = [block for block in blocks_of(README, "sh") if "batchwerk report" in block]
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "data/reviews.parquet", tmp_path / "data")
    (tmp_path / "my_job.yaml").write_text(job, encoding="utf-8")
    elsewhere = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(
        ["bash", "-ec", commands.replace(".venv/bin/", f"{BIN}/")],
        cwd=tmp_path,
        env={**elsewhere, "PREFECT_HOME": str(tmp_path / "prefect")},
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
    assert done.exit_code == 0, done.output
    assert f"usage: batchwerk {command}" in done.stdout.lower()


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_provider_option_that_a_page_sets_exists(page: Path) -> None:
    """After `--option` stands an option of a provider, a limit of an account, or a switch of the emulator."""
    providers = {option for _, option in documented_options()}
    existing = providers | documented_limits() | {each.name for each in fields(EmulatorOptions)}
    assert set(PROVIDER_OPTION.findall(text_of(page))) - existing == set()


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
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    """Files and folders of the project that a page mentions are in the project."""
    named = {*NAMED_FILE.findall(text_of(page)), *NAMED_PATH.findall(text_of(page))}
    assert {path for path in named if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_is_longer_than_120_characters(page: Path) -> None:
    """Pages can be read in an editor as they are, apart from the rows of tables."""
    lines = enumerate(text_of(page).splitlines(), 1)
    assert [number for number, line in lines if len(line) > 120 and not line.startswith("|")] == []


def test_the_readme_is_a_page() -> None:
    """The README has at most 110 lines; what one looks up is elsewhere."""
    assert len(text_of(README).splitlines()) <= 110


def documented_keys() -> dict[str, str]:
    """The table of providers: the variable that holds the key of each."""
    return dict(re.findall(r"^\| `(\w+)` \| `([A-Z_]+)` \|", text_of(PROVIDERS), re.MULTILINE))


def documented_options() -> dict[tuple[str, str], list[str]]:
    """The table of options: provider and option, with the values in their order; a number has none."""
    rows = re.findall(r"^\| `(\w+)` \| `([a-z_]+)` \| (.+?) \|", text_of(PROVIDERS), re.MULTILINE)
    return {(provider, option): re.findall(r"`([^`]+)`", values) for provider, option, values in rows}


def documented_limits() -> set[str]:
    """The table of what an account may do."""
    return set(re.findall(r"^\| `(max_\w+)` \|", text_of(PROVIDERS), re.MULTILINE))


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the command says of a call that it refuses."""
    source, job, output = ROOT / "data/reviews.parquet", ROOT / "data/jobs/reviews_en.yaml", tmp_path / "out.parquet"

    def message(provider: str, *options: str) -> str:
        more = [argument for option in options for argument in ("--option", option)]
        arguments = ["run", str(source), str(output), "--job", str(job), "--provider", provider, *more]
        assert call(arguments) == 2
        return capsys.readouterr().err.strip()

    return message


def listed(message: str) -> list[str]:
    """What the last line of a message lists, between commas."""
    return re.findall(r"([\w./-]+)(?=,|$| or | and )", message.splitlines()[-1])


def test_the_table_of_providers_is_complete(refused: Callable[..., str]) -> None:
    """It has the providers that the command knows."""
    assert {"local", *documented_keys()} <= set(listed(refused("unheard-of")))
    assert len(listed(refused("unheard-of"))) == len(documented_keys()) + 2  # the emulator, and an example of a block


@pytest.mark.parametrize("provider", documented_keys())
def test_the_table_of_providers_names_the_keys(
    provider: str, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the variable on the page, the command asks for it."""
    variable = documented_keys()[provider]
    monkeypatch.delenv(variable, raising=False)
    assert variable in refused(provider)


UNITS = {"MB": 10**6, "GB": 10**9, "MiB": 2**20}


@pytest.mark.parametrize("provider", documented_keys())
def test_the_table_of_providers_has_the_limits(provider: str) -> None:
    """What a batch holds at most is what batches are cut to."""
    row = rf"^\| `{provider}` \| `[A-Z_]+` \| ([\d,]+) requests, (\d+) (MB|GB|MiB) \|"
    ((requests, size, unit),) = re.findall(row, text_of(PROVIDERS), re.MULTILINE)
    limits = catalog.PROVIDERS[provider].limits
    assert (limits.max_requests, limits.max_bytes) == (int(requests.replace(",", "")), int(size) * UNITS[unit])


@pytest.mark.parametrize("provider", documented_keys())
def test_the_tables_of_options_are_complete(provider: str, refused: Callable[..., str]) -> None:
    """Options and limits on the page are those that the command accepts."""
    own = {option for name, option in documented_options() if name == provider}
    assert set(listed(refused(provider, "unheard_of=1"))) == own | documented_limits()


@pytest.mark.parametrize(("provider", "option"), documented_options())
def test_the_table_of_options_has_the_values(provider: str, option: str, refused: Callable[..., str]) -> None:
    """Each option takes the values on the page, the default first, or a number of seconds."""
    values, message = documented_options()[provider, option], refused(provider, f"{option}=unheard-of")
    assert listed(message) == values if values else "number of seconds" in message


def test_the_page_of_options_is_what_the_parameters_declare() -> None:
    """Whoever adds a parameter writes the page anew: `python -m tests.pages`."""
    assert text_of(OPTIONS) == options_page()


def test_the_tables_of_provider_options_are_what_the_catalog_declares() -> None:
    """Whoever adds an option or a provider writes the page anew: `python -m tests.pages`."""
    assert text_of(PROVIDERS) == providers_page(text_of(PROVIDERS))
