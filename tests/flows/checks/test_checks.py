"""What doctor finds out about machine and providers, and that no check can hang it."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from blocks.catalog import PROVIDERS
from blocks.connections import connection_for
from blocks.errors import StateError
from flows.checks import check, server
from flows.checks.check import Check, Finding, Level, exit_status, run_checks
from flows.checks.doctor import check_state
from flows.checks.machine import check_disk, check_locks
from flows.checks.providers import check_clock, check_keys, check_prices
from flows.domain.job import Job
from flows.spec import Spec
from flows.storage.state import StateDirectory
from tests.blocks.scripted import Say, free_port, serving
from tests.flows.undecorated import enrich, reviews, write_job, write_texts

OK = Finding("fine", Level.OK, "all is well")


def levels(findings: Iterable[Finding]) -> list[Level]:
    return [each.level for each in findings]


def test_a_check_that_hangs_is_given_up_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long is named while it does."""
    monkeypatch.setattr(check, "TOLD_AFTER", 0.01)
    never, told = threading.Event(), list[str]()
    hanging = Check("disk", "a disk", 0.05, lambda: [OK] if never.wait(60) else [])
    found = list(run_checks([hanging, Check("fine", "all", 5, lambda: [OK])], told.append))
    never.set()
    assert told == ["checking a disk …"]
    assert levels(found) == [Level.PROBLEM, Level.OK]
    assert "no end of checking a disk" in found[0].what


@pytest.mark.parametrize(
    "error", [StateError("away", next_step="start it"), OSError(28, "no space left"), ZeroDivisionError("a bug")]
)
def test_a_check_that_fails_is_a_problem(error: Exception) -> None:
    """Never a traceback; what there is to do is said, and the exit status is 1."""

    def fail() -> list[Finding]:
        raise error

    (found,) = run_checks([Check("disk", "a disk", 5, fail)], print)
    assert found.level is Level.PROBLEM
    assert found.advice
    assert found.line().startswith("problem: disk ")
    assert exit_status([OK]) == 0
    assert exit_status([OK, found]) == 1


def test_a_finding_is_one_printable_line() -> None:
    """It may quote a server or a file name."""
    line = Finding("blocks", Level.WARNING, "saved: a\n\x1b[2Jb", "do c").line()
    assert line.isprintable()
    assert line.startswith("warning: blocks ")
    assert line.endswith(" → do c")


@pytest.mark.parametrize(
    ("free", "level"), [(50 * 10**9, Level.OK), (5 * 10**8, Level.WARNING), (10**7, Level.PROBLEM)]
)
def test_room_on_the_disk_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: Level) -> None:
    """Too little of it stops a run."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=10**12, used=0, free=free))
    assert set(levels(check_disk(tmp_path))) == {level}


def test_locks_are_tried_with_a_second_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems grant every lock: that is said, and nothing is left behind."""
    assert levels(check_locks(tmp_path)) == [Level.OK]
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)  # as such a file system does
    (found,) = check_locks(tmp_path)
    assert (found.level, "keep nobody out" in found.what) == (Level.WARNING, True)
    assert list(tmp_path.iterdir()) == []


def test_keys_are_named_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither they nor how long they are; one that can't be a key is a problem."""
    for entry in PROVIDERS.values():
        monkeypatch.delenv(entry.key_variable, raising=False)
    assert levels(check_keys()) == [Level.WARNING]
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    (found,) = check_keys()
    assert "OPENAI_API_KEY (openai); not: HOLYSHEEP_API_KEY" in found.what
    monkeypatch.setenv("MISTRAL_API_KEY", "two\nlines")
    problem, _ = check_keys()
    assert (problem.level, "MISTRAL_API_KEY has a character" in problem.what) == (Level.PROBLEM, True)
    assert not any(word in f"{found} {problem}" for word in ("sk-secret", "lines", "9"))


def spec(model: str) -> Spec:
    job = Job.model_validate({"name": "j", "model": model, "prompt": "p", "output": {"a": {"type": "string"}}})
    return Spec(job, model, connection_for("local", None, {}))


def test_prices_have_a_date_and_models_without_one_are_named() -> None:
    """An old table is a warning, and so is a model of the output that is not in it."""
    today = date(2026, 12, 1)
    assert levels(check_prices([spec("gpt-4.1")], today)) == [Level.OK]
    found = list(check_prices([spec("new-model")], today + timedelta(days=365)))
    assert levels(found) == [Level.WARNING, Level.WARNING]
    assert "no price for new-model at holysheep" in found[1].what


@pytest.mark.parametrize(
    ("ahead", "level", "words"),
    [(2, Level.OK, "as at"), (-60, Level.WARNING, "60 s behind"), (7_200, Level.PROBLEM, "7,200 s ahead of")],
)
def test_the_clock_is_compared_with_a_providers(ahead: int, level: Level, words: str) -> None:
    """By the header of its answer, whatever else it answers; no key is sent for that."""
    now = datetime(2026, 12, 1, 12, tzinfo=UTC)
    date_line = {"date": "Tue, 01 Dec 2026 12:00:00 GMT"}
    with serving(Say(401, headers=date_line)) as provider:
        (found,) = check_clock({"": [provider.url]}, lambda: now + timedelta(seconds=ahead))
        assert [asked.headers.get("authorization") for asked in provider.asked] == [None]
    assert found.level is level
    assert words in found.what


def test_a_provider_that_is_not_reached_is_a_warning_in_words() -> None:
    """The next one of its group may answer."""
    nobody = f"http://127.0.0.1:{free_port()}"
    (found,) = check_clock({"": [nobody]})
    assert (found.level, "can't be reached" in found.what) == (Level.WARNING, True)
    with serving(Say(404)) as provider:
        assert levels(check_clock({"": [nobody, provider.url]})) == [Level.OK]


def test_the_state_of_an_output_is_judged(tmp_path: Path) -> None:
    """Begun or not, whole or not, and who works on it."""
    output = tmp_path / "out.parquet"
    (found,) = check_state(output)
    assert "was not begun yet" in found.what
    enrich(input=str(write_texts(tmp_path, reviews(2))), output=str(output), job=str(write_job(tmp_path)))
    (found,) = check_state(output)
    assert (found.level, "nobody works on it" in found.what) == (Level.OK, True)
    with StateDirectory(output).locked():
        (found,) = check_state(output)
        assert "worked on by process" in found.what
    StateDirectory(output).journal.unlink()
    (problem,) = run_checks([Check("state", "it", 5, lambda: check_state(output))], print)
    assert "is missing, or shorter than it was" in problem.what


@pytest.mark.parametrize(
    ("storage", "version", "expected"),
    [
        ("prefect.server.concurrency.lease_storage.filesystem", "3.8.8", [Level.OK, Level.OK]),
        ("prefect.server.concurrency.lease_storage.memory", "3.8.8", [Level.OK, Level.WARNING]),
        (None, "3.7.0", [Level.WARNING]),
    ],
)
def test_a_server_that_forgets_or_is_another_version_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, storage: str | None, version: str, expected: list[Level]
) -> None:
    """With what to set, and what to install."""
    from flows.orchestration import inspection  # noqa: PLC0415  # Prefect takes seconds to import

    found = inspection.Server("http://127.0.0.1:4200/api", version, "3.8.8", storage)
    monkeypatch.setattr(inspection, "inspect_server", lambda: found)
    findings = list(server.ServerChecks(lambda _: None, free_slots=False).server())
    assert levels(findings) == expected
    assert all(each.advice for each in findings if each.level is not Level.OK)
