"""One batch of the ledger, and the states that it goes through.

    reserved → submitting → submitted → ended → collected            (and from submitting: refused | unknown | ended)

A batch that the provider lost, or that the user gave up, has `ended` and is `gone`: it is collected without answers,
until they can be read after all.

A batch is `reserved` only in memory, between the decision and the intent. `unknown` is a batch whose submission had
no answer, and one that a dead process left in `submitting`: the provider is asked, nothing is sent blindly. Some
providers accept a batch first and refuse it later: then `refused` follows `submitted`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum

from flows.domain.events import BatchResult, Slice
from flows.domain.ranges import Range


class State(StrEnum):
    """Where a batch stands with us."""

    RESERVED = "reserved"
    SUBMITTING = "submitting"
    UNKNOWN = "unknown"
    SUBMITTED = "submitted"
    ENDED = "ended"
    COLLECTED = "collected"
    REFUSED = "refused"


IN_FLIGHT = {State.RESERVED, State.SUBMITTING, State.UNKNOWN, State.SUBMITTED, State.ENDED}


@dataclass(slots=True)
class Batch:
    """One batch of the ledger. Times are seconds since the epoch."""

    number: int
    slices: list[Slice]
    state: State
    tag: str = ""
    sha256: str = ""
    spec: str = ""
    bytes: int = 0
    tokens: int = 0  # input tokens, as they were planned
    emulated: bool = False  # whether the embedded emulator has it: its costs are never summed with money
    id: str | None = None
    waiting_from: float = 0.0  # for a slot and a permit
    sending_from: float = 0.0  # with both
    intended_at: float = 0.0
    submitted_at: float = 0.0
    ended_at: float = 0.0
    unread_since: float = 0.0
    unread: int = 0  # looks at its answers that did not find all of them
    collected_at: float = 0.0
    wording: str = ""
    failed: str | None = None
    final: bool = False  # what failed with it fails for good
    early: bool = False  # it ended before all was run
    copies: tuple[str, ...] = ()  # other batches with the same requests, made by accident
    reason: str = ""
    result: BatchResult | None = None
    key: str = ""  # tells which batches were sent under the same key
    lost: bool = False  # its results are gone
    unfound_since: float = 0.0  # the first of the looks, one after another, at which the provider did not find it
    looks: int = 0  # how many those are
    as_whole: bool = False  # refused after it had been accepted
    unsure: bool = False  # refused only because the user said so
    gone: str = ""  # why its answers are not waited for any more, though they may have been paid for
    compacted: str = ""  # the part that holds its results together with those of others; empty: it has one of its own

    @property
    def sent_on(self) -> date:
        """The day, in UTC, on which the batch was sent; that of its intent, as a lost one is found days later."""
        return datetime.fromtimestamp(self.intended_at, UTC).date()

    @property
    def requests(self) -> int:
        """How many requests the batch holds."""
        return sum(part.requests for part in self.slices)

    @property
    def span(self) -> Range:
        """The lowest request number and one more than the highest."""
        return min(part.start for part in self.slices), max(part.stop for part in self.slices)
