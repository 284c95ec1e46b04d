"""Letting go, stopping, cancelling, and waiting out an outage: nothing is lost, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from blocks.emulator import EmulatorOptions, running_emulator
from blocks.errors import UsageError
from flows.report.verdict import Exit
from flows.storage.journal import read_events
from flows.storage.state import StateDirectory
from tests.flows.command import Called, batchwerk, servers
from tests.flows.undecorated import cancel, emulator_ledger, enrich, given_up_at_once, reviews, write_job, write_texts
from tests.forking import Forked


def call(folder: Path, rows: int = 20, **more: Any) -> dict[str, Any]:
    source, job = write_texts(folder, reviews(rows)), write_job(folder)
    return {"input": str(source), "output": str(folder / "out.parquet"), "job": str(job), "batch_size": 10, **more}


def statuses(parameters: dict[str, Any]) -> set[str]:
    return set(pq.read_table(parameters["output"]).column("_status").to_pylist())


def events(parameters: dict[str, Any]) -> list[str]:
    return [event.event for event in read_events(StateDirectory(Path(parameters["output"])).journal)]


def wait_for(parameters: dict[str, Any], kind: str, count: int = 1) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if StateDirectory(Path(parameters["output"])).journal.exists() and events(parameters).count(kind) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"no {kind} within a minute")


def start(parameters: dict[str, Any]) -> Forked:
    """A run in a process of its own, which prints its exit status."""
    text = orjson.dumps(parameters).decode()
    return servers[""].fork("tests.flows.undecorated:main", text, capture=True)


def test_wait_0_submits_lets_go_and_a_later_run_collects(tmp_path: Path) -> None:
    """The rows are pending, the exit status is 4, and nothing has to run in between."""
    parameters = call(tmp_path, options={"latency": "1"})
    first = enrich(**parameters, wait=0)
    assert (first.exit, first.rows) == (Exit.WAITING, {"pending": 20})
    assert statuses(parameters) == {"pending"}
    assert events(parameters).count("submitted") == 2
    time.sleep(1.2)  # the provider works on, also while the emulator is down
    second = enrich(**parameters, wait=0)
    assert (second.exit, second.rows, second.attempts) == (Exit.DONE, {"ok": 20}, 0)


def test_wait_lets_go_of_what_takes_longer(tmp_path: Path) -> None:
    """After so many seconds the rest is left with the provider."""
    parameters = call(tmp_path, options={"latency": "30"})
    figures = enrich(**parameters, wait=1)
    assert figures.exit is Exit.WAITING
    assert "stopped waiting" in figures.message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_stops_publishes_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    """What is with the provider stays there; the next run collects it and sends the rest."""
    parameters = call(tmp_path, rows=40, max_in_flight=2, options={"latency": "3"})
    process = start(parameters)
    wait_for(parameters, "submitted", 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert out.strip() == str(int(Exit.WAITING)), err
    assert statuses(parameters) == {"pending"}
    figures = enrich(**parameters)
    assert figures.rows == {"ok": 40}
    assert emulator_ledger(Path(parameters["output"]), "SELECT count(*) FROM billed") == [(40,)]


def test_a_second_signal_leaves_at_once_and_is_safe(tmp_path: Path) -> None:
    """Also while a call is under way: the emulator holds its answer back."""
    hold = tmp_path / "hold"
    hold.touch()
    parameters = call(tmp_path, options={"hold_file": str(hold), "latency": "0"})
    process = start(parameters)
    wait_for(parameters, "submitting")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None, "the first one waits for the call under way"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=5) == 130
    process.communicate()
    hold.unlink()
    assert enrich(**parameters).rows == {"ok": 20}
    assert emulator_ledger(Path(parameters["output"]), "SELECT count(*) FROM billed") == [(20,)]


def test_cancel_stops_at_the_provider_and_keeps_what_was_finished(tmp_path: Path) -> None:
    """Finished rows are ok and paid, the others pending; a later run sends only those."""
    parameters = call(tmp_path, rows=60, batch_size=30, options={"latency": "4"})
    enrich(**parameters, wait=0)
    time.sleep(2.0)
    figures = cancel(Path(parameters["output"]))
    assert 0 < figures.rows["ok"] < 60
    assert figures.rows["pending"] == 60 - figures.rows["ok"]
    assert figures.batches == 0, "nothing new was sent"
    done = enrich(**{**parameters, "options": {"latency": "0"}})
    assert done.rows == {"ok": 60}
    sql = "SELECT count(*), count(DISTINCT prompt_hash) FROM billed"
    assert emulator_ledger(Path(parameters["output"]), sql) == [(60, 60)]


def test_cancel_gives_failed_rows_no_new_allowance(tmp_path: Path) -> None:
    """Also where the newest run did: that they failed stays said, and nothing waits to be sent."""
    parameters = call(tmp_path, options={"latency": "0", "failure_rate": "1", "fault_attempts": "9"}, max_attempts=1)
    enrich(**parameters)
    enrich(**parameters, retry_failed=True)
    assert cancel(Path(parameters["output"])).rows == {"failed": 20}
    assert statuses(parameters) == {"failed"}


def test_the_command_cancels(tmp_path: Path) -> None:
    """`batchwerk cancel OUTPUT` needs no other argument and no Prefect."""
    parameters = call(tmp_path, options={"latency": "60"})
    enrich(**parameters, wait=0)
    called = batchwerk("cancel", parameters["output"])
    assert called.status == 0, called.err
    assert "20 pending" in called.out
    assert not called.started_prefect
    assert batchwerk("cancel", tmp_path / "other.parquet").status == 2


def test_an_outage_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider goes away while batches are with it and comes back: the run has lost nothing and goes on."""
    monkeypatch.setenv("HOLYSHEEP_API_KEY", "k")
    monkeypatch.setattr("blocks.retries.FIRST_PAUSE", 0.05)
    monkeypatch.setattr("blocks.retries.LONGEST_PAUSE", 0.1)
    monkeypatch.setattr("flows.domain.breaker.FIRST_PAUSE", 1.0)
    store = tmp_path / "emulator.sqlite"
    with running_emulator(EmulatorOptions(state=store, latency=1.0)) as emulator:
        parameters = call(tmp_path, provider="holysheep", base_url=emulator.base_url, poll_interval=0.1)
        assert enrich(**parameters, wait=0).exit is Exit.WAITING
        port = int(emulator.url.rsplit(":", 1)[1])
    given_up = enrich(**parameters, give_up_after=0.2)
    assert given_up.exit is Exit.WAITING
    assert "can't be reached" in given_up.message
    process = start({**parameters, "base_url": emulator.base_url})
    time.sleep(3.0)
    with running_emulator(EmulatorOptions(state=store, latency=1.0, port=port)):
        out, err = process.communicate(timeout=120)
    assert out.strip() == "0", err
    assert statuses(parameters) == {"ok"}


