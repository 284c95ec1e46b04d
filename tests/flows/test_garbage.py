"""The collector is left as it was found."""

from __future__ import annotations

import gc

import pytest

from flows.garbage import YOUNG, searched_rarely


def test_the_collector_is_as_before_afterwards_also_after_an_error() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with pytest.raises(KeyError):
        _look_and_fail(frozen)
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, frozen)


def _look_and_fail(frozen: int) -> None:
    with searched_rarely():
        assert gc.get_threshold()[0] == YOUNG
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
        raise KeyError
