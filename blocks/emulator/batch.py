"""The emulator's neutral words: what every dialect turns its requests into and its answers out of. Imports nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    """What became of one request. Which of them are billed says `BILLED`."""

    ANSWERED = "answered"
    INVALID = "invalid"  # answered and billed, but the answer breaks the schema: an injected fault
    FAILED = "failed"
    REFUSED = "refused"
    MISSING = "missing"  # absent from the results
    CANCELLED = "cancelled"
    EXPIRED = "expired"


BILLED = frozenset((Outcome.ANSWERED, Outcome.INVALID))


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
    """One request as a dialect understood it; `schema` is JSON text where the dialect has a field for it."""

    custom_id: str
    prompt: str
    model: str
    schema: str | None = None


class StoredRequest(NamedTuple):
    """A request in its place; `prompt_hash` stands for prompt and schema in faults and in the ledger."""

    place: int
    custom_id: str
    prompt: str
    model: str
    schema: str | None
    prompt_hash: int
    attempt: int


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


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A create that passed the dialect's checks. `details` is the dialect's own JSON text, handed back as it is."""

    model: str
    requests: Sequence[Request]
    body_hash: bytes
    idempotency_key: str | None = None
    details: str = "{}"


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
