"""Limits on a real server: who waits says so, and slots that nobody holds are shown and freed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.flows.command import ROOT, batchwerk
from tests.flows.undecorated import reviews, write_job, write_texts

pytestmark = [pytest.mark.prefect, pytest.mark.xdist_group("prefect")]

Env = dict[str, str]
TAG = "tag:batchwerk:holysheep"

LISTING = """
from flows.orchestration.limits import free_orphans, read_limits
(found,) = [each for each in read_limits() if each.name == "tag:batchwerk:holysheep"]
print(found.limit, found.taken, found.orphans)
free_orphans(found)
(found,) = [each for each in read_limits() if each.name == "tag:batchwerk:holysheep"]
print(found.limit, found.taken, found.orphans)
"""


def test_orphaned_slots_are_listed_and_freed(shared_prefect: Env) -> None:
    """Two slots were taken and nobody holds a lease on them, as a restarted server leaves them."""
    assert batchwerk("setup", env=shared_prefect).status == 0
    url = f"{shared_prefect['PREFECT_API_URL']}/v2/concurrency_limits/increment"
    httpx.post(url, json={"names": [TAG], "slots": 2, "mode": "concurrency"}, timeout=30).raise_for_status()
    command = [sys.executable, "-c", LISTING]
    env = {**os.environ, **shared_prefect}
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["4 2 2", "4 0 0"]


def test_a_server_that_can_not_be_reached_is_a_sentence(tmp_path: Path) -> None:
    """Before anything is sent, with what to do now."""
    source, output = write_texts(tmp_path, reviews(3)), tmp_path / "out.parquet"
    env = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_HOME": str(tmp_path)}
    called = batchwerk("run", source, output, "--job", write_job(tmp_path), "--provider", "local", env=env)
    assert called.status == 1
    assert "Prefect's server can't be reached" in called.err
    assert "make serve" in called.err
    assert "Traceback" not in called.err
