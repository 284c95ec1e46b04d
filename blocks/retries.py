"""Retries of the calls that are safe to repeat: how often, how long to wait, and what the provider asks for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import stamina

from blocks.errors import Transient

log = logging.getLogger("batchwerk.transport")

T = TypeVar("T")

LONGEST_RETRY_AFTER = 900.0  # seconds that a provider may ask us to wait before the call is given up

# Five retries from 1 s to 60 s are what HolySheep's tutorial asks for; they are sound for every service.
ATTEMPTS, FIRST_PAUSE, LONGEST_PAUSE, JITTER = 6, 1.0, 60.0, 1.0


def with_retries(call: Callable[[], T]) -> T:
    """Repeat `call` while it raises `Transient`: growing, jittered, capped pauses, or as long as the provider asks."""

    def pause(error: Exception) -> bool | float:
        if not isinstance(error, Transient) or not error.worth_repeating:
            return False
        log.warning("%s; trying again", error.message)
        if error.retry_after is None:
            return True
        # stamina takes 0.0 for "no": a provider that asks for no pause gets a short one.
        return error.retry_after <= LONGEST_RETRY_AFTER and max(error.retry_after, 0.05)

    tries = 0

    def counted() -> T:
        nonlocal tries
        tries += 1
        try:
            return call()
        except Transient as error:
            error.tries = tries
            raise

    return stamina.retry(
        on=pause,
        attempts=ATTEMPTS,
        timeout=None,
        wait_initial=FIRST_PAUSE,
        wait_max=LONGEST_PAUSE,
        wait_jitter=JITTER,
    )(counted)()


def retry_after_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The delay that an answer asks for, from `retry-after-ms` or `retry-after` (seconds or an HTTP date)."""
    if (milliseconds := headers.get("retry-after-ms")) is not None:
        return _seconds(milliseconds, per_second=1000)
    if (value := headers.get("retry-after")) is None:
        return None
    if (seconds := _seconds(value)) is not None:
        return seconds
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    if at.tzinfo is None:  # HTTP dates are in GMT, also where they don't say so
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


def _seconds(text: str, per_second: int = 1) -> float | None:
    try:
        value = float(text) / per_second
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
