"""The emulator's neutral words: what every dialect turns its requests into and its answers out of. Imports nothing."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol


class Outcome(StrEnum):
    """What became of one request. `BILLED` are always billed; whether REFUSED is, depends on the provider."""

    ANSWERED = "answered"
    INVALID = "invalid"  # answered and billed, but the answer breaks the schema: an injected fault
    TRUNCATED = "truncated"  # answered and billed, but cut off at its token limit: an injected fault
    FAILED = "failed"
    UNEXPLAINED = "unexplained"  # failed as well, but nobody says why: an injected fault
    TIMED_OUT = "timed_out"  # failed as well, because the model took too long: an injected fault
    REJECTED = "rejected"  # failed too, on every attempt: the request itself is unsound
    REFUSED = "refused"
    MISSING = "missing"  # absent from the results
    CANCELLED = "cancelled"
    EXPIRED = "expired"


BILLED = frozenset((Outcome.ANSWERED, Outcome.INVALID, Outcome.TRUNCATED))


class Refusal(StrEnum):
    """Why a create is not accepted, though nothing is wrong with it."""

    RATE = "rate_limited"
    QUOTA = "insufficient_quota"  # waiting does not help


class Status(StrEnum):
    """A batch's state in the emulator's own words; dialects translate them."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        return self not in (Status.QUEUED, Status.PROCESSING)


class Request(NamedTuple):
    """One request as a dialect understood it; `schema` is JSON text where the dialect has a field for it.

    `rejection` says what is wrong with a request that is accepted, but can only fail; `note` is the dialect's own text,
    handed back as it is.
    """

    custom_id: str
    prompt: str
    model: str
    schema: str | None = None
    max_tokens: int | None = None
    rejection: str | None = None
    note: str | None = None


class StoredRequest(NamedTuple):
    """A request in its place; `prompt_hash` stands for prompt and schema in faults and in the ledger."""

    place: int
    custom_id: str
    prompt: str
    model: str
    schema: str | None
    prompt_hash: int
    attempt: int
    max_tokens: int | None = None
    rejection: str | None = None


class Result(NamedTuple):
    """What became of the request in that place. `text` is empty where nothing was answered."""

    place: int
    outcome: Outcome
    text: str
    input_tokens: int
    output_tokens: int


class Item(NamedTuple):
    """A result with its request, as dialects show it."""

    custom_id: str
    prompt: str
    model: str
    outcome: Outcome
    text: str
    input_tokens: int
    output_tokens: int
    prompt_hash: int
    attempt: int
    rejection: str | None
    note: str | None


class Requests(Protocol):
    """The requests of a create; they need not all be in memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Request: ...


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A create that passed the dialect's checks. `details` is the dialect's own JSON text, handed back as it is.

    A rejected batch is accepted all the same, but fails as soon as it would have been queued. `id` is the dialect's
    choice, if it has one.
    """

    model: str
    requests: Requests
    body_hash: bytes
    idempotency_key: str | None = None
    details: str = "{}"
    rejected: bool = False
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a batch ends, and how. Fixed when it is accepted, so that a restart moves nothing."""

    created_at: float
    duration: float
    ending: Status

    @property
    def ends_at(self) -> float:
        return self.created_at + self.duration


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as stored. `status` is final, or None while it is open; the figures below it count only then."""

    number: int
    id: str
    model: str
    details: str
    total: int
    body_hash: bytes
    schedule: Schedule
    status: Status | None
    ended_at: float
    progress: int
    succeeded: int
    failed: int
    missing: int
    input_tokens: int
    output_tokens: int
    error: str | None
