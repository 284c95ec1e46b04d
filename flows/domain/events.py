"""What the journal says: each event is one line, written after (or, for intents, before) what it tells of.

Replaying them gives the ledger. Fields may be added with a default; the meaning of an existing one never changes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class Slice(NamedTuple):
    """A range of requests on the same attempt."""

    start: int
    stop: int  # excluded
    attempt: int = 1  # serial number of this sending, part of the custom_id
    used: int = 0  # attempts used up before this one; those that were excused don't count
    after: int | None = None  # the batch whose answers sent these again
    excused: int = 0  # failures of this allowance that used up no attempt
    longer: bool = False  # whether answers may be longer, since the last one was cut off

    @property
    def requests(self) -> int:
        """How many requests the slice holds."""
        return self.stop - self.start


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    at: datetime


class Planned(_Event):
    """Requests were frozen: numbers from `start` up to `stop` are new."""

    event: Literal["planned"] = "planned"
    start: int
    stop: int
    spec: str
    rows: int
    wanted: int  # requests that the rows of this plan ask for, new and known ones


class Submitting(_Event):
    """The intent: a batch is about to be sent."""

    event: Literal["submitting"] = "submitting"
    batch: int
    tag: str
    slices: list[Slice]
    bytes: int
    sha256: str
    spec: str


class Submitted(_Event):
    """The provider accepted the batch under its id; `copies` are others with the same requests, which are paid too."""

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


class Unknown(_Event):
    """The answer to the submission was lost; the provider has to be asked."""

    event: Literal["unknown"] = "unknown"
    batch: int
    reason: str


class Ended(_Event):
    """The provider is done with the batch. `failed`: nothing ran, there is nothing to read; `final`: nor ever will.

    `early`: it ended before all was run, and what has no answer was not run.
    """

    event: Literal["ended"] = "ended"
    batch: int
    wording: str
    failed: str | None = None
    final: bool = False
    early: bool = False


class Collected(_Event):
    """The batch's results part is on disk; every request of the batch is ok, goes again or is final."""

    event: Literal["collected"] = "collected"
    batch: int
    schema_id: str
    ok: int
    again: list[Slice]
    final: list[Slice]
    outcomes: dict[str, int]  # by outcome, for the report
    input_tokens: int
    output_tokens: int
    cost: int | None  # pico-dollars; None: unpriced
    single_cost: int | None
    rejected_cost: int | None  # of it, for answers that are of no use
    unmetered: int = 0  # answers that came without usage: their cost is not known and not in the sums
    strays: int = 0  # answers that belong to no request of the batch, or came twice
    cached_tokens: int = 0  # of the input tokens, those that were read from a cache


class Lost(_Event):
    """The batch's results part is gone and the provider has no copy: its good answers are lost."""

    event: Literal["lost"] = "lost"
    batch: int
    reason: str


class Compacted(_Event):
    """The results of these batches are in one part together, whole and on disk; those they were in may be deleted."""

    event: Literal["compacted"] = "compacted"
    schema_id: str
    part: str
    batches: list[int]


class Restored(_Event):
    """A compacted part was gone or damaged: each of its batches that are not lost has a part of its own again."""

    event: Literal["restored"] = "restored"
    schema_id: str
    part: str


class Reopened(_Event):
    """Requests that were final got a new allowance."""

    event: Literal["reopened"] = "reopened"
    slices: list[Slice]


class Published(_Event):
    """The output was written."""

    event: Literal["published"] = "published"
    rows: int
    statuses: dict[str, int]
    complete: bool


Event = Annotated[
    Planned
    | Submitting
    | Submitted
    | Refused
    | Unknown
    | Ended
    | Collected
    | Lost
    | Compacted
    | Restored
    | Reopened
    | Published,
    Field(discriminator="event"),
]
EVENTS: TypeAdapter[Event] = TypeAdapter(Event)
