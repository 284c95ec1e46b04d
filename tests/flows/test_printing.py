"""What rows, providers, file names and state directories say reaches terminal and log as text, never as commands."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from blocks.errors import BatchwerkError
from flows.cli import call
from flows.engine.logs import log_progress
from flows.storage.state import StateDirectory
from tests.blocks.scripted import Say, serving
from tests.flows.command import ROOT
from tests.flows.undecorated import enrich, reviews, write_job, write_texts

EVIL = "\x1b]52;c;ZXZpbA==\x07\x9b2J\u202e\nbatchwerk: all rows ok"
COMMANDS = ("\x1b", "\x07", "\x9b", "\u202e")


def harmless(text: str) -> bool:
    """It quotes the evil, and has none of it, nor a line that is not ours."""
    lines = text.splitlines()
    return (
        "\\u001b]52" in text
        and not any(each in text for each in COMMANDS)
        and not any(line.startswith("batchwerk: all") for line in lines)
    )


def test_a_providers_refusal_is_quoted_harmlessly(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In the error, in the log, and in what the command says."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests")
    places = {
        "input": write_texts(tmp_path, reviews(2)),
        "output": tmp_path / "out.parquet",
        "job": write_job(tmp_path),
    }
    said = {"error": {"message": EVIL * 50, "code": EVIL, "type": EVIL}}
    with serving(Say(400, said)) as server, caplog.at_level(logging.DEBUG), pytest.raises(BatchwerkError) as caught:
        enrich(**places, provider="openai", base_url=server.url)
    assert harmless(str(caught.value))
    assert len(caught.value.message) < 600
    assert not any(each in caplog.text for each in COMMANDS)
    capsys.readouterr()


def test_every_line_of_the_log_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever of ours logs it."""
    log_progress()
    with caplog.at_level(logging.INFO):
        for name in ("batchwerk", "batchwerk.transport", "batchwerk.openai"):
            logging.getLogger(name).warning("batch %d: %s", 1, EVIL)
    assert len(caplog.messages) == 3
    assert all(harmless(message) and "\n" not in message for message in caplog.messages)


def test_the_name_of_a_file_is_quoted_harmlessly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder may hold files that somebody else has named."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / f"{EVIL.replace('/', '')}.parquet").write_text("no parquet")
    status = call(
        ["plan", str(folder), str(tmp_path / "out"), "--job", str(write_job(tmp_path)), "--provider", "local"]
    )
    assert status == 2
    assert harmless(capsys.readouterr().err)


def test_a_report_that_somebody_changed_is_shown_harmlessly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A state directory may lie where others write; what it holds is text to `report` and to `status`."""
    output = tmp_path / "out.parquet"
    enrich(input=write_texts(tmp_path, reviews(2)), output=output, job=write_job(tmp_path))
    state = StateDirectory(output)
    state.report("md").write_text(f"# report {EVIL.replace(chr(10), ' ')}", encoding="utf-8")
    assert call(["report", str(output)]) == 0
    assert harmless(capsys.readouterr().out)
    run = state.run_file.read_text().replace('"input": "', '"input": "\\u001b]52;\\u009b')
    state.run_file.write_text(run)
    assert call(["status", str(output)]) == 0
    assert harmless(capsys.readouterr().out)


def test_rows_are_shown_harmlessly(tmp_path: Path) -> None:
    """The example that prints a few rows prints the text of strangers."""
    output = tmp_path / "out.parquet"
    enrich(input=write_texts(tmp_path, [EVIL, "fine"]), output=output, job=write_job(tmp_path))
    assert pq.read_table(output).column("text").to_pylist()[0] == EVIL
    command = [sys.executable, "data/show.py", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert harmless(done.stdout)


def test_the_command_prints_in_one_way() -> None:
    """Whatever it says passes the function that makes it harmless."""
    source = (ROOT / "flows" / "cli.py").read_text(encoding="utf-8")
    assert source.count("typer.echo(") == 1
    assert "print(" not in source
    assert "sys.stdout.write" not in source
