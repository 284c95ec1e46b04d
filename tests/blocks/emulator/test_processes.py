"""The emulator as a process: what it keeps when it is killed, and when it ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from blocks.emulator import EmulatorOptions, running_emulator
from blocks.emulator.launch import start_process, stop_process, wait_until_ready
from tests.blocks.emulator.client import PATIENCE, Client, requests_for, wait_until
from tests.blocks.emulator.conftest import started

PARENT = """
import signal, sys
from blocks.emulator import EmulatorOptions, running_emulator
signal.signal(signal.SIGINT, signal.SIG_IGN)
with running_emulator(EmulatorOptions()) as emulator:
    print(emulator.url, emulator.pid, flush=True)
    signal.pause()
"""


def kill(client: Client) -> None:
    os.kill(client.emulator.pid, signal.SIGKILL)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/emulator/health", timeout=PATIENCE).status_code == 200
    except httpx.TransportError:
        return False


def start_parent() -> tuple[subprocess.Popen[str], str]:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdout is not None
    return parent, parent.stdout.readline().split()[0]


def end_parent(parent: subprocess.Popen[str]) -> None:
    parent.kill()
    parent.communicate()


def test_batches_and_ledger_survive_kill_9(tmp_path: Path) -> None:
    """A restarted emulator has the same batches, keys and bills."""
    state = tmp_path / "deep" / "state.sqlite"
    with started(state=state, latency=0.0) as client:
        ended = client.submit(requests_for(50), key="first")
        before = client.batch(ended), client.page(ended)
        kept = client.create(requests_for(50, first=50), key="second").json()["batch_id"]
        kill(client)
    with started(state=state, latency=0.0) as client:
        assert (client.batch(ended), client.page(ended)) == before
        assert client.create(requests_for(50, first=50), key="second").json()["batch_id"] == kept
        assert client.wait_for(kept)["succeeded"] == 50
        ledger = client.ledger()
        assert (ledger["batches"], ledger["billed_items"], ledger["paid_twice"]) == (2, 100, 0)


def test_progress_goes_on_while_the_emulator_is_down(tmp_path: Path) -> None:
    """A batch ends by the clock, like a real provider's."""
    state = tmp_path / "state.sqlite"
    with started(state=state, latency=1.0) as client:
        batch_id = client.submit(requests_for(5))
        kill(client)
    time.sleep(1.0)
    with started(state=state, latency=100.0) as client:
        batch = client.batch(batch_id)
        assert (batch["status"], batch["duration_seconds"]) == ("completed", 1.0)


def test_batch_under_way_keeps_its_own_time_after_a_restart(tmp_path: Path) -> None:
    """Other options of the new process do not change it."""
    state = tmp_path / "state.sqlite"
    with started(state=state, latency=60.0) as client:
        batch_id = client.submit(requests_for(5))
    with started(state=state, latency=0.0) as client:
        assert client.batch(batch_id)["status"] in ("queued", "processing")


def test_counts_of_calls_go_on_after_a_restart(tmp_path: Path) -> None:
    """Every n-th call stays every n-th."""
    options: dict[str, Any] = {"state": tmp_path / "state.sqlite", "rate_limit_every": 3}
    with started(**options) as client:
        assert [client.create(requests_for(1)).status_code for _ in range(2)] == [200, 200]
        kill(client)
    with started(**options) as client:
        assert client.create(requests_for(1)).status_code == 429


def test_state_of_another_format_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The process ends with a reason instead of damaging the file."""
    state = tmp_path / "state.sqlite"
    with started(state=state):
        pass
    subprocess.run(
        [sys.executable, "-c", f"import sqlite3; sqlite3.connect({str(state)!r}).execute('PRAGMA user_version = 99')"],
        check=True,
    )
    with pytest.raises(RuntimeError, match="did not start"), running_emulator(EmulatorOptions(state=state)):
        pass
    assert "was written by another emulator" in capfd.readouterr().err


def test_state_of_another_dialect_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The reason names both; the right dialect still opens it."""
    state = tmp_path / "state.sqlite"
    with started(state=state):
        pass
    with pytest.raises(RuntimeError), running_emulator(EmulatorOptions(state=state, dialect="openai")):
        pass
    assert "was written by the dialect 'holysheep', not 'openai'" in capfd.readouterr().err
    with started(state=state):
        pass


def test_emulator_ends_with_its_context() -> None:
    """Nothing answers at its address any more."""
    with running_emulator() as emulator:
        assert answers(emulator.url)
        assert emulator.base_url == f"{emulator.url}/v1"
    assert not answers(emulator.url)


def test_temporary_state_is_removed() -> None:
    """Together with its folder."""
    with running_emulator() as emulator:
        state = Path(httpx.get(f"{emulator.url}/emulator/health").json()["state"])
        assert state.exists()
    assert not state.parent.exists()


def test_emulator_ends_when_its_parent_is_killed() -> None:
    """No process is left behind even after SIGKILL."""
    parent, url = start_parent()
    assert answers(url)
    end_parent(parent)
    wait_until(lambda: not answers(url))


def test_ctrl_c_for_the_parent_is_not_for_the_emulator() -> None:
    """A run that is stopped politely still needs it."""
    parent, url = start_parent()
    os.killpg(parent.pid, signal.SIGINT)
    time.sleep(0.2)
    assert answers(url)
    end_parent(parent)


def test_client_that_goes_in_the_middle_of_its_request_makes_no_noise(capfd: pytest.CaptureFixture[str]) -> None:
    """Standard error stays empty, whether the call would have succeeded or not."""
    with running_emulator() as emulator, started(error_rate=1.0) as failing:
        for url in (emulator.url, failing.emulator.url):
            host, port = url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(b"POST /v1/batches HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
                time.sleep(0.2)
            time.sleep(0.2)
            assert answers(url)
    assert capfd.readouterr() == ("", "")


def test_port_that_is_taken_is_said_plainly(capfd: pytest.CaptureFixture[str]) -> None:
    """A sentence on standard error, no traceback."""
    with running_emulator() as emulator:
        port = int(emulator.url.rpartition(":")[2])
        with pytest.raises(RuntimeError), running_emulator(EmulatorOptions(port=port)):
            pass
    error = capfd.readouterr().err
    assert "the emulator can't start" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_foreground_says_one_line_and_ends_cleanly(end: signal.Signals, tmp_path: Path) -> None:
    """Either signal ends it with status 0, and nothing but its state remains."""
    state = tmp_path / "state.sqlite"
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "blocks.emulator", f"--state={state}", "--latency=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    url = next(word for word in line.split() if word.startswith("http")).rstrip(",")
    assert str(state) in line
    headers = {"authorization": "Bearer x"}
    body = orjson.dumps({"model": "gpt-4.1", "requests": requests_for(3)})
    batch_id = httpx.post(f"{url}/batches", content=body, headers=headers).json()["batch_id"]
    assert httpx.get(f"{url}/batches/{batch_id}", headers=headers).json()["succeeded"] == 3
    process.send_signal(end)
    assert process.communicate(timeout=PATIENCE) == ("", "")
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == [state]


def test_stop_does_not_wait_for_held_answers() -> None:
    """An answer that is held for a minute is broken off."""
    process = start_process(EmulatorOptions(hold=60.0))
    body = {"model": "m", "requests": requests_for(1)}
    with Client(wait_until_ready(process)) as client, pytest.raises(httpx.ReadTimeout):
        client.http.post("/batches", json=body, timeout=httpx.Timeout(PATIENCE, read=0.2))
    stop_process(process)
    assert process.returncode == 0, "one that does not end by itself is killed"
