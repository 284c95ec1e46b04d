"""The journal on a real disk: what was written is there, and damage is never read over."""

import subprocess
import sys
from pathlib import Path

import pytest

from blocks.errors import StateError
from flows.domain.events import Event, Slice
from flows.storage.journal import Journal, read_events
from tests.flows.domain.histories import (
    collected,
    compacted,
    ended,
    frozen,
    lost,
    refused,
    reopened,
    restored,
    submitted,
    submitting,
    unknown,
)

EVENTS: list[Event] = [
    frozen(10),
    submitting(1, Slice(0, 5, 2, 1, None), Slice(7, 9)),
    unknown(1),
    submitted(1),
    ended(1, "it broke\nbadly \u2028 ☂"),
    collected(1, ok=3, retry=[Slice(1, 2, 2, 1, 1)], cost=None, outcomes={"ok": 3}),
    refused(2, too_large=True),
    reopened(Slice(0, 1, 4, 0, 1)),
    compacted("compacted-000001", 1, 3),
    restored("compacted-000001"),
    lost(1),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def write(path: Path, events: list[Event]) -> None:
    with Journal(path) as journal:
        for event in events:
            journal.append(event)


def test_what_is_appended_is_read_again(path: Path) -> None:
    """Every field of every event, over several openings."""
    write(path, EVENTS[:3])
    write(path, EVENTS[3:])
    assert read_events(path) == EVENTS
    with Journal(path) as journal:
        assert journal.events == EVENTS


def test_no_journal_is_an_empty_one(path: Path) -> None:
    """A first run finds nothing and makes nothing by reading."""
    assert read_events(path) == []
    assert not path.exists()


def test_an_event_is_on_disk_when_append_returns(path: Path) -> None:
    """Another process reads it at once, and a killed one leaves it behind."""
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom flows.storage.journal import Journal\n"
        "from tests.flows.domain.histories import frozen\n"
        "journal = Journal(Path(sys.argv[1]))\njournal.append(frozen(7))\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", script, path], cwd=root, check=False)
    assert done.returncode == -9
    assert read_events(path) == [frozen(7)]


@pytest.mark.parametrize("keep", [1, 20, -1])
def test_a_torn_last_line_is_what_a_crash_leaves(path: Path, keep: int) -> None:
    """It is ignored when read and cut off when written on."""
    write(path, EVENTS[:3])
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole[: -len(last)] + last[:keep])
    assert read_events(path) == EVENTS[:2]
    write(path, EVENTS[3:4])
    assert read_events(path) == [*EVENTS[:2], EVENTS[3]]


def test_a_journal_of_a_torn_line_alone_is_empty(path: Path) -> None:
    """A crash in the very first event."""
    path.write_bytes(b'{"event": "fro')
    write(path, EVENTS[:1])
    assert read_events(path) == EVENTS[:1]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\x00" * 40,
        b"\xff\xfe",
        b"not json",
        b"[]",
        b'{"event":"frozen"}',
        b'{"event":"exploded","at":"2026-04-01T00:00:00Z"}',
        b'{"at":"2026-04-01T00:00:00Z","start":0,"stop":1}',
        b'{"at":"2026-04-01T00:00:00Z","event":"lost","batch":1,"reason":"gone","weather":"fine"}',
    ],
)
def test_any_other_damage_is_refused_by_its_line(path: Path, damage: bytes) -> None:
    """Reading over a lost line could pay for a batch again: nothing is changed and nothing sent."""
    write(path, EVENTS[:3])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + damage + b"\n" + lines[2])
    before = path.read_bytes()
    for read in (read_events, Journal):
        with pytest.raises(StateError, match="damaged at line 2") as caught:
            read(path)
        assert "backup" in caught.value.next_step
    assert path.read_bytes() == before
