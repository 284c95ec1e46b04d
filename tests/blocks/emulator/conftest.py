"""Emulators for tests, always as real processes behind a real socket."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from blocks.emulator import EmulatorOptions, running_emulator
from tests.blocks.emulator.client import Client

Start = Callable[..., Client]


@contextmanager
def started(**options: Any) -> Iterator[Client]:
    with running_emulator(EmulatorOptions(**options)) as emulator, Client(emulator) as client:
        yield client


@pytest.fixture(scope="module")
def plain() -> Iterator[Client]:
    """An emulator without faults, whose batches end at the first look; shared by the tests of a module."""
    with started(latency=0.0) as client:
        yield client


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts emulators of a test's own."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(started(**options))
