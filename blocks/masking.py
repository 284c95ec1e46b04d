"""Keys stay out of everything that is said: servers repeat them in errors, in headers and in the reasons of rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

from blocks.batch import Answer, BatchProvider, BatchStatus, EncodedBatch, Failure, Found, RequestForm

SHORTEST = 8  # characters: what is shorter is no key, and hiding it would garble every sentence

Mask = Callable[[str], str]


def hiding(key: str) -> Mask:
    """What replaces the key in a text."""
    return lambda text: text.replace(key, "…") if len(key) >= SHORTEST else text


class MaskingFilter(logging.Filter):
    """For loggers of libraries that write down what a server sent."""

    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self._mask = mask

    def filter(self, record: logging.LogRecord) -> bool:
        """Every record passes, without the key."""
        record.msg, record.args = self._mask(record.getMessage()), ()
        return True


class Masked:
    """A provider whose reasons don't repeat the key. Its answers are passed on as they are."""

    def __init__(self, provider: BatchProvider, mask: Mask) -> None:
        self._provider = provider
        self._mask = mask
        self.name = provider.name
        self.polling = provider.polling
        self.verified_lookup = provider.verified_lookup

    def submit(self, batch: EncodedBatch, form: RequestForm) -> str:
        """Send a new batch."""
        return self._provider.submit(batch, form)

    def find(self, batch: EncodedBatch, form: RequestForm) -> Found | None:
        """A batch whose submission had an unknown outcome."""
        return self._provider.find(batch, form)

    def poll(self, batch_id: str) -> BatchStatus:
        """Where the batch stands now."""
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
        error = None if status.error is None else self._mask(status.error)
        return replace(status, wording=self._mask(status.wording), error=error)

    def _failure(self, failure: Failure) -> Failure:
        return failure._replace(code=self._mask(failure.code), message=self._mask(failure.message))
