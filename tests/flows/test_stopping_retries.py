"""A run that is stopped, or does not wait, makes no further call; what it had begun it waits for."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from flows.batches.orchestrator import Threads
from flows.batches.outbox import Outbox
from flows.report.verdict import Exit
from flows.storage.journal import read_events
from flows.storage.state import StateDirectory
from tests.blocks.scripted import Say, Server, serving
from tests.flows.undecorated import enrich, reviews, wait_until, write_job, write_texts
from tests.forking import ForkServer

SOON = 10.0


def call(folder: Path, server: Server, **more: Any) -> dict[str, Any]:
    source, job = write_texts(folder, reviews(20)), write_job(folder)
    output = folder / "out.parquet"
    return {
        "input": str(source), "output": str(output), "job": str(job), "batch_size": 10, "provider": "mistral",
        "base_url": server.url, **more,
    }  # fmt: skip


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", "k")


BUSY = Say(503, {"message": "busy"})


@pytest.mark.parametrize("answer", [BUSY, Say(429, {"message": "later"}, {"retry-after": "20"})])
def test_ctrl_c_during_retries_ends_in_one_sentence(tmp_path: Path, runs: ForkServer, answer: Say) -> None:
    """No call is made after it, nothing is left behind that uses what is closed, and nobody sees a traceback."""
    with serving(answer) as server:
        parameters = orjson.dumps(call(tmp_path, server)).decode()
        process = runs.fork("tests.flows.undecorated:main", parameters, capture=True)
        wait_until(lambda: len(server.asked) >= 2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=15)
        asked = len(server.asked)
    assert out.strip() == str(int(Exit.WAITING)), err
    assert "Traceback" not in err
    assert asked <= 4  # two lanes; a call that had begun when the signal came is waited for


@pytest.mark.parametrize("answer", [BUSY, Say(429, {"message": "later"}, {"retry-after": "900"})])
def test_a_run_that_does_not_wait_tries_once(tmp_path: Path, answer: Say) -> None:
    """`--wait 0`: what fails is left for the next run, and it is said why."""
    with serving(answer) as server:
        figures = enrich(**call(tmp_path, server, wait=0))
        assert len(server.asked) <= 2  # one a lane
    assert figures.exit is Exit.WAITING
    assert figures.rows == {"pending": 20}
    assert "stopped waiting" in figures.message


def test_what_was_begun_is_waited_for_before_the_journal_closes(tmp_path: Path, runs: ForkServer) -> None:
    """Ctrl-C while the very first batch is being sent: its answer is awaited and written down."""
    with serving(Say(200, {"id": "batch-1", "status": "QUEUED"}, pause=2.0)) as server:
        parameters = orjson.dumps(call(tmp_path, server, batch_size=20)).decode()
        process = runs.fork("tests.flows.undecorated:main", parameters, capture=True)
        wait_until(lambda: bool(server.asked))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert out.strip() == str(int(Exit.WAITING)), err
    kinds = [event.event for event in read_events(StateDirectory(tmp_path / "out.parquet").journal)]
    assert "submitted" in kinds


def test_a_batch_is_waited_for_although_its_lane_is_not_known_any_more() -> None:
    """A lane whose end was told too early does not let the journal be closed under a batch."""
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def send() -> None:
        begun.set()
        assert may_end.wait(SOON)
        ended.set()

    with Threads() as threads:
        outbox = Outbox(threads)
        outbox.put(send)
        outbox.open_lanes()
        assert begun.wait(SOON)
        outbox._lanes.clear()
        closing = threading.Thread(target=outbox.close)
        closing.start()
        assert not ended.is_set()
        may_end.set()
        closing.join(SOON)
        assert ended.is_set()
