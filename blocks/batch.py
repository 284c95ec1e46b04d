"""The neutral language of batches, and the port that every provider implements.

A batch is a file of encoded requests. All its requests share a `RequestForm`; they differ in prompt and
`custom_id`. Answers come back one by one, in any order, and are matched to requests by their `custom_id`.
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


PORTABLE_ID = r"[a-zA-Z0-9_-]{1,64}"  # accepted by every provider as a custom_id (docs/wire-protocols.md §1)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a provider. `None`: it states no such limit."""

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
    """When to poll a batch: seconds to the first poll, growth of the pause, longest pause.

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
    """The body of a batch, ready on disk, with everything needed to send it and to find it again."""

    path: Path
    requests: int
    bytes: int
    sha256: str
    tag: str  # new for each POST of a new batch; every custom_id of the batch begins with it and a hyphen
    sent_at: float = 0.0  # seconds since the epoch: when its sending was first recorded; 0: unknown
    others: frozenset[str] = frozenset()  # ids of batches that are known to be different ones
    # Ids and tags of batches that the service accepted under the same key: a list without any of them proves nothing.
    # None: whoever asks knows the list to be whole.
    witnesses: Mapping[str, str] | None = None


class Found(NamedTuple):
    """A batch whose submission got no response: its id, and those of accidental copies, which are billed too."""

    id: str
    copies: tuple[str, ...] = ()


class BatchPhase(StrEnum):
    """The phase of a batch at the provider; each service's own states are mapped to these."""

    RUNNING = "running"
    ENDED = "ended"  # results, perhaps partial ones, can be read
    FAILED = "failed"  # nothing ran and there is nothing to read


class Obstacle(StrEnum):
    """Why a batch failed as a whole, if its requests may be sent again later or in smaller batches."""

    QUEUE_FULL = "queue_full"  # other batches of the account have to end first
    TOO_LARGE = "too_large"  # fewer requests at once
    NO_TIME = "no_time"  # it expired, or was cancelled: nothing is wrong with it


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """The provider's status of a batch, without its counters: the results decide completeness."""

    id: str
    phase: BatchPhase
    wording: str  # the provider's own word for the state
    error: str | None = None
    created_at: datetime | None = None
    obstacle: Obstacle | None = None
    early: bool = False  # it ended before all requests had run: those without an answer were not run


class Usage(NamedTuple):
    """Tokens as billed. `input_tokens` is the total, those read from and written to a cache included."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0  # read from a cache
    cache_write_5m_tokens: int = 0  # written to a cache that lasts five minutes, or as long as the provider says
    cache_write_1h_tokens: int = 0
    stated_cost: int = 0  # pico-dollars, as the provider says itself; 0: it does not


class FailureKind(StrEnum):
    """What a failed request means for its next attempt."""

    TRANSIENT = "transient"  # retried; uses up an attempt
    NOT_RUN = "not_run"  # retried; it was not billed and says nothing about the row
    TERMINAL = "terminal"  # the same request will fail again
    CUT_OFF = "cut_off"  # the answer reached the limit of output tokens: retried once with a larger limit
    REFUSED = "refused"  # the model declined; final
    FILTERED = "filtered"  # the provider's content filter stopped it; final
    UNREADABLE = "unreadable"  # retried; there is an answer, so it was billed, but nobody can read it


class Failure(NamedTuple):
    """Why a request has no answer."""

    kind: FailureKind
    code: str
    message: str
    billed: bool = False  # the model answered, so it is paid for, whether its usage is told or not


class Answer(NamedTuple):
    """The outcome of one request: a text or a failure, and its usage if the provider reports it.

    Without a `custom_id` it is an answer to nobody knows which request of the batch.
    """

    custom_id: str
    text: str | None
    usage: Usage | None
    failure: Failure | None


LONGER = 4  # factor on the output tokens of a request whose answer was cut off


class BatchCodec(Protocol):
    """How requests of one form become the bytes of a batch: head, requests joined by the separator, tail."""

    head: bytes
    separator: bytes
    tail: bytes

    def encode(self, custom_id: str, prompt: str, *, longer: bool = False) -> bytes:
        """One request. `longer`: the last answer was cut off, this one may have `LONGER` times as many tokens."""
        ...


class BatchProvider(Protocol):
    """A service with a batch API. Methods raise `blocks.errors.ProviderError`s and nothing else."""

    name: str
    polling: PollPlan
    replays: bool  # whether `find` sends the batch once more, under a key by which the provider knows it again

    def submit(self, batch: EncodedBatch, form: RequestForm) -> str:
        """Send a new batch and return the provider's id for it.

        A 429 or a failed connection is retried, as nothing was accepted; a lost response raises `UnknownOutcome`
        and is never retried here.
        """
        ...

    def find(self, batch: EncodedBatch, form: RequestForm) -> Found | None:
        """A batch whose `submit` had an unknown outcome; None if it was never accepted.

        Raises `UnknownOutcome` while this can't be determined; its `retry_after` says when asking again may help.
        Raises `CantTell` where asking again is of no use. The body is read only if it `replays`.
        """
        ...

    def poll(self, batch_id: str) -> BatchStatus:
        """The current status of the batch."""
        ...

    def results(self, batch_id: str, form: RequestForm) -> Iterator[Answer]:
        """The answers of an ended batch, in any order, read in chunks: memory does not grow with the batch.

        `form` is what its requests were encoded with. A request may have several answers: a failure that another one
        replaces, a line that comes twice. Raises `NotFound` if the provider does not have them, and `Incomplete`, at
        the end too, if what was read is not all of them; after any error nothing that was read counts, as a second
        reading may have another order.
        """
        ...

    def cancel(self, batch_id: str) -> BatchStatus:
        """Ask the provider to stop. Finished requests are kept and billed."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach a provider, without secrets, as recorded by a run."""

    provider: str  # whose dialect and prices
    base_url: str  # empty for the embedded emulator, whose address is new each time
    endpoint: str  # who answers; part of every request's key
    block: str | None = None  # the saved Prefect block that holds the key
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def limits_name(self) -> str:
        """The name of Prefect's limits; trials with the emulator don't use up those of the real service."""
        return "local" if self.emulated else self.provider

    @property
    def emulated(self) -> bool:
        """Whether the embedded emulator answers."""
        return not self.base_url