def test_a_lost_answer_that_nobody_can_tell_of_is_the_users_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without verified idempotency the slice is left alone, the others go on; --on-unknown resubmit sends it."""
    monkeypatch.setenv("HOLYSHEEP_API_KEY", "k")
    with running_emulator(EmulatorOptions(latency=0, drop_every=2)) as emulator:
        parameters = call(tmp_path, rows=30, provider="holysheep", base_url=emulator.base_url, poll_interval=0.1)
        first = enrich(**parameters)
        assert first.exit is Exit.ERROR
        assert "--on-unknown resubmit" in first.message
        assert first.rows == {"ok": 20, "pending": 10}
        again = enrich(**parameters)
        assert (again.attempts, again.rows) == (0, {"ok": 20, "pending": 10})
        chosen = enrich(**parameters, on_unknown="resubmit")
    assert chosen.rows == {"ok": 30}


def test_results_that_are_gone_are_fetched_again(tmp_path: Path) -> None:
    """The provider still has them: nothing is paid, the output is the same."""
    parameters = call(tmp_path)
    enrich(**parameters)
    before = pq.read_table(parameters["output"])
    first, second = sorted(StateDirectory(Path(parameters["output"])).path.glob("results/*/*.pq"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:100])
    Path(parameters["output"]).unlink()
    figures = enrich(**parameters)
    assert figures.attempts == 0
    assert pq.read_table(parameters["output"]).equals(before)


def test_results_that_nobody_has_any_more_are_named_as_lost(tmp_path: Path) -> None:
    """Their rows come out failed and say how to ask again; asking again is never done unasked."""
    parameters = call(tmp_path)
    enrich(**parameters)
    state = StateDirectory(Path(parameters["output"]))
    next(iter(sorted(state.path.glob("results/*/*.pq")))).unlink()
    (state.path / "emulator-holysheep.sqlite").unlink()
    figures = enrich(**parameters)
    assert (figures.exit, figures.attempts, figures.rows) == (Exit.ROWS_FAILED, 0, {"ok": 10, "failed": 10})
    errors = set(pq.read_table(parameters["output"]).column("_error").to_pylist())
    assert errors == {None, "its answer was lost; --retry-failed requests it again"}
    assert enrich(**parameters, retry_failed=True).rows == {"ok": 20}


def test_batches_are_judged_under_the_terms_they_were_sent_under(tmp_path: Path) -> None:
    """The job file changed while they were with the provider: their answers are kept under the old schema."""
    parameters = call(tmp_path, options={"latency": "1"})
    enrich(**parameters, wait=0)
    job = Path(parameters["job"])
    old = job.read_text()
    job.write_text(old.replace("  topics: {type: array, items: {type: string}}\n", "  stars: {type: integer}\n"))
    changed = enrich(**parameters)
    assert changed.rows == {"ok": 20}
    assert pq.read_schema(parameters["output"]).names[2:4] == ["sentiment", "stars"]
    job.write_text(old)
    back = enrich(**parameters)
    assert (back.rows, back.attempts) == ({"ok": 20}, 0)


def test_a_batch_that_takes_too_long_is_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The adaptive time-out ends the waiting, never the batch."""
    monkeypatch.setattr("flows.domain.agenda.patience", lambda *_: 0.5)
    parameters = call(tmp_path, options={"latency": "3"})
    figures = enrich(**parameters)
    assert figures.exit is Exit.WAITING
    assert "longer than expected" in figures.message
    time.sleep(3)
    assert enrich(**parameters).rows == {"ok": 20}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def test_a_full_disk_loses_nothing(tmp_path: Path, disk: Path) -> None:
    """The run ends with a sentence; with room again the same command goes on and pays for nothing twice."""
    parameters = call(tmp_path, rows=4_000, batch_size=500, options={"latency": "0"})
    parameters["output"] = str(disk / "out.parquet")
    called = batchwerk_without_prefect(parameters)
    assert called.status == 1
    assert "Traceback" not in called.err
    assert "no space left" in called.err.lower()
    remount(disk, "size=60m")
    assert enrich(**parameters).rows == {"ok": 4_000}
    sql = "SELECT count(*), count(DISTINCT prompt_hash) FROM billed"
    assert emulator_ledger(Path(parameters["output"]), sql) == [(4_000, 4_000)]


