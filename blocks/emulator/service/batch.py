"""The emulator's neutral types, which every dialect translates its requests to and its responses from."""

import re
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple, Protocol

CUSTOM_ID_WITH_ATTEMPT = re.compile(r"[A-Za-z0-9]{8}-[0-9]+(?:(?:-[A-Za-z0-9]{6})?-[0-9]+)?-([0-9]{1,9})")


class Outcome(StrEnum):
    """The outcome of one request. `BILLED` are always billed; REFUSED depends on the provider."""

    ANSWERED = "answered"
    INVALID = "invalid"  # answered and billed, but the answer does not match the schema: an injected fault
    TRUNCATED = "truncated"  # answered and billed, but cut off at its token limit
    FAILED = "failed"
    UNEXPLAINED = "unexplained"  # failed without a reason: an injected fault
    TIMED_OUT = "timed_out"  # failed because the model took too long: an injected fault
    REJECTED = "rejected"  # failed on every attempt: the request itself is invalid
    REFUSED = "refused"
    MISSING = "missing"  # absent from the results
    CANCELLED = "cancelled"
    EXPIRED = "expired"


BILLED = frozenset((Outcome.ANSWERED, Outcome.INVALID, Outcome.TRUNCATED))


class Refusal(StrEnum):
    """Why a valid create is not accepted."""

    RATE = "rate_limited"
    QUOTA = "insufficient_quota"  # waiting does not help


class Status(StrEnum):
    """The emulator's own states of a batch; dialects translate them."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Request(NamedTuple):
    """One request as a dialect understood it; `schema` is JSON text if the dialect has a field for it.

    `rejection` is the reason why a request that is accepted can only fail; `note` is the dialect's own text, returned
    unchanged; `repeats_role` says that two messages of one role follow each other.
    """

    custom_id: str
    prompt: str
    model: str
    schema: str | None = None
    max_tokens: int | None = None
    rejection: str | None = None
    note: str | None = None
    repeats_role: bool = False


class StoredRequest(NamedTuple):
    """A request in its place (see `store`); `prompt_hash` stands for prompt and schema in faults and in the ledger."""

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
    """The outcome of the request at `place`. `text` is empty without an answer."""

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
    """A create that passed the dialect's checks. `details` is the dialect's own JSON text, returned unchanged.

    A rejected batch is accepted too, but fails as soon as it would have left the queue. `id` is the dialect's choice,
    if it has one.
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
    """When a batch ends, and how. Fixed when it is accepted, so that a restart changes nothing."""

    created_at: float
    duration: float
    ending: Status

    @property
    def ends_at(self) -> float:
        """Seconds since the epoch."""
        return self.created_at + self.duration


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as stored. `status` is final, or None while it is open; the figures below it are set only at its end."""

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


@dataclass(frozen=True, slots=True)
class Ending:
    """How a batch ends: the first `done` positions were processed, the others get `rest`. Failed: no results at all."""

    status: Status
    ended_at: float
    done: int
    rest: Outcome
    progress: int

    @property
    def error(self) -> str | None:
        """What the batch says about its failure."""
        if self.status is Status.FAILED:
            return "the batch failed as a whole; nothing was answered or billed"
        return None


def hash_prompt(prompt: str, schema: str | None = None) -> int:
    """Identifies a prompt in faults and in the ledger; fits SQLite's integers."""
    text = prompt if schema is None else f"{prompt}\0{schema}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def attempt_of(custom_id: str) -> int | None:
    """The attempt in an id of the form `<8 letters or digits>-[<batch>-[<6 more>-]]<number>-<attempt>`."""
    match = CUSTOM_ID_WITH_ATTEMPT.fullmatch(custom_id)
    return int(match[1]) if match else None
