"""`report --open` and `history`, as they are called."""

from __future__ import annotations

import webbrowser
from decimal import Decimal
from pathlib import Path

import orjson
import pytest

from blocks.errors import BatchwerkError
from flows.cli import call
from flows.storage.state import StateDirectory
from tests.flows.report.reports import Reported, run_reported
from tests.flows.undecorated import reviews


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """Two runs, the second of which has nothing to do."""
    folder = tmp_path_factory.mktemp("reported")
    run_reported(folder, options={})
    return run_reported(folder, options={})


def test_open_draws_the_page_anew_and_shows_it(
    reported: Reported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is beside report.json, private, and says what that says now."""
    asked: list[str] = []

    def open_browser(address: str) -> bool:
        asked.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", open_browser)
    state = StateDirectory(reported.output)
    state.report("html").write_text("old", encoding="utf-8")
    assert call(["report", str(reported.output), "--open"]) == 0
    assert asked == [state.report("html").resolve().as_uri()]
    assert capsys.readouterr().out == f"page: {state.report('html')}\n"
    assert f'value="{reported.json["total_cost_usd"]}"' in state.report("html").read_text(encoding="utf-8")
    assert state.report("html").stat().st_mode & 0o777 == 0o600


def test_without_a_browser_it_says_where_the_page_is(
    reported: Reported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server has none."""
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    assert call(["report", str(reported.output), "--open"]) == 0
    assert capsys.readouterr().out.startswith("no browser was found; the page is: ")


@pytest.mark.parametrize("content", [b"{}", b"no json", b"[]", b'{"emulated": 1, "output": {}, "job": 7}'])
def test_a_report_that_makes_no_page_is_a_sentence(
    content: bytes, reported: Reported, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever changed it; the next run writes both anew."""
    place = StateDirectory(reported.output).report("json")
    before = place.read_bytes()
    place.write_bytes(content)
    try:
        assert call(["report", str(reported.output), "--open"]) == 1
    finally:
        place.write_bytes(before)
    said = capsys.readouterr().err
    assert "can't be shown as a page" in said
    assert "Traceback" not in said


def test_history_lists_each_run(reported: Reported, capsys: pytest.CaptureFixture[str]) -> None:
    """With the sums of its report, to the last digit; emulated ones say so."""
    assert call(["history", str(reported.output), "--json"]) == 0
    first, second = orjson.loads(capsys.readouterr().out)["runs"]
    assert (first["requests"], second["requests"], second["cost_usd"]) == (60, 0, 0)
    assert (first["ok"], first["skipped"], first["exit"], first["emulated"]) == (65, 3, 0, True)
    assert Decimal(str(first["total_cost_usd"])) == reported.json["total_cost_usd"]
    assert [run["cost_usd"] for run in reported.json["history"]] == [reported.json["total_cost_usd"], 0]
    assert call(["history", str(reported.output)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["ended", "(UTC)", "exit"]
    assert len(lines) == 2
    assert all("(emulated)" in each for each in lines)


def test_an_output_without_history_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As for the other commands."""
    assert call(["history", str(tmp_path / "nothing.parquet")]) == 2
    assert "was not written by Batchwerk" in capsys.readouterr().err


def test_runs_that_wait_fail_or_only_collect_have_their_row(tmp_path: Path) -> None:
    """One that could send nothing, one that only sent, and one that only collected."""
    with pytest.raises(BatchwerkError):
        run_reported(tmp_path, reviews(20), options={"quota_every": "1"})
    run_reported(tmp_path, reviews(20), wait=0, options={"latency": "1"})
    runs = run_reported(tmp_path, reviews(20), options={"latency": "1"}).json["history"]
    assert [run["exit"] for run in runs] == [1, 4, 0]
    assert [run["requests"] for run in runs] == [0, 20, 0]  # of the first the provider took none
    assert [run["pending"] for run in runs] == [0, 20, 0]  # of the output, which the first one never wrote
    assert runs[1]["cost_usd"] == 0 < runs[2]["cost_usd"]


def test_damage_to_the_history_fails_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and begins anew."""
    first = run_reported(tmp_path, options={})
    StateDirectory(first.output).runs.write_bytes(b"damaged")
    again = run_reported(tmp_path, options={})
    assert len(again.json["history"]) == 1
    assert "begins anew" in caplog.text
