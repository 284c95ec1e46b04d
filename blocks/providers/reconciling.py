"""A batch whose creation had no answer: when an empty list counts as proof, and which of several batches is kept.

docs/wire-protocols.md §1.1: no provider takes an idempotency key, and new batches can stay invisible for minutes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from blocks.batch import BatchPhase, BatchStatus, EncodedBatch, Found
from blocks.errors import BatchRefused, NotFound, UnknownOutcome

log = logging.getLogger("batchwerk")

SETTLE = 600.0  # seconds that a new batch may stay invisible in lists
CLOCK_SLACK = 3600.0  # seconds by which the provider's clock and ours may differ when lists are read back to a time


class Settling:
    """Remembers when creations had no answer, and tells when they count as not accepted."""

    def __init__(self, provider: str, settle: float, clock: Callable[[], float] = time.time) -> None:
        self._provider = provider
        self._settle = settle
        self._clock = clock
        self._lost: dict[str, float] = {}

    def note_lost(self, tag: str) -> None:
        """The creation of the batch with this tag had no answer just now."""
        self._lost[tag] = self._clock()

    def check(self, batch: EncodedBatch, tries: Iterable[float] = (), *, where: str = "") -> None:
        """An empty list proves nothing until some time after the last try to send the batch: raises UnknownOutcome.

        `tries`: other times, in seconds since the epoch, at which it may have been sent. `where`: how to find it.
        """
        last = max([batch.sent_at, self._lost.get(batch.tag, 0.0), *tries])
        if not last:
            raise UnknownOutcome(
                f"{self._provider} lists no batch tagged {batch.tag}, and when it was sent is not known",
                next_step=f"look for it at the provider{where}",
                provider=self._provider,
            )
        remaining = last + self._settle - self._clock()
        if remaining > 0:
            raise UnknownOutcome(
                f"{self._provider} lists no batch tagged {batch.tag} yet, and new ones can stay invisible for a while: "
                f"it counts as not accepted in {remaining:.0f} s",
                next_step="nothing needs to be done; the same command goes on from here",
                provider=self._provider,
                retry_after=remaining,
            )
        log.warning("%s has no batch tagged %s: it was not accepted", self._provider, batch.tag)


def keep_one(provider: str, found: Iterable[BatchStatus], tag: str, cancel: Callable[[str], object]) -> Found:
    """The oldest batch that can still give answers stays; others are cancelled, and what they did by then is paid."""
    kept, *others = sorted(found, key=_usefulness)
    for other in others:
        log.warning("%s has two batches tagged %s: %s is kept, %s is cancelled", provider, tag, kept.id, other.id)
        if other.phase is BatchPhase.RUNNING:
            try:
                cancel(other.id)
            except (BatchRefused, NotFound) as error:
                log.warning("%s can't be cancelled and will be billed: %s", other.id, error.message)
    return Found(kept.id, tuple(other.id for other in others))


def _usefulness(status: BatchStatus) -> tuple[bool, float, str]:
    """Sorts the batch to keep to the front: one that can give answers, the oldest of them."""
    gone = status.phase is BatchPhase.FAILED or status.wording.lower().startswith("cancel")
    return gone, status.created_at.timestamp() if status.created_at else float("inf"), status.id
