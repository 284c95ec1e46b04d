"""What a run waits for besides its batches: since when, and why."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

SHORT = 5.0  # seconds: what is over sooner is nobody's concern


@dataclass(frozen=True, slots=True)
class Waiting:
    """One thing that is waited for."""

    what: str  # "a slot of tag:batchwerk:openai"
    since: float  # seconds since the epoch
    detail: str = ""  # who holds it, or what fails

    def sentence(self) -> str:
        """For the line of progress."""
        at = datetime.fromtimestamp(self.since).astimezone()
        return f"waiting for {self.what} since {at:%H:%M:%S}{f' ({self.detail})' if self.detail else ''}"


class Waits:
    """All that is being waited for. Thread-safe; what several threads wait for is one thing."""

    def __init__(self) -> None:
        self._all: dict[object, Waiting] = {}
        self._lock = threading.Lock()

    @contextmanager
    def waiting(self, what: str) -> Iterator[Callable[[str], None]]:
        """Around waiting; the yielded function tells more about it."""
        key = object()

        def tell(detail: str) -> None:
            with self._lock:
                self._all[key] = replace(self._all[key], detail=detail)

        with self._lock:
            self._all[key] = Waiting(what, time.time())
        try:
            yield tell
        finally:
            with self._lock:
                del self._all[key]

    def long(self) -> tuple[Waiting, ...]:
        """What has been waited for longer than a moment, each thing once, the longest first."""
        with self._lock:
            found = sorted(self._all.values(), key=lambda each: each.since)
        now, once = time.time(), dict[str, Waiting]()
        for each in found:
            if now - each.since >= SHORT:
                once.setdefault(each.what, each)
        return tuple(once.values())
