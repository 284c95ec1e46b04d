"""Answers that were billed and do not reach us: nothing is asked twice that need not be, and what is lost is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina

from blocks.retries import ATTEMPTS
from flows.report.figures import Figures
from flows.report.markdown import markdown
from flows.report.verdict import Exit
from tests.flows.test_dialects import books, call, check_paid_once
from tests.flows.undecorated import enrich

WITH_FILES = pytest.mark.parametrize("dialect", ["openai", "anthropic", "mistral"])
ROWS = 12


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Calls are repeated as often as in earnest, without waiting."""
    with stamina.set_testing(True, attempts=ATTEMPTS):
        yield


def run(folder: Path, dialect: str, **switches: Any) -> Figures:
    return enrich(**call(folder, dialect, ROWS, **switches))


@WITH_FILES
@pytest.mark.parametrize(("switch", "outcome"), [("lost_line_rate", "vanished"), ("torn_line_rate", "unreadable")])
def test_what_was_billed_and_lost_is_asked_again_and_counted(
    tmp_path: Path, dialect: str, switch: str, outcome: str
) -> None:
    """Each row gets its answer; the bill and the report say how many were paid for nothing."""
    figures = run(tmp_path, dialect, **{switch: 0.3})
    lost = figures.outcomes[outcome]
    assert figures.rows == {"ok": ROWS}
    assert figures.outcomes == {"ok": ROWS, outcome: lost}
    assert (figures.lost, figures.unmetered) == (lost, lost)
    assert books(tmp_path, "SELECT count(*) FROM billed") == [(ROWS + lost,)]
    assert "can't be read or " in markdown(figures)
    assert figures.details()["answers_billed_and_lost"] == lost


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
@pytest.mark.parametrize("switches", [{"late_file": 0.3}, {"file_objects": 1}])
def test_files_that_are_named_late_or_by_an_object_are_waited_for_and_read(
    tmp_path: Path, dialect: str, switches: dict[str, Any]
) -> None:
    """Nothing is asked again meanwhile."""
    assert run(tmp_path, dialect, **switches).rows == {"ok": ROWS}
    check_paid_once(tmp_path, ROWS)


@WITH_FILES
def test_a_page_of_a_proxy_stops_the_run_and_nothing_is_asked_again(tmp_path: Path, dialect: str) -> None:
    """However often it comes; the same command reads the answers once they can be read."""
    figures = run(tmp_path, dialect, page_every=1)
    assert (figures.exit, figures.rows) == (Exit.ERROR, {"pending": ROWS})
    assert "can't be read" in figures.message
    check_paid_once(tmp_path, ROWS)
    assert run(tmp_path, dialect).rows == {"ok": ROWS}
    check_paid_once(tmp_path, ROWS)


@pytest.mark.parametrize(
    ("dialect", "switches", "most"),  # bytes: fewer than twelve answers take, more than two
    [("mistral", {"without_files": 1}, 3_000), ("gemini", {}, 9_000)],
)
def test_answers_of_more_bytes_than_are_read_are_left_to_the_user(
    tmp_path: Path, dialect: str, switches: dict[str, Any], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come in one JSON. Nothing is asked again until the user says so, and smaller batches can be read."""
    monkeypatch.setattr("blocks.transport.MOST", most)
    figures = run(tmp_path, dialect, **switches)
    assert (figures.exit, figures.rows) == (Exit.ERROR, {"pending": ROWS})
    assert "in one piece" in figures.message
    assert "--on-unknown resubmit" in figures.message
    check_paid_once(tmp_path, ROWS)
    again = enrich(**call(tmp_path, dialect, ROWS, batch_size=2, **switches), on_unknown="resubmit")
    assert again.rows == {"ok": ROWS}
    assert books(tmp_path, "SELECT count(*), count(DISTINCT prompt_hash) FROM billed") == [(2 * ROWS, ROWS)]


@WITH_FILES
def test_numbers_that_no_request_has_are_no_usage(tmp_path: Path, dialect: str) -> None:
    """The answer counts, its cost is unknown, and no sum breaks."""
    figures = run(tmp_path, dialect, poison_rate=0.5)
    assert figures.rows == {"ok": ROWS}
    assert 0 < figures.unmetered < ROWS
    assert figures.money.total is not None
    assert figures.money.total > 0
    check_paid_once(tmp_path, ROWS)


@WITH_FILES
def test_a_failure_before_an_answer_is_no_reason_to_ask_again(tmp_path: Path, dialect: str) -> None:
    """In whatever order the two come."""
    assert run(tmp_path, dialect, false_start_rate=0.5, shuffled=1).rows == {"ok": ROWS}
    check_paid_once(tmp_path, ROWS)
