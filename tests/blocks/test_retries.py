"""Retries end with the run: nobody pays for, or waits for, a call that nobody wants any longer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import stamina

from blocks import retries
from blocks.errors import Transient
from blocks.retries import resting, with_retries
from flows.engine.stopping import StopSwitch

SOON = 10.0


@pytest.fixture(autouse=True)
def _real_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "JITTER", 0.0)


class Failing:
    """A call that fails, and says when."""

    def __init__(self, retry_after: float | None = None) -> None:
        self.calls = 0
        self.called = threading.Event()
        self._retry_after = retry_after

    def __call__(self) -> None:
        self.calls += 1
        self.called.set()
        raise Transient("busy", retry_after=self._retry_after)


def under(switch: StopSwitch, call: Failing) -> None:
    with resting(switch.rest):
        with_retries(call)


@pytest.mark.parametrize("stop", ["request", "fail", "finish"])
def test_a_pause_ends_when_the_run_is_stopped(stop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stopped it: the call is not made again, though its pause would have been an hour."""
    monkeypatch.setattr(retries, "FIRST_PAUSE", 3600.0)
    monkeypatch.setattr(retries, "LONGEST_PAUSE", 3600.0)
    switch, call = StopSwitch(), Failing()
    with stamina.set_testing(False), ThreadPoolExecutor(1) as pool:
        calling = pool.submit(under, switch, call)
        assert call.called.wait(SOON)
        if stop == "request":
            switch.request("stopped by SIGINT")
        elif stop == "fail":
            switch.fail(ValueError("something else"))
        else:
            switch.stop_retrying()
        assert isinstance(calling.exception(SOON), Transient)
    assert call.calls == 1


def test_a_pause_does_not_reach_beyond_the_time_that_the_user_waits() -> None:
    """With `--wait 0` a call that fails is made once."""
    switch, call = StopSwitch(), Failing()
    switch.patient_until = 0.0
    with stamina.set_testing(False), pytest.raises(Transient):
        under(switch, call)
    assert call.calls == 1


def test_a_call_that_is_not_part_of_a_run_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can stop it: it is made as often as it may be."""
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.001)
    call = Failing()
    with stamina.set_testing(False), pytest.raises(Transient) as raised:
        with_retries(call)
    assert call.calls == raised.value.tries == retries.ATTEMPTS


def test_a_long_delay_is_the_next_looks() -> None:
    """A call that holds a slot for minutes because the provider asks for it would keep others waiting."""
    call = Failing(retry_after=600)
    with stamina.set_testing(False), pytest.raises(Transient):
        with_retries(call)
    assert call.calls == 1
