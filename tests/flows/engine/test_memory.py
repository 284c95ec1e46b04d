"""The collector is left as it was found."""

from __future__ import annotations

import gc

import pytest

from flows.engine.memory import YOUNG_OBJECTS, rare_garbage_collection


def test_the_collector_is_as_before_afterwards_also_after_an_error() -> None:
    """Whatever the work did, the process collects as it did before."""
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with pytest.raises(KeyError):
        _look_and_fail(frozen)
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, frozen)


def _look_and_fail(frozen: int) -> None:
    with rare_garbage_collection():
        assert gc.get_threshold()[0] == YOUNG_OBJECTS
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
        raise KeyError
