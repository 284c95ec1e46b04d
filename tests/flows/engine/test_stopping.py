"""What stops a run, and what only counts against its provider."""

from __future__ import annotations

import pytest

from blocks.errors import BatchRefused, ProviderError, StateError, Transient, UnknownOutcome
from flows.domain.breaker import OPENS_AFTER
from flows.engine.stopping import StopSwitch


def call(switch: StopSwitch, error: BaseException | None = None) -> None:
    """A call to a provider that ends with the error, or well."""
    with switch.guarding():
        if error is not None:
            raise error


@pytest.mark.parametrize("kind", [Transient, UnknownOutcome])
def test_failures_that_may_pass_open_the_breaker_and_stop_nothing(kind: type[ProviderError]) -> None:
    """A lost answer to a submission says as much about the provider as a refused connection."""
    switch = StopSwitch()
    for _ in range(OPENS_AFTER):
        assert not switch.breaker.is_open
        call(switch, kind("no answer"))
    assert switch.breaker.is_open
    assert switch.active


def test_a_call_that_succeeds_closes_the_breaker() -> None:
    """The provider is there again."""
    switch = StopSwitch()
    for _ in range(OPENS_AFTER):
        call(switch, Transient("no answer"))
    call(switch)
    assert not switch.breaker.is_open


def test_the_first_error_is_what_stopped_the_run() -> None:
    """Those that follow are its consequences."""
    switch, first = StopSwitch(), BatchRefused("wrong model")
    for error in (first, BatchRefused("client closed")):
        with pytest.raises(BatchRefused):
            call(switch, error)
    assert switch.failure is first
    assert not switch.active


def test_an_error_of_the_system_is_a_sentence() -> None:
    """A full disk is told as such, with what to do."""
    switch = StopSwitch()
    with pytest.raises(StateError, match="No space left on device") as raised:
        call(switch, OSError(28, "No space left on device"))
    assert raised.value.next_step
    assert isinstance(switch.failure, StateError)


def test_a_request_to_stop_is_no_failure() -> None:
    """The run ends where it is and says who asked for it."""
    switch = StopSwitch()
    switch.request("stopped by SIGINT")
    assert (switch.active, switch.failure, switch.reason) == (False, None, "stopped by SIGINT")
    assert switch.changed.is_set()
