"""What tests of killed runs need: a run that dies, and what an undisturbed one leaves."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.flows.killing import RunUntil, parameters_for
from tests.flows.undecorated import enrich
from tests.forking import ForkServer


@pytest.fixture(scope="session")
def run_until(runs: ForkServer) -> RunUntil:
    """Runs in a process of its own that dies at the place; its exit status."""

    def run(parameters: dict[str, Any], place: str) -> int:
        process = runs.fork("tests.flows.killed:main", place, orjson.dumps(parameters).decode(), capture=True)
        process.communicate()
        assert process.returncode is not None
        return process.returncode

    return run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The output of a run that nothing happened to."""
    parameters = parameters_for(tmp_path_factory.mktemp("undisturbed"))
    enrich(**parameters)
    return pq.read_table(parameters["output"])