def test_a_read_only_folder_loses_nothing(tmp_path: Path, disk: Path) -> None:
    """It is found before anything is done; writable again, what was sent is collected."""
    remount(disk, "size=60m")
    parameters = {**call(tmp_path, options={"latency": "1"}), "output": str(disk / "out.parquet")}
    enrich(**parameters, wait=0)
    remount(disk, "ro")
    called = batchwerk_without_prefect(parameters)
    remount(disk, "rw")
    assert called.status == 1
    assert "is not a writable folder" in called.err
    assert "Traceback" not in called.err
    figures = enrich(**parameters)
    assert (figures.rows, figures.attempts) == ({"ok": 20}, 0)


def test_batches_stay_with_the_service_that_they_were_sent_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address changed while batches were with the old one: they are collected there, all is asked of the new."""
    monkeypatch.setenv("HOLYSHEEP_API_KEY", "k")
    with (
        running_emulator(EmulatorOptions(state=tmp_path / "old.sqlite", latency=0.5)) as old,
        running_emulator(EmulatorOptions(state=tmp_path / "new.sqlite", latency=0)) as new,
    ):
        parameters = call(tmp_path, provider="holysheep", poll_interval=0.1)
        enrich(**parameters, base_url=old.base_url, wait=0)
        assert enrich(**parameters, base_url=new.base_url).rows == {"ok": 20}
        assert events(parameters).count("collected") == 4
        back = enrich(**parameters, base_url=old.base_url, replace=True)
    assert (back.rows, back.attempts) == ({"ok": 20}, 0)


def batchwerk_without_prefect(parameters: dict[str, Any]) -> Called:
    """A run in a process of its own, whose error is what it says last."""
    process = start(parameters)
    out, err = process.communicate()
    return Called(process.wait(), out, err)


def test_a_damaged_journal_is_refused_by_its_line(tmp_path: Path) -> None:
    """Its middle can't be guessed: nothing is sent or changed. A torn tail is what a crash leaves, and is fine."""
    parameters = call(tmp_path)
    enrich(**parameters)
    journal = StateDirectory(Path(parameters["output"])).journal
    good = journal.read_bytes()
    journal.write_bytes(good + b'{"at":"2026-')
    assert enrich(**parameters).attempts == 0
    lines = good.splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], b"#" * len(lines[2]) + b"\n", *lines[3:]]))
    called = batchwerk_without_prefect(parameters)
    assert called.status == 1
    assert "damaged at line 3" in called.err


