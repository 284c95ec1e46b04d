"""Lines that say the same are shown at growing intervals; a change is shown at once. Pure: no clock."""

from __future__ import annotations

GROWTH, LONGEST = 2.0, 600.0  # seconds


class Thinning:
    """Decides when a text is shown again. Times are seconds on any clock that only goes forward."""

    def __init__(self, first: float) -> None:
        self._first = first  # seconds between two texts that differ, and the first interval of equal ones
        self._interval = first
        self._shown: str | None = None
        self._at = 0.0

    def is_due(self, text: str, now: float) -> bool:
        """Whether to show the text now; if so, it counts as shown."""
        changed = text != self._shown
        if self._shown is not None and now - self._at < (self._first if changed else self._interval):
            return False
        self._interval = self._first if changed else min(self._interval * GROWTH, LONGEST)
        self._shown, self._at = text, now
        return True
