"""The events of the journal, one line each. Intents are written before the act, all others after it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class Slice(NamedTuple):
    """A range of requests that are on the same attempt."""

    start: int
    stop: int  # excluded
    attempt: int = 1  # serial number of the submission, part of the custom_id
    used: int = 0  # attempts used up before this one; excused failures don't count
    after: int | None = None  # the batch in which they failed last
    excused: int = 0  # failures in this allowance that used up no attempt
    longer: bool = False  # whether answers may be longer, because the last one was cut off

    @property
    def requests(self) -> int:
        """The number of requests in the slice."""
        return self.stop - self.start


class BatchResult(BaseModel):
    """The outcome of a collected batch: each request is ok, retried or final. Money in pico-dollars."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_id: str
    ok: int
    retry: list[Slice]
    final: list[Slice]
    outcomes: dict[str, int]  # requests by outcome
    input_tokens: int
    output_tokens: int
    cached_tokens: int  # input tokens read from a cache
    cost: int | None  # None: unpriced
    list_cost: int | None = None  # cost by the price list, whatever was agreed
    stated_cost: int = 0  # what the provider itself says that answers cost, where it does
    cost_of_stated: int | None = 0  # part of `cost` for the answers that it says it of
    single_cost: int | None  # cost of the same requests sent singly
    costs: dict[str, int] | None  # `cost` by outcome, without that of copies
    copies_cost: int | None  # part of `cost` that accidental copies of the batch took
    cache_saved: int | None  # what a cache of the prompt took off the cost; below zero if writing it cost more
    longest_output: int = 0  # output tokens of the longest answer
    output_squares: int = 0  # the sum of the squares of their output tokens: how much answers differ
    metered: int  # answers with usage, those of copies included
    unmetered: int  # answers without usage, whose cost is unknown and not included in the sums
    strays: int  # answers to no request of the batch, or repeated ones
    lost: int = 0  # of `unmetered`: answers that can't be read, or that the provider counts and does not return
    nameless: int = 0  # answers that name no request

    @property
    def rejected_cost(self) -> int | None:
        """Part of `cost` spent on useless answers."""
        return None if self.costs is None else sum(cost for outcome, cost in self.costs.items() if outcome != "ok")


class Seal(NamedTuple):
    """By what a file of ours is known again: its size, and the digest of its Parquet footer."""

    size: int
    digest: str


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    at: datetime


class Frozen(_Event):
    """A plan froze its new requests: numbers from `start` up to `stop`."""

    event: Literal["frozen"] = "frozen"
    start: int
    stop: int
    spec: str
    rows: int
    wanted: int  # distinct requests of this plan, new or not
    generation: Seal | None  # the file of the new requests, if there are any
    plan: Seal  # the file that says which request each row asks for


class Submitting(_Event):
    """The intent: a batch is about to be sent."""

    event: Literal["submitting"] = "submitting"
    batch: int
    tag: str
    slices: list[Slice]
    bytes: int
    tokens: int  # input tokens of its requests, as they were planned
    sha256: str
    spec: str
    key: str = ""  # tells which batches were sent under the same key; empty: unknown
    emulated: bool = False  # whether the embedded emulator answers, whose costs are no money
    waiting_from: float = 0.0  # when it was decided; then it waited for a slot and a permit
    sending_from: float = 0.0  # when it had both; then it was rendered, and this recorded


class Submitted(_Event):
    """The provider accepted the batch. `copies`: ids of accidental duplicates with the same requests, also billed."""

    event: Literal["submitted"] = "submitted"
    batch: int
    id: str
    copies: list[str] = []


class Refused(_Event):
    """The provider did not accept the batch: its requests are free again, no attempt is used up."""

    event: Literal["refused"] = "refused"
    batch: int
    reason: str
    too_large: bool = False
    queue_full: bool = False
    as_whole: bool = False  # it was accepted first, then nothing of it ran
    unsure: bool = False  # it may have been accepted and billed: the user decided to send its requests again


class Unknown(_Event):
    """The response to the submission was lost: the provider has to be asked whether it accepted the batch."""

    event: Literal["unknown"] = "unknown"
    batch: int
    reason: str


class Ended(_Event):
    """The provider is done with the batch.

    `failed`: why nothing ran, so that there is nothing to read; `final`: the same requests would fail again.
    `early`: it ended before all requests had run; those without an answer were not run.
    """

    event: Literal["ended"] = "ended"
    batch: int
    wording: str
    failed: str | None = None
    final: bool = False
    early: bool = False


class Unread(_Event):
    """The answers of an ended batch could not be read whole: they are looked at again later."""

    event: Literal["unread"] = "unread"
    batch: int
    reason: str


class Unfound(_Event):
    """The provider did not know the batch, or not its results, when it was looked at."""

    event: Literal["unfound"] = "unfound"
    batch: int
    reason: str


class Seen(_Event):
    """The provider knows the batch again: what it did not know before proves nothing."""

    event: Literal["seen"] = "seen"
    batch: int


class Gone(_Event):
    """The batch is not waited for any more: the provider lost it, or the user gave it up. It may have been billed."""

    event: Literal["gone"] = "gone"
    batch: int
    reason: str


class Collected(_Event):
    """The batch's results part is on disk."""

    event: Literal["collected"] = "collected"
    batch: int
    result: BatchResult


class Lost(_Event):
    """The batch's results part is gone, and so are the provider's results: its good answers are lost."""

    event: Literal["lost"] = "lost"
    batch: int
    reason: str


class Recovered(_Event):
    """The answers of a batch that was gone, or lost, could be read after all: its results part is on disk."""

    event: Literal["recovered"] = "recovered"
    batch: int
    result: BatchResult


class Compacted(_Event):
    """The results of these batches were merged into one part, whole and on disk; the old parts may be deleted."""

    event: Literal["compacted"] = "compacted"
    schema_id: str
    part: str
    batches: list[int]


class Restored(_Event):
    """A compacted part was gone or damaged: each of its batches that is not lost has its own part again."""

    event: Literal["restored"] = "restored"
    schema_id: str
    part: str


class Reopened(_Event):
    """These final requests got a new allowance of attempts."""

    event: Literal["reopened"] = "reopened"
    slices: list[Slice]


class Published(_Event):
    """The output was written."""

    event: Literal["published"] = "published"
    rows: int
    statuses: dict[str, int]
    complete: bool


Event = Annotated[
    Frozen
    | Submitting
    | Submitted
    | Refused
    | Unknown
    | Ended
    | Unread
    | Unfound
    | Seen
    | Gone
    | Collected
    | Lost
    | Recovered
    | Compacted
    | Restored
    | Reopened
    | Published,
    Field(discriminator="event"),
]
EVENTS: TypeAdapter[Event] = TypeAdapter(Event)
