"""The circuit breaker: after many transient failures in a row, pause all calls, then let one probe through."""

from __future__ import annotations

from dataclasses import dataclass

OPENS_AFTER = 10  # failures in a row
FIRST_PAUSE, GROWTH, MAX_PAUSE = 10.0, 2.0, 300.0  # seconds


@dataclass(frozen=True, slots=True)
class Breaker:
    """Failures in a row, and until when no call is made. Times are seconds since the epoch."""

    failures: int = 0
    since: float = 0.0  # time of the first failure
    pause: float = 0.0
    retry_at: float = 0.0
    reason: str = ""

    @property
    def is_open(self) -> bool:
        """Whether calls are paused, except for one probe at `retry_at`."""
        return self.failures >= OPENS_AFTER

    def failed(self, tries: int, reason: str, now: float) -> Breaker:
        """The breaker after a call that failed `tries` times."""
        failures, since = self.failures + tries, self.since or now
        if failures < OPENS_AFTER:
            return Breaker(failures, since, 0.0, 0.0, reason)
        pause = min(self.pause * GROWTH, MAX_PAUSE) if self.is_open else FIRST_PAUSE
        return Breaker(failures, since, pause, now + pause, reason)
