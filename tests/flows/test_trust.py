"""Who may say what: a form, a file of a state directory and a shell are not the same person."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from blocks.emulator import EmulatorOptions, running_emulator
from blocks.errors import BatchwerkError, UsageError
from blocks.trusted_hosts import ALLOWED_HOSTS
from flows.cancel import cancel_output
from flows.cli import call
from flows.preflight import check
from flows.settings import read_settings
from flows.storage.roots import ROOTS
from flows.storage.state import StateDirectory
from tests.flows.undecorated import JOB, enrich, reviews, write_job, write_texts

GATEWAY = "https://gateway.example.net/v1"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests")


def places(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "input": write_texts(folder, reviews(4)),
        "output": folder / "out.parquet",
        "job": write_job(folder),
        **more,
    }


def test_a_form_sends_no_key_to_a_host_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the worker allows hosts; parameters do not."""
    settings = read_settings(places(tmp_path, provider="openai", base_url=GATEWAY))
    with pytest.raises(UsageError, match=ALLOWED_HOSTS.split("_")[0]) as caught:
        check(settings)
    assert ALLOWED_HOSTS in caught.value.next_step
    monkeypatch.setenv(ALLOWED_HOSTS, "gateway.example.net")
    assert check(settings).spec.connection.base_url == GATEWAY


def test_a_person_on_a_shell_names_the_host_beside_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--base-url` is their own word: the command passes it on as typed."""
    typed: list[str | None] = []
    monkeypatch.setattr("flows.cli._run_flow", lambda config: typed.append(config.typed_url))
    monkeypatch.setattr("flows.cli._show", lambda *_, **__: 0)
    given = places(tmp_path)
    command = [str(given["input"]), str(given["output"]), "--job", str(given["job"]), "--provider", "openai"]
    for name in ("plan", "run"):
        assert call([name, *command, "--base-url", GATEWAY]) == 0, capsys.readouterr().err
    assert call(["run", *command]) == 0
    assert typed == [GATEWAY, None]


def test_a_state_directory_sends_no_key_to_a_host_that_it_names(tmp_path: Path) -> None:
    """A batch whose spec was changed to another address is left alone, and so is the key."""
    with running_emulator(EmulatorOptions(dialect="openai", latency=60.0)) as emulator:
        given = places(tmp_path, provider="openai", base_url=emulator.base_url, poll_interval=0.05)
        enrich(**given, wait=0)
        (spec,) = (StateDirectory(given["output"]).path / "specs").iterdir()
        content = orjson.loads(spec.read_bytes())
        content["connection"] |= {"base_url": GATEWAY, "endpoint": f"openai {GATEWAY}"}
        spec.write_bytes(orjson.dumps(content))
        with pytest.raises(BatchwerkError, match=r"may not be sent to gateway|is not the file"):
            enrich(**{**given, "job": write_job(tmp_path, JOB.replace("name: test", "name: other"))}, wait=20)


@pytest.mark.parametrize("parameter", ["input", "job", "output"])
def test_a_name_that_is_no_text_is_refused(tmp_path: Path, parameter: str) -> None:
    """Bytes that are no UTF-8 could not be written into the state directory."""
    odd = {parameter: tmp_path / os.fsdecode(b"caf\xe9")}
    with pytest.raises(UsageError, match="bytes that are no text") as caught:
        check(read_settings({**places(tmp_path, provider="local"), **odd}))
    assert caught.value.message.isprintable()


def test_roots_bound_where_a_run_reads_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Input, job and output, by whatever way they lead there; without the variable all folders are free."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    here, there = places(inside, provider="local"), places(outside, provider="local")
    (inside / "link").symlink_to(outside)
    folder = inside / "folder"
    folder.mkdir()
    (folder / "a.parquet").symlink_to(there["input"])
    monkeypatch.setenv(ROOTS, f"{inside}{os.pathsep}{tmp_path / 'other'}")
    check(read_settings(here))
    wrong = [
        {"input": there["input"]},
        {"job": there["job"]},
        {"output": there["output"]},
        {"output": inside / ".." / "outside" / "out.parquet"},
        {"output": inside / "link" / "out.parquet"},
        {"input": folder, "output": inside / "out"},
    ]
    for each in wrong:
        with pytest.raises(UsageError, match="outside of the folders"):
            check(read_settings({**here, **each}))
    with pytest.raises(UsageError, match="outside of the folders"):
        cancel_output(there["output"])
    monkeypatch.delenv(ROOTS)
    check(read_settings(there))
