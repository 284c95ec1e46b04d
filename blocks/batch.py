"""The neutral language of batches, and the port that every provider implements.

A batch is a file of encoded requests. What all of its requests share is a `RequestForm`; what differs is the
prompt and the `custom_id`. Answers come back one by one, in any order, each proving by its `custom_id` whose it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class RequestForm:
    """What all requests of a batch share."""

    model: str
    system: str | None = None
    schema: Mapping[str, Any] | None = None  # the JSON Schema that answers have to match; None: plain text
    max_output_tokens: int | None = None
    temperature: float | None = None


PORTABLE_ID = r"[a-zA-Z0-9_-]{1,64}"  # what every provider takes as a custom_id (docs/wire-protocols.md §1)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider takes. `None` means that it states no such limit."""

    max_requests: int  # in one batch
    max_bytes: int | None = None  # of one batch's body
    max_request_bytes: int | None = None  # of one encoded request
    max_in_flight: int | None = None  # batches at once
    max_queued_requests: int | None = None  # in all batches at once
    max_queued_tokens: int | None = None  # input tokens, in all batches of a model at once
    submissions_per_hour: int | None = None
    submissions_at_once: int | None = None  # over all runs


@dataclass(frozen=True, slots=True)
class PollPlan:
    """When to ask after a batch: seconds to the first look, growth of the pause, longest pause.

    `patience`: seconds after which a batch is no longer waited for; without it the number of requests decides.
    """

    first: float = 2.0
    factor: float = 1.5
    longest: float = 30.0
    patience: float | None = None

    def next_pause(self, pause: float) -> float:
        """The pause that follows one of `pause` seconds."""
        return min(max(pause, self.first) * self.factor, self.longest)


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """The body of a batch, ready on disk, with what must be known to send it and to find it again."""

    path: Path
    requests: int
    bytes: int
    sha256: str
    tag: str  # new for each POST of a new batch; every custom_id of the batch begins with it and a hyphen
    sent_at: float = 0.0  # seconds since the epoch: when its sending was first written down; 0: not known
    others: frozenset[str] = frozenset()  # ids of batches that are known to be other ones


class Found(NamedTuple):
    """A batch whose submission had no answer: its id, and those of copies that were made by accident and are paid."""

    id: str
    copies: tuple[str, ...] = ()


class BatchPhase(StrEnum):
    """Where a batch stands at the provider; every service's own words are mapped onto these."""

    RUNNING = "running"
    ENDED = "ended"  # results, perhaps partial ones, can be read
    FAILED = "failed"  # nothing ran and there is nothing to read


class Obstacle(StrEnum):
    """Why a batch failed as a whole, where the same requests may be sent again otherwise or later."""

    QUEUE_FULL = "queue_full"  # other batches of the account have to end first
    TOO_LARGE = "too_large"  # fewer requests at once


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """What the provider says of a batch. Counters are left out: what is complete is decided by the results."""

    id: str
    phase: BatchPhase
    wording: str  # the provider's own word for the state
    error: str | None = None
    created_at: datetime | None = None
    obstacle: Obstacle | None = None
    early: bool = False  # it ended before all was run: what has no answer was not run


class Usage(NamedTuple):
    """Tokens as billed. `input_tokens` is the total, those read from and written to a cache included."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0  # read from a cache
    cache_write_5m_tokens: int = 0  # written to one that lasts five minutes, or as long as the provider says
    cache_write_1h_tokens: int = 0


class FailureKind(StrEnum):
    """What a failed request means for its next attempt."""

    TRANSIENT = "transient"  # goes again and uses up an attempt
    NOT_RUN = "not_run"  # goes again; it was not billed and says nothing about the row
    TERMINAL = "terminal"  # the same request will fail again
    CUT_OFF = "cut_off"  # the answer reached the limit of output tokens: goes again once, with a larger one
    REFUSED = "refused"  # the model declined; final
    FILTERED = "filtered"  # the provider's content filter stopped it; final


class Failure(NamedTuple):
    """Why a request has no answer."""

    kind: FailureKind
    code: str
    message: str


class Answer(NamedTuple):
    """The outcome of one request: a text or a failure, and what it cost in tokens where the provider says so."""

    custom_id: str
    text: str | None
    usage: Usage | None
    failure: Failure | None


LONGER = 4  # how many times the output tokens of a request whose answer was cut off


class BatchCodec(Protocol):
    """How requests of one form become the bytes of a batch: head, requests joined by the separator, tail."""

    head: bytes
    separator: bytes
    tail: bytes

    def encode(self, custom_id: str, prompt: str, correction: str | None = None, *, longer: bool = False) -> bytes:
        """One request. `correction` says why the previous answer was rejected; `longer`: that it was cut off.

        A longer answer may have `LONGER` times as many output tokens.
        """
        ...


class BatchProvider(Protocol):
    """A service with a batch API. Methods raise `blocks.errors.ProviderError`s and nothing else."""

    name: str
    polling: PollPlan
    verified_lookup: bool  # whether `find` can be trusted to tell if a batch was accepted

    def submit(self, batch: EncodedBatch, form: RequestForm) -> str:
        """Send a new batch and return the provider's id for it.

        A 429 or a connection that never stood is tried again, as nothing was accepted; an answer that is lost
        raises `UnknownOutcome` and is never tried again here.
        """
        ...

    def find(self, batch: EncodedBatch, form: RequestForm) -> Found | None:
        """A batch whose `submit` had an unknown outcome; None where it was never accepted.

        Raises `UnknownOutcome` while nobody can tell; its `retry_after` says when asking again may help.
        """
        ...

    def poll(self, batch_id: str) -> BatchStatus:
        """Where the batch stands now."""
        ...

    def results(self, batch_id: str, form: RequestForm) -> Iterator[Answer]:
        """The answers of an ended batch, in any order, read in chunks: memory does not grow with the batch.

        `form` is what its requests were encoded with. Raises `NotFound` where the provider no longer has them.
        """
        ...

    def cancel(self, batch_id: str) -> BatchStatus:
        """Ask the provider to stop. What was finished by then is kept and paid."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach a provider, without secrets: what a run writes down."""

    provider: str  # whose dialect and prices
    base_url: str  # empty for the embedded emulator, which has a new address each time
    endpoint: str  # who answers; part of every request's key
    block: str | None = None  # the saved Prefect block that holds the key
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def limits_name(self) -> str:
        """Under which name Prefect's limits are kept: trials don't use up those of the real service."""
        return "local" if self.emulated else self.provider

    @property
    def emulated(self) -> bool:
        """Whether the embedded emulator answers."""
        return not self.base_url
