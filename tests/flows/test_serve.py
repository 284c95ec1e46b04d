"""`make serve`: Prefect's server as the project's settings start it answers its own clients and no foreign page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.flows.command import batchwerk
from tests.flows.server import prefect_server
from tests.flows.undecorated import reviews, write_job, write_texts

pytestmark = [pytest.mark.prefect, pytest.mark.xdist_group("prefect"), pytest.mark.slow]

FOREIGN = {"origin": "https://evil.example.net"}
OWN = {"origin": "http://127.0.0.1:4200"}


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with prefect_server(tmp_path_factory.mktemp("served"), csrf=True) as env:
        yield env


def test_a_foreign_page_may_neither_ask_nor_read(env: dict[str, str]) -> None:
    """The browser is told no; the UI's own page is told yes."""
    url = f"{env['PREFECT_API_URL']}/flow_runs/filter"
    asking = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    allowed = "access-control-allow-origin"
    assert allowed not in httpx.options(url, headers={**FOREIGN, **asking}).headers
    assert allowed not in httpx.get(f"{env['PREFECT_API_URL']}/health", headers=FOREIGN).headers
    assert httpx.options(url, headers={**OWN, **asking}).headers[allowed] == OWN["origin"]


@pytest.mark.parametrize("headers", [FOREIGN, OWN, {}])
def test_a_call_that_changes_something_needs_a_token(env: dict[str, str], headers: dict[str, str]) -> None:
    """A form that a page sends has none."""
    made = httpx.post(f"{env['PREFECT_API_URL']}/flows/", json={"name": "forged"}, headers=headers)
    assert made.status_code == 403
    assert "CSRF" in made.text


def test_a_run_works_with_such_a_server(env: dict[str, str], tmp_path: Path) -> None:
    """Prefect's client brings its token: limits, tasks and artifacts are made."""
    source, output, job = write_texts(tmp_path, reviews(4)), tmp_path / "out.parquet", write_job(tmp_path)
    called = batchwerk("run", source, output, "--job", job, "--provider", "local", env=env)
    assert called.status == 0, called.err
    assert "4 of 4 rows ok" in called.out
