"""Retries of the calls that are safe to repeat: how often, how long to wait, and what the provider asks for."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import stamina

from blocks.errors import Transient

log = logging.getLogger("batchwerk.transport")

T = TypeVar("T")

LONGEST_RETRY_AFTER = 60.0  # seconds: a provider that asks for more is asked again later, not waited for in a call

# Five retries from 1 s to 60 s are what HolySheep's tutorial asks for; they are sound for every service.
ATTEMPTS, FIRST_PAUSE, LONGEST_PAUSE, JITTER = 6, 1.0, 60.0, 1.0
NO_TIME = 1e-9  # seconds; stamina takes 0.0 for "no"

Rest = Callable[[float], bool]  # sleeps for so many seconds; False, at once, if there is nothing to go on for


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return True


_rest: ContextVar[Rest] = ContextVar("rest", default=_sleep)


@contextmanager
def resting(rest: Rest) -> Iterator[None]:
    """Retries made inside pause by calling `rest`, and end as soon as it returns False."""
    token = _rest.set(rest)
    try:
        yield
    finally:
        _rest.reset(token)


def with_retries(call: Callable[[], T]) -> T:
    """Repeat `call` while it raises `Transient`: growing, jittered, capped pauses, or as long as the provider asks.

    stamina counts the attempts; its own pauses could not be interrupted when the run is stopped. A call that was
    repeated in vain is not repeated again by a call that it is a part of.
    """
    tries = 0

    def pause(error: Exception) -> bool | float:
        if not isinstance(error, Transient) or not error.worth_repeating:
            return False
        wanted = error.retry_after
        if tries >= ATTEMPTS or (wanted is not None and wanted > LONGEST_RETRY_AFTER):
            return False
        seconds = _backoff(tries) if wanted is None else max(wanted, 0.05)
        log.warning("%s; trying again", error.message)
        if stamina.is_testing() or _rest.get()(seconds):
            return NO_TIME
        return False

    def counted() -> T:
        nonlocal tries
        tries += 1
        try:
            return call()
        except Transient as error:
            error.tries = tries
            raise

    try:
        return stamina.retry(on=pause, attempts=ATTEMPTS, timeout=None)(counted)()
    except Transient as error:
        error.worth_repeating = False
        raise


def _backoff(tries: int) -> float:
    """The pause after so many tries."""
    return min(FIRST_PAUSE * 2.0 ** (tries - 1) + random.uniform(0, JITTER), LONGEST_PAUSE)  # noqa: S311  # no secret


def retry_after_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The delay that an answer asks for, from `retry-after-ms` or `retry-after` (seconds or an HTTP date)."""
    if (milliseconds := headers.get("retry-after-ms")) is not None:
        return _seconds(milliseconds, per_second=1000)
    if (value := headers.get("retry-after")) is None:
        return None
    if (seconds := _seconds(value)) is not None:
        return seconds
    at = http_date(value)
    return None if at is None else max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


def http_date(value: str) -> datetime | None:
    """A date in a header; None if it is none."""
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at  # they are in GMT, also where they don't say so


def _seconds(text: str, per_second: int = 1) -> float | None:
    try:
        value = float(text) / per_second
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
