"""The lease: one process at a time even if the file system grants every lock."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from blocks.emulator import EmulatorOptions, running_emulator
from blocks.errors import Busy, StateError
from blocks.transport import Transport
from flows.storage import lease as leases
from flows.storage.journal import Journal, read_events
from flows.storage.lease import STALE, Lease, acquire
from flows.storage.state import StateDirectory
from tests.flows.domain.histories import frozen
from tests.flows.undecorated import emulator_ledger, reviews, wait_until, write_job, write_texts
from tests.forking import Forked, ForkServer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lease"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "SETTLE", 0.0)


def take(path: Path, *, locks_work: bool = False) -> Lease:
    return acquire(path, path.with_name("out"), locks_work=locks_work)


def holder(path: Path, **changes: object) -> None:
    """A lease of somebody else, with a heartbeat now."""
    path.write_bytes(orjson.dumps({**leases._this_process(), **changes}))


ELSEWHERE = {"boot": "another", "machine": "another", "host": "elsewhere", "pid": 7}


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_only_one_gets_it(path: Path) -> None:
    """The other one is told who has it; given back, it is free, and nothing else is left behind."""
    first = take(path)
    with pytest.raises(Busy, match=f"is being worked on by process {os.getpid()} on"):
        take(path)
    first.check()
    first.release()
    take(path).release()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "locks_work"),
    [
        ({"started": "1"}, False),  # its number was given to another process
        ({"pid": 2**22 + 1}, False),
        ({"processes": "pid:[1]"}, True),  # another container, but the lock is ours
        ({"boot": "the one before"}, False),  # this machine was restarted
    ],
)
def test_a_dead_holder_on_this_machine_makes_nobody_wait(
    path: Path, changes: dict[str, object], *, locks_work: bool
) -> None:
    """However it died: its heartbeat may be a second old."""
    holder(path, **changes)
    mine = take(path, locks_work=locks_work)
    mine.check()
    mine.release()
    assert not path.exists()


@pytest.mark.parametrize("changes", [ELSEWHERE, {"processes": "pid:[1]"}])
def test_a_holder_that_nobody_can_see_counts_as_dead_without_a_heartbeat(
    path: Path, changes: dict[str, object]
) -> None:
    """Not sooner: another machine may be working."""
    holder(path, **changes)
    age(path, STALE - 30)
    with pytest.raises(StateError, match="is being worked on by"):
        take(path)
    age(path, STALE + 1)
    take(path).release()


def test_a_lease_that_says_nothing_is_respected(path: Path) -> None:
    """It may have been made in this moment, on another machine."""
    path.touch()
    with pytest.raises(StateError, match="another process"):
        take(path, locks_work=True)


def test_without_hard_links_it_is_as_exclusive(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems have none."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    first = take(path)
    with pytest.raises(StateError, match="is being worked on"):
        take(path)
    first.release()
    assert list(path.parent.iterdir()) == []


def test_the_heart_beats(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the process lives."""
    monkeypatch.setattr(leases, "HEARTBEAT", 0.01)
    mine = take(path)
    age(path, 1_000)
    before = path.stat().st_mtime
    wait_until(lambda: path.stat().st_mtime > before + 500)
    mine.check()
    mine.release()
    assert not path.exists()


def slept(path: Path) -> None:
    """Another machine takes the lease of a process that gave no sign of life."""
    age(path, STALE + 1)
    others = path.with_name("others")
    holder(others, **ELSEWHERE)
    others.replace(path)


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("lose", [slept, removed])
def test_a_process_that_wakes_up_without_its_lease_writes_nothing(path: Path, lose: Callable[[Path], None]) -> None:
    """It learns so before its next event, and leaves the other one's lease alone."""
    mine = take(path)
    with Journal(path.with_name("journal.jsonl"), before_append=mine.check) as journal:
        journal.append(frozen(3))
        lose(path)
        with pytest.raises(StateError, match="was taken over by"):
            journal.append(frozen(6, start=3))
        with pytest.raises(StateError, match="was taken over by"):
            journal.check_held()
    assert len(read_events(path.with_name("journal.jsonl"))) == 1
    there = path.exists()
    mine.release()
    assert path.exists() is there


def appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"{}\n")


def cut(path: Path) -> None:
    path.write_bytes(b"")


