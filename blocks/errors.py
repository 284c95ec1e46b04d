"""The errors, grouped by what the caller can do about them.

BatchwerkError                  one sentence and a next step; never shown as a traceback
├── UsageError                  the call, the job file or the input is wrong: nothing was sent
├── StateError                  the state directory can't be used as it is (held, corrupted, too new)
└── ProviderError               a provider refused, failed or did not answer
    ├── Transient               nothing was accepted and the cause may pass: the same call may be repeated
    │   └── Incomplete              the answers of an ended batch, not whole: nobody's question counts as unanswered
    ├── UnknownOutcome          a batch was sent and the response was lost: ask the provider before sending again
    │   └── CantTell            nothing that the provider shows tells it: the user decides
    └── Terminal                the same call will fail again
        ├── AuthenticationFailed    the key is missing, wrong or not allowed to do this: stop the run
        ├── SpendLimitReached       the account can't pay: stop the run
        ├── BatchTooLarge           send fewer requests at once
        ├── NotFound                no such batch, no longer or not yet
        └── BatchRefused            any other refusal of a whole call
"""

from __future__ import annotations

from typing import Any, NamedTuple

from blocks.printable import LONGEST_LINE, printable


class BatchwerkError(Exception):
    """An error that a user can act on: what happened, and what to do now.

    Both may quote rows, providers and file names: they are safe to print wherever they end.
    """

    def __init__(self, message: str, *, next_step: str = "") -> None:
        self.message = printable(message, LONGEST_LINE)
        self.next_step = printable(next_step, LONGEST_LINE)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.next_step}" if self.next_step else self.message


class UsageError(BatchwerkError):
    """The call, the job file or the input is wrong; nothing was sent."""


class StateError(BatchwerkError):
    """The state directory can't be used as it is."""


class Busy(StateError):
    """Another process works on the output."""


def system_error(error: OSError) -> StateError:
    """An error such as a full disk or a missing permission, with the path and a next step."""
    place = f": {error.filename}" if error.filename else ""
    return StateError(
        f"{error.strerror or error}{place}",
        next_step="free some space or fix the permissions, then run the same command again to continue",
    )


class ProviderError(BatchwerkError):
    """A provider refused a call, failed, or did not answer."""

    def __init__(
        self,
        message: str,
        *,
        next_step: str = "",
        provider: str = "",
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.provider = provider
        self.status = status
        self.code = code
        self.retry_after = retry_after  # seconds, as requested by the provider
        self.tries = 1  # how often the call was made before this was raised
        self.worth_repeating = True  # False if the provider said that repeating the call at once is useless


class Transient(ProviderError):
    """Nothing was accepted and the cause may pass."""


UNCOUNTED = 2**31  # more answers than any batch has: how many are lacking can't be told


class Incomplete(Transient):
    """The answers of an ended batch, not there yet, cut short, not understood, or fewer than its counters say.

    `fewer`: how many at most lack of what was read; 0: what came says nothing about the answers.
    """

    def __init__(self, message: str, *, fewer: int = 0, next_step: str = "", **known: Any) -> None:
        next_step = next_step or "nothing was sent again; the same command asks for them again"
        super().__init__(message, next_step=next_step, **known)
        self.fewer = fewer


class Oversized(Incomplete):
    """One answer with more bytes than are read into memory: asking for it again brings as many."""

    worth_repeating = False


class UnknownOutcome(ProviderError):
    """A batch was sent and the response was lost: it may have been accepted."""


class CantTell(UnknownOutcome):
    """Nothing that the provider shows tells whether the batch was accepted, now or later."""


class Terminal(ProviderError):
    """The same call will fail again."""


class AuthenticationFailed(Terminal):
    """The key is missing, wrong, or not allowed to do this."""


class SpendLimitReached(Terminal):
    """The account can't pay for more."""


class BatchTooLarge(Terminal):
    """The provider accepts only fewer bytes or requests at once."""


class NotFound(Terminal):
    """The provider does not know the batch, no longer or not yet."""


class BatchRefused(Terminal):
    """The provider refused the call as a whole."""


class Complaint(NamedTuple):
    """What a provider says of an error: its code, its sentence, seconds to wait where the body names them."""

    code: str | None
    message: str
    retry_after: float | None = None
