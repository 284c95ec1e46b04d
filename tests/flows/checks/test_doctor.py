"""The command `doctor`, without Prefect's server and with one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.blocks.scripted import free_port
from tests.flows.command import ROOT, Called, batchwerk

NAMES = {"machine", "disk", "locks", "prices", "keys", "clock", "server"}
OF_THE_SERVER = ("server", "leases", "limits", "blocks")
TAG = "tag:batchwerk:openai"
SECRET = "planted-secret"  # noqa: S105  # that nothing may show


@pytest.fixture
def alone(tmp_path: Path) -> dict[str, str]:
    """No network, no Prefect."""
    nobody = f"http://127.0.0.1:{free_port()}"
    return {"HTTPS_PROXY": nobody, "PREFECT_HOME": str(tmp_path / "home")}


def findings(called: Called) -> dict[str, list[dict[str, Any]]]:
    """By check."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in json.loads(called.out.splitlines()[-1])["findings"]:
        found.setdefault(each["check"], []).append(each)
    return found


def test_without_server_key_and_network_it_says_so(alone: dict[str, str], tmp_path: Path) -> None:
    """None of them is a problem, each has a next step; no server is started just to look."""
    called = batchwerk("doctor", tmp_path / "out.parquet", env=alone)
    assert called.status == 0, called.err
    lines = called.out.splitlines()
    assert {line.split()[1] for line in lines} == NAMES | {"state"}
    assert {line.split()[0] for line in lines} <= {"ok:", "warning:"}
    assert all(" → " in line for line in lines if line.startswith("warning:"))
    for said in ("no Prefect server is set", "can't be reached", "was not begun yet"):
        assert said in called.out
    assert not list((tmp_path / "home").rglob("*.db*"))
    assert "Traceback" not in called.out + called.err


def test_as_json_it_has_names_that_stay(alone: dict[str, str]) -> None:
    """One object, which repeats the exit status; people's lines go to standard error."""
    called = batchwerk("doctor", "--json", env={**alone, "OPENAI_API_KEY": SECRET})
    (line,) = called.out.splitlines()
    assert json.loads(line)["exit"] == called.status == 0
    assert findings(called).keys() == NAMES
    assert {key for each in json.loads(line)["findings"] for key in each} == {"check", "level", "what", "advice"}
    assert "ok:      machine" in called.err
    assert SECRET not in called.out + called.err


def test_a_server_that_is_away_is_a_problem(alone: dict[str, str]) -> None:
    """Exit status 1, and nothing else of Prefect is looked at."""
    address = f"http://127.0.0.1:{free_port()}/api"
    called = batchwerk("doctor", "--json", env={**alone, "PREFECT_API_URL": address})
    (server,) = findings(called)["server"]
    assert (called.status, server["level"]) == (1, "problem")
    assert "start it (`make serve`)" in server["advice"]
    assert findings(called).keys() == NAMES
    assert "Traceback" not in called.err


@pytest.mark.prefect
@pytest.mark.xdist_group("prefect")
def test_a_server_is_looked_at_with_its_limits_and_saved_keys(
    shared_prefect: dict[str, str], alone: dict[str, str]
) -> None:
    """Its version, that it forgets no lease, the limits, and the names of blocks, without their keys."""
    env = {**alone, **shared_prefect}
    assert batchwerk("setup", env=env).status == 0
    save = f"from blocks.credentials import OpenAICredentials as C; C(api_key='{SECRET}').save('doc', overwrite=True)"
    subprocess.run([sys.executable, "-c", save], env={**os.environ, **env}, cwd=ROOT, check=True)
    called = batchwerk("doctor", "--json", env=env)
    found = findings(called)
    assert called.status == 0, called.err
    assert found.keys() == {*NAMES, *OF_THE_SERVER}
    assert {each["level"] for name in OF_THE_SERVER for each in found[name]} == {"ok"}
    assert f"{TAG}: 0 of 4 taken" in {each["what"] for each in found["limits"]}
    assert "openai-credentials/doc" in found["blocks"][0]["what"]
    assert SECRET not in called.out + called.err


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.xdist_group("prefect")
def test_slots_that_nobody_holds_are_told_and_freed_when_asked(
    shared_prefect: dict[str, str], alone: dict[str, str]
) -> None:
    """Seen twice, half a minute apart; only --free-slots frees them, after saying how many."""
    env, url = {**alone, **shared_prefect}, f"{shared_prefect['PREFECT_API_URL']}/v2/concurrency_limits"
    assert batchwerk("setup", env=env).status == 0
    body = {"names": [TAG], "slots": 2, "mode": "concurrency"}
    httpx.post(f"{url}/increment", json=body, timeout=30).raise_for_status()
    called = batchwerk("doctor", env=env)
    assert called.status == 1, called.out
    assert f"{TAG}: 2 of 4 taken, 2 slots of them by nobody that is alive" in called.out
    assert "→ free them: batchwerk doctor --free-slots" in called.out
    assert "looking again in 30 s" in called.err
    assert httpx.get(f"{url}/{TAG}", timeout=30).json()["active_slots"] == 2
    called = batchwerk("doctor", "--free-slots", env=env)
    assert called.status == 0, called.out
    assert f"freeing 2 slots of {TAG}" in called.err
    assert httpx.get(f"{url}/{TAG}", timeout=30).json()["active_slots"] == 0
