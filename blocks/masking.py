"""Hides keys in all messages, and makes these printable: servers repeat keys in errors, headers and reasons."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

from blocks.batch import Answer, BatchProvider, BatchStatus, EncodedBatch, Failure, Found, RequestForm
from blocks.printable import LONGEST_LINE, printable

LONGEST_REASON = 300  # characters kept of why a request failed, in each of its rows
MIN_LENGTH = 8  # characters: a shorter text is not a key, and hiding it would garble messages

Mask = Callable[[str], str]


def hiding(key: str) -> Mask:
    """A function that replaces the key in a text by an ellipsis."""
    return lambda text: text.replace(key, "…") if len(key) >= MIN_LENGTH else text


class MaskingFilter(logging.Filter):
    """For loggers of libraries that log what a server sent."""

    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self._mask = mask

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without the key."""
        record.msg, record.args = printable(self._mask(record.getMessage()), LONGEST_LINE), ()
        return True


class Masked:
    """A provider whose messages don't contain the key and are safe to print. Answers are passed on unchanged."""

    def __init__(self, provider: BatchProvider, mask: Mask) -> None:
        self._provider = provider
        self._mask = mask
        self.name = provider.name
        self.polling = provider.polling
        self.replays = provider.replays

    def submit(self, batch: EncodedBatch, form: RequestForm) -> str:
        """Send a new batch."""
        return self._provider.submit(batch, form)

    def find(self, batch: EncodedBatch, form: RequestForm) -> Found | None:
        """A batch whose submission had an unknown outcome."""
        return self._provider.find(batch, form)

    def poll(self, batch_id: str) -> BatchStatus:
        """The current status of the batch."""
        return self._status(self._provider.poll(batch_id))

    def results(self, batch_id: str, form: RequestForm) -> Iterator[Answer]:
        """The answers of an ended batch."""
        for answer in self._provider.results(batch_id, form):
            yield answer if answer.failure is None else answer._replace(failure=self._failure(answer.failure))

    def cancel(self, batch_id: str) -> BatchStatus:
        """Ask the provider to stop."""
        return self._status(self._provider.cancel(batch_id))

    def close(self) -> None:
        """Close all connections."""
        self._provider.close()

    def _status(self, status: BatchStatus) -> BatchStatus:
        error = None if status.error is None else printable(self._mask(status.error))
        return replace(status, wording=printable(self._mask(status.wording)), error=error)

    def _failure(self, failure: Failure) -> Failure:
        code, message = printable(self._mask(failure.code)), printable(self._mask(failure.message), LONGEST_REASON)
        return failure._replace(code=code, message=message)
