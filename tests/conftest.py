"""Settings and fixtures of all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from blocks.emulator import launch
from tests import kept  # noqa: F401  # first: modules import what it replaces
from tests.flows.command import CONNECTED, servers
from tests.flows.server import prefect, prefect_server
from tests.forking import ADDRESS, PREFECT_RUNS, ForkServer, fork_servers, start_emulator

# Once a test has imported Prefect, its handler would complain about each line that is logged outside of a flow.
os.environ["PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW"] = "ignore"

# The same examples in every run: CI must not depend on luck. `--hypothesis-profile=default` looks for new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported and collected stays: looking for garbage among it is a quarter of the time that it takes."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_sessionfinish() -> None:
    """What stayed is let go before the interpreter ends: libraries would tell it for leaked."""
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share the Prefect server run one after another: they begin first, beside all others."""
    items.sort(key=lambda item: item.get_closest_marker("prefect") is None)


STARTS_ITSELF = "test_processes"  # the module that tests how an emulator is started and ended


@pytest.fixture(scope="session")
def _fork_servers() -> Iterator[tuple[ForkServer, ForkServer]]:
    with fork_servers() as started:
        servers[""] = started[1]
        yield started


@pytest.fixture(scope="session")
def runs(_fork_servers: tuple[ForkServer, ForkServer]) -> ForkServer:
    """Forks processes in which runs may be killed or sent signals."""
    return _fork_servers[1]


@pytest.fixture(scope="module", autouse=True)
def _quick_emulators(request: pytest.FixtureRequest, _fork_servers: tuple[ForkServer, ForkServer]) -> Iterator[None]:
    """Emulators are forked, not started: a third of a second less for each."""
    if request.module.__name__.rpartition(".")[2] == STARTS_ITSELF:
        yield
        return
    emulators, _ = _fork_servers
    with pytest.MonkeyPatch.context() as patch:
        emulators.start()
        patch.setenv(ADDRESS, emulators.address)
        patch.setattr(launch, "start_process", start_emulator)
        yield


@pytest.fixture(scope="session")
def shared_prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment that leads to a Prefect server with a work pool. One for all tests of the group `prefect`.

    The group keeps them in one process of pytest-xdist; starting a server takes as long as several of them.
    """
    home = tmp_path_factory.mktemp("prefect")
    with prefect_server(home) as env, ForkServer(home, PREFECT_RUNS, env) as server:
        servers[env[CONNECTED]] = server
        prefect("work-pool", "create", "batchwerk", "--type", "process", env=env)
        yield env
