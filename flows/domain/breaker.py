"""The circuit breaker: after many failures in a row that may pass, the provider is left alone, then asked once."""

from __future__ import annotations

from dataclasses import dataclass

OPENS_AFTER = 10  # failures in a row
FIRST_PAUSE, GROWTH, LONGEST_PAUSE = 10.0, 2.0, 300.0  # seconds


@dataclass(frozen=True, slots=True)
class Breaker:
    """Failures in a row, and until when nothing is asked of the provider. Times are seconds since the epoch."""

    failures: int = 0
    since: float = 0.0  # the first of them
    pause: float = 0.0
    retry_at: float = 0.0
    reason: str = ""

    @property
    def is_open(self) -> bool:
        """Whether the provider is left alone, but for one probe when `retry_at` has come."""
        return self.failures >= OPENS_AFTER

    def failed(self, tries: int, reason: str, now: float) -> Breaker:
        """After a call that failed `tries` times."""
        failures, since = self.failures + tries, self.since or now
        if failures < OPENS_AFTER:
            return Breaker(failures, since, 0.0, 0.0, reason)
        pause = min(self.pause * GROWTH, LONGEST_PAUSE) if self.is_open else FIRST_PAUSE
        return Breaker(failures, since, pause, now + pause, reason)