def test_a_lost_journal_is_refused(tmp_path: Path) -> None:
    """Without it nobody knows what was sent and paid: the run does not send everything again."""
    parameters = call(tmp_path)
    enrich(**parameters)
    journal = StateDirectory(Path(parameters["output"])).journal
    for spoil in (journal.unlink, lambda: journal.write_bytes(b"")):
        spoil()
        called = batchwerk_without_prefect(parameters)
        assert called.status == 1
        assert "is missing, or shorter than it was: what was sent and paid for is unknown" in called.err
    assert emulator_ledger(Path(parameters["output"]), "SELECT count(*) FROM batches") == [(2,)]


def test_an_output_that_somebody_changed_is_not_overwritten(tmp_path: Path) -> None:
    """Their work is worth more than ours; moved away, the output is written again for nothing."""
    parameters = call(tmp_path)
    enrich(**parameters)
    output = Path(parameters["output"])
    ours = pq.read_table(output)
    pq.write_table(ours.append_column("mine", ours.column("id")), output)
    with pytest.raises(UsageError, match="has changed since Batchwerk wrote it"):
        enrich(**parameters)
    assert "mine" in pq.read_schema(output).names
    output.unlink()
    assert enrich(**parameters).attempts == 0
    assert pq.read_table(output).equals(ours)


def test_a_run_that_collects_nothing_leaves_a_good_output_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody answers at the new address: what was published before stays."""
    parameters = call(tmp_path, rows=5)
    enrich(**parameters)
    monkeypatch.setenv("HOLYSHEEP_API_KEY", "k")
    with running_emulator(EmulatorOptions(key="other")) as emulator, pytest.raises(UsageError, match="401"):
        enrich(**{**parameters, "provider": "holysheep", "base_url": emulator.base_url})
    assert statuses(parameters) == {"ok"}


def test_a_flipped_byte_in_the_results_is_noticed(tmp_path: Path) -> None:
    """Never published silently; the part can be fetched again while the provider has it."""
    parameters = call(tmp_path)
    enrich(**parameters)
    before = pq.read_table(parameters["output"])
    part = next(iter(sorted(StateDirectory(Path(parameters["output"])).path.glob("results/*/*.pq"))))
    content = bytearray(part.read_bytes())
    content[len(content) // 5] ^= 0xFF
    part.write_bytes(content)
    Path(parameters["output"]).unlink()
    called = batchwerk_without_prefect(parameters)
    assert called.status == 1
    assert "the results of batch 1 are damaged" in called.err
    part.unlink()
    enrich(**parameters)
    assert pq.read_table(parameters["output"]).equals(before)


def test_results_that_are_gone_before_they_were_read_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were paid: their rows come out failed with the reason, their cost is unknown, and the run goes on."""
    given_up_at_once(monkeypatch)
    parameters = call(tmp_path)
    parameters["options"] = {**parameters.get("options", {}), "dialect": "anthropic", "gone_after": "0.001"}
    figures = enrich(**parameters)
    assert figures.rows == {"failed": 20}
    assert figures.unmetered == figures.outcomes["gone"] == 20
    errors = set(pq.read_table(parameters["output"]).column("_error").to_pylist())
    assert all("--retry-failed requests it again" in error for error in errors)
    assert all("though the batch itself is 'ended'" in error for error in errors)
