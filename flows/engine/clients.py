"""The spec of each batch, and the client of the service that has the batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from blocks.batch import BatchProvider, Connection
from blocks.clients import Access, open_access
from blocks.errors import StateError
from flows.domain.batches import Batch
from flows.spec import Spec
from flows.storage.state import StateDirectory, read_json

RESTORE = "restore the state directory from a backup; nothing was changed or sent"


class Clients:
    """Clients of the services that have batches of an output; others than this run's are opened on demand."""

    def __init__(self, stack: ExitStack, state: StateDirectory, spec: Spec | None, typed_url: str | None) -> None:
        self._stack = stack
        self._state = state
        self._current = spec
        self._typed_url = typed_url
        # An unsent batch has no fingerprint.
        self._specs = {} if spec is None else {"": spec, spec.fingerprint: spec}
        self._open: dict[object, tuple[Access, BatchProvider]] = {}
        self._lock = threading.Lock()

    def spec_of(self, batch: Batch) -> Spec:
        """The spec that a batch was, or will be, sent under."""
        with self._lock:
            if batch.spec not in self._specs:
                self._specs[batch.spec] = read_spec(self._state, batch.spec)
            return self._specs[batch.spec]

    def is_elsewhere(self, batch: Batch) -> bool:
        """Whether another service, or another saved key, has the batch than this run sends to."""
        if self._current is None:
            return True
        theirs, ours = self.spec_of(batch).connection, self._current.connection
        return (theirs.endpoint, theirs.block) != (ours.endpoint, ours.block)

    def current(self) -> BatchProvider:
        """The client of this run's own provider."""
        assert self._current is not None  # noqa: S101  # of a run, which has one
        return self._opened(self._current.connection)[1]

    def client_of(self, batch: Batch) -> BatchProvider:
        """The client of the service that has the batch, opened once."""
        return self._opened(self.spec_of(batch).connection)[1]

    def access_of(self, batch: Batch) -> Access:
        """What another process needs to open its own client."""
        return self._opened(self.spec_of(batch).connection)[0]

    def _opened(self, connection: Connection) -> tuple[Access, BatchProvider]:
        ours = self._current.connection if self._current else connection
        if connection.emulated and connection.endpoint == ours.endpoint:
            connection = ours  # the emulator of a dialect has one state, whatever faults an earlier run switched on
        options = () if connection.emulated else tuple(sorted(connection.options.items()))
        key = (connection.endpoint, connection.block, options)
        with self._lock:
            if key not in self._open:
                access = self._stack.enter_context(open_access(connection, self._state.path, typed_url=self._typed_url))
                self._open[key] = access, self._stack.enter_context(closing(access.client()))
            return self._open[key]


@contextmanager
def open_clients(state: StateDirectory, spec: Spec | None, typed_url: str | None = None) -> Iterator[Clients]:
    """Clients that are opened on first use and closed at the end.

    `spec`: of the run; None if it sends nothing. `typed_url`: an address that was typed on a shell.
    """
    with ExitStack() as stack:
        yield Clients(stack, state, spec, typed_url)


def read_spec(state: StateDirectory, fingerprint: str) -> Spec:
    """What batches were sent under, from its file. Raises StateError."""
    path = state.spec(fingerprint)
    content = read_json(path)
    try:
        spec = Spec.from_content(content)
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"{path} is damaged: {error!r}", next_step=RESTORE) from error
    if spec.fingerprint != fingerprint:
        raise StateError(f"{path} is not the file that batches were sent under", next_step=RESTORE)
    return spec
