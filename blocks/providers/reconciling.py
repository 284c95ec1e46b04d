"""A batch whose creation had no answer: when an empty list counts as proof, and which of several batches is kept.

docs/wire-protocols.md §1.1: no provider takes an idempotency key, and new batches can stay invisible for minutes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from blocks.batch import BatchPhase, BatchStatus, EncodedBatch, Found
from blocks.errors import AuthenticationFailed, BatchRefused, CantTell, NotFound, ProviderError, UnknownOutcome

log = logging.getLogger("batchwerk")

T = TypeVar("T")

FORBIDDEN = 403
SETTLE = 600.0  # seconds that a new batch may stay invisible in lists
CLOCK_SLACK = 3600.0  # seconds further back than the time of sending, by the provider's clock, that lists are read
SLOWEST_UPLOAD = 1_000_000  # [ours]; bytes a second, to tell until when a batch may have been created


class Search:
    """What a list shows of a lost batch, and whether it may be believed where it does not show it.

    Absence is proved by a list that was read to its end, or back to the time of sending, and that shows a batch which
    the service accepted under the same key, with the mark that batches are known by.
    """

    def __init__(self, batch: EncodedBatch, *, marks: bool = True) -> None:
        self._batch = batch
        self._marks = marks  # whether batches carry a mark
        self.found: dict[str, BatchStatus] = {}
        self.trouble = ""  # why the list proves nothing
        self._known = self._marked = batch.witnesses is None

    def note(self, named: str, mark: str | None, status: Callable[[], BatchStatus]) -> None:
        """A batch of the list, and the mark that it shows."""
        if mark == self._batch.tag:
            self.found[named] = status()
        elif (tag := (self._batch.witnesses or {}).get(named)) is not None:
            self._known = True
            self._marked |= mark == tag or not self._marks

    @property
    def is_proof(self) -> bool:
        """Whether what was read so far shows that batches of ours are in the list, as they were sent."""
        return self._marked

    def broke_off(self) -> None:
        """The list promised more and did not go on."""
        self.trouble = "its list of batches breaks off"

    def refused(self, error: ProviderError) -> None:
        """The list can't be read."""
        self.trouble = f"its list of batches can't be read: {error.message}"

    def doubt(self) -> str:
        """Why a batch that was not found may exist all the same; empty if it does not."""
        if self.trouble or self._marked:
            return self.trouble
        if self._known:
            return "its list of batches does not show what batches are known by"
        return (
            "its list of batches shows none that is known to be sent under this key, so it may be incomplete, or that "
            "of another key"
        )


def readable(search: Search, items: Iterator[T]) -> Iterator[T]:
    """The items of a list; one that the service refuses to give ends, and proves nothing."""
    try:
        yield from items
    except (NotFound, BatchRefused) as error:
        search.refused(error)
    except AuthenticationFailed as error:
        if error.status != FORBIDDEN:
            raise
        search.refused(error)  # a key may send and read batches and not list them


class Settling:
    """Remembers when creations had no answer, and tells when they count as not accepted."""

    def __init__(self, provider: str, settle: float, clock: Callable[[], float] = time.time) -> None:
        self._provider = provider
        self.seconds = self._settle = settle
        self._clock = clock
        self._lost: dict[str, float] = {}

    def note_lost(self, tag: str) -> None:
        """The creation of the batch with this tag had no answer just now."""
        self._lost[tag] = self._clock()

    def check(self, batch: EncodedBatch, search: Search, tries: Iterable[float] = (), *, where: str = "") -> None:
        """Raises UnknownOutcome until some time after the last try to send the batch, then CantTell if that is so.

        `tries`: other times, in seconds since the epoch, at which it may have been sent. `where`: how to find it.
        """
        last = max([batch.sent_at, self._lost.get(batch.tag, 0.0), *tries])
        if not last:
            raise CantTell(
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
        if doubt := search.doubt():
            raise CantTell(
                f"{self._provider} shows no batch tagged {batch.tag}, but {doubt}",
                next_step=f"look for it at the provider{where}",
                provider=self._provider,
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
