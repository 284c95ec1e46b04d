"""From a connection to a client: the key, the emulator's server, the address."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from blocks.batch import BatchProvider, Connection, PollPlan
from blocks.catalog import PROVIDERS
from blocks.connections import emulator_options
from blocks.emulator import EmulatorOptions, RunningEmulator, running_emulator
from blocks.entries import SETTLE, ProviderEntry
from blocks.errors import StateError, UsageError
from blocks.masking import Masked, hiding
from blocks.trusted_hosts import check_address

EMULATOR_POLLING = PollPlan(first=0.1, factor=1.5, longest=1.0)


class Access(NamedTuple):
    """A connection with all that a client is made of. It holds the key: it is never written down or shown."""

    connection: Connection
    key: SecretStr
    base_url: str

    @property
    def key_id(self) -> str:
        """Tells whether two batches were sent under the same key, without a way back to it."""
        if self.connection.emulated:  # its key is drawn at each start, its batches are all ours
            return self.connection.endpoint
        secret = f"{self.connection.endpoint}\n{self.key.get_secret_value().strip()}"
        return hashlib.blake2b(secret.encode(), digest_size=8).hexdigest()

    def client(self) -> BatchProvider:
        """A client; whoever has it closes it."""
        entry, options = PROVIDERS[self.connection.provider], self.connection.options
        known = _emulated(entry, emulator_options(options)) if self.connection.emulated else {}
        chosen = entry.client_options(options)
        if SETTLE.name in options:
            known.pop(SETTLE.name, None)
        try:  # without a variable for the key: tracebacks may be shown with those of this frame
            client = entry.client(self.key.get_secret_value().strip(), self.base_url, **{**chosen, **known})
        except UsageError as error:
            raise error.with_traceback(None)  # noqa: B904  # the same error, without the frames that hold the key
        return Masked(client, hiding(self.key.get_secret_value().strip()))


@contextmanager
def open_access(connection: Connection, state: Path | None = None, *, typed_url: str | None = None) -> Iterator[Access]:
    """What is needed to call the provider. The emulator's server is started first and stopped after.

    `state`: the folder where the emulator keeps what it has done, in one file per dialect; without it that is
    forgotten. Raises UsageError if the key may not be sent to the connection's address, wherever that comes from;
    `typed_url`: as for `check_address`.
    """
    if not connection.emulated:
        yield Access(connection, _key(connection, typed_url), connection.base_url)
        return
    options = emulator_options(connection.options)
    place = state and state / f"emulator-{options.dialect}.sqlite"
    key = secrets.token_urlsafe(24)  # of this start: other users of the machine can reach its port
    with _started(replace(options, state=place, key=key)) as emulator:
        yield Access(connection, SecretStr(key), emulator.base_url)


def _emulated(entry: ProviderEntry, options: EmulatorOptions) -> dict[str, object]:
    """What is known of the emulator: it is near, and shows a batch at once unless it is told to hide it."""
    known: dict[str, object] = {"polling": EMULATOR_POLLING, **entry.emulated}
    if entry.takes(SETTLE.name):
        known[SETTLE.name] = options.visible_after + 1 if options.visible_after else 0.0
    return known


def _key(connection: Connection, typed_url: str | None) -> SecretStr:
    if connection.block is None:
        entry = PROVIDERS[connection.provider]
        check_address(connection.base_url, entry.base_url, typed_url=typed_url)
        return SecretStr(os.environ.get(entry.key_variable, ""))
    from blocks.credentials import load_block  # noqa: PLC0415  # Prefect takes seconds to import; only blocks need it

    block = load_block(connection.block)
    check_address(connection.base_url, block.base_url, loopback=False)
    return block.api_key


@contextmanager
def _started(options: EmulatorOptions) -> Iterator[RunningEmulator]:
    with ExitStack() as stack:
        try:
            emulator = stack.enter_context(running_emulator(options))
        except RuntimeError as error:
            step = "its own words stand above; a --option port that is in use is the usual reason"
            raise StateError(str(error), next_step=step) from error
        yield emulator