def replaced(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.with_name("keeps the inode").touch()
    path.write_bytes(content)


@pytest.mark.parametrize("change", [appended, cut, replaced, removed])
def test_a_journal_that_another_process_touched_is_written_no_more(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """Two ledgers that know half of each other would pay twice."""
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append(frozen(3))
        change(path)
        content = path.read_bytes() if path.exists() else None
        with pytest.raises(StateError, match="was changed by another process"):
            journal.append(frozen(6, start=3))
    assert (path.read_bytes() if path.exists() else None) == content


def without_locks(parameters: str) -> None:
    """A run on a file system that grants every lock, for a process of its own."""
    import fcntl  # noqa: PLC0415

    from tests.flows.undecorated import main  # noqa: PLC0415

    fcntl.flock = lambda *_: None  # as such a file system does
    main(parameters)


def test_two_runs_pay_once_where_locks_hold_nobody_back(tmp_path: Path, runs: ForkServer) -> None:
    """One works, the other one is refused."""
    hold = tmp_path / "hold"
    hold.touch()  # the one that works can't end before the other one has come
    output = tmp_path / "out.parquet"
    parameters = {
        "input": str(write_texts(tmp_path, reviews(10))),
        "output": str(output),
        "job": str(write_job(tmp_path)),
        "options": {"hold_file": str(hold)},
    }
    text, target = orjson.dumps(parameters).decode(), "tests.flows.storage.test_lease:without_locks"
    both = [runs.fork(target, text, capture=True) for _ in range(2)]
    wait_until(lambda: any(process.poll() is not None for process in both))
    hold.unlink()
    said = [process.communicate()[1] for process in both]
    assert sorted(process.returncode or 0 for process in both) == [0, 1], said
    assert any("is being worked on by process" in text for text in said)
    sql = "SELECT count(*), count(DISTINCT prompt_hash) FROM billed"
    assert emulator_ledger(output, sql) == [(10, 10)]
    assert not StateDirectory(output).lease.exists()


def on_machine(name: str, parameters: str) -> None:
    """A run on a machine of its own, for a process of its own; it is impatient with others."""
    this = leases._this_process
    leases._this_process = lambda: {**this(), "boot": name, "machine": name, "host": name}
    leases.HEARTBEAT, leases.STALE, leases.SETTLE = 0.05, 1.0, 0.1
    without_locks(parameters)


def stopping_after_uploads(parameters: str) -> None:
    """A run on a laptop that is closed when its second file has arrived, in the moment before the batch is made."""
    upload, count = Transport.upload, itertools.count(1)

    def stopping(self: Transport, *arguments: Any) -> Any:
        answer = upload(self, *arguments)
        if next(count) == 2:
            os.kill(os.getpid(), signal.SIGSTOP)
        return answer

    Transport.upload = stopping  # type: ignore[assignment, method-assign]  # the place to stop
    on_machine("laptop", parameters)


def is_stopped(process: Forked) -> bool:
    return ") T" in Path(f"/proc/{process.pid}/stat").read_text()


def run_elsewhere(runs: ForkServer, parameters: str, env: dict[str, str]) -> None:
    """Another machine is refused until the lease is stale, then does the work."""
    while True:
        other = runs.fork("tests.flows.storage.test_lease:on_machine", "other", parameters, capture=True, env=env)
        _, errors = other.communicate()
        if other.returncode != 1:
            assert other.returncode == 0, errors
            return
        assert "is being worked on by" in errors, errors


@pytest.mark.slow
def test_a_run_that_slept_between_an_upload_and_the_create_makes_no_batch(tmp_path: Path, runs: ForkServer) -> None:
    """It has uploaded what another machine has long sent and been paid for: the check comes right before the create."""
    with running_emulator(EmulatorOptions(latency=0, state=tmp_path / "emulator-x.sqlite", dialect="openai")) as openai:
        parameters = {
            "input": str(write_texts(tmp_path, reviews(12))),
            "output": str(tmp_path / "out.parquet"),
            "job": str(write_job(tmp_path)),
            "provider": "openai",
            "base_url": openai.base_url,
            "batch_size": 4,
            "max_in_flight": 1,
            "poll_interval": 0.05,
            "options": {"settle": "0"},
        }
        text, env = orjson.dumps(parameters).decode(), {"OPENAI_API_KEY": "k"}
        laptop = runs.fork("tests.flows.storage.test_lease:stopping_after_uploads", text, capture=True, env=env)
        wait_until(lambda: is_stopped(laptop))
        run_elsewhere(runs, text, env)
        laptop.send_signal(signal.SIGCONT)
        out, errors = laptop.communicate()
    assert laptop.returncode == 1, out
    assert "was taken over by" in errors or "was changed by another process" in errors
    with closing(sqlite3.connect(tmp_path / "emulator-x.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM batches").fetchall() == [(3,)]


@pytest.mark.slow
def test_a_run_that_slept_too_long_is_replaced_and_sends_nothing_more(tmp_path: Path, runs: ForkServer) -> None:
    """A laptop was closed in the middle of a run, and another machine went on: every request is paid once."""
    with running_emulator(EmulatorOptions(latency=0.2, state=tmp_path / "emulator-x.sqlite")) as emulator:
        output = tmp_path / "out.parquet"
        parameters = {
            "input": str(write_texts(tmp_path, reviews(12))),
            "output": str(output),
            "job": str(write_job(tmp_path)),
            "provider": "holysheep",
            "base_url": emulator.base_url,
            "batch_size": 4,
            "max_in_flight": 1,
            "poll_interval": 0.05,
        }
        journal = StateDirectory(output).journal

        def start(name: str) -> Forked:
            target, text = "tests.flows.storage.test_lease:on_machine", orjson.dumps(parameters).decode()
            return runs.fork(target, name, text, capture=True, env={"HOLYSHEEP_API_KEY": "k"})

        laptop = start("laptop")
        wait_until(lambda: journal.exists() and b'"submitted"' in journal.read_bytes())
        laptop.send_signal(signal.SIGSTOP)
        statuses: list[int | None] = []
        while not statuses or statuses[-1] == 1:  # refused, until the lease is stale
            other = start("other")
            said = other.communicate()
            statuses.append(other.returncode)
        laptop.send_signal(signal.SIGCONT)
        out, errors = laptop.communicate()
    assert statuses[-1] == 0, said
    assert laptop.returncode == 1, out
    assert "was taken over by" in errors or "was changed by another process" in errors
    with closing(sqlite3.connect(tmp_path / "emulator-x.sqlite")) as db:
        assert db.execute("SELECT count(*), count(DISTINCT prompt_hash) FROM billed").fetchall() == [(12, 12)]
