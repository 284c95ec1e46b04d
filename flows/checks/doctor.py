"""All checks, in the order in which they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import orjson

from blocks.catalog import PROVIDERS
from blocks.errors import BatchwerkError
from blocks.trusted_hosts import check_address
from flows.checks.check import Check, Finding, Level, run_checks
from flows.checks.machine import check_disk, check_locks, check_machine
from flows.checks.providers import addresses, check_clock, check_keys, check_prices
from flows.checks.server import ServerChecks
from flows.spec import Spec
from flows.storage.lease import describe, read_holder
from flows.storage.place import check_place
from flows.storage.state import StateDirectory


def examine(output: Path | None, tell: Callable[[str], None], *, free_slots: bool) -> Iterator[Finding]:
    """What is found, as it is found. `output`: an output whose folder, state and models are looked at.

    `tell`: gets what is being done while it takes long. `free_slots`: whether slots that nobody holds are given back.
    """
    folder = Path.cwd() if output is None else output.absolute().parent
    server = ServerChecks(tell, free_slots=free_slots)

    def specs() -> list[Spec]:
        return [] if output is None else _last_spec(output)

    checks = [
        Check("machine", "memory and processors", 5, check_machine),
        Check("disk", f"the disk of {folder}", 10, lambda: check_disk(_existing(folder))),
        Check("locks", f"locks in {folder}", 15, lambda: check_locks(_existing(folder))),
        Check("prices", "the price table", 10, lambda: check_prices(specs(), datetime.now(UTC).date())),
        Check("keys", "keys", 5, check_keys),
        Check("clock", "the clock against the providers'", 45, lambda: check_clock(addresses(specs()))),
        Check("server", "Prefect's server", 60, server.server),
        Check("limits", "Prefect's limits and who holds their slots", 90, server.limits),
        Check("blocks", "saved keys", 45, server.blocks),
    ]
    if output is not None:
        checks.insert(3, Check("state", f"the state of {output}", 30, lambda: check_state(output)))
    yield from run_checks(checks, tell)


def check_state(output: Path) -> Iterator[Finding]:
    """The state directory of an output."""
    state = StateDirectory(output)
    if state.read_run() is None:
        yield Finding("state", Level.OK, f"{output} was not begun yet")
        return
    check_place(state, moved=False)
    holder = read_holder(state.lease)
    at_work = f"worked on by {describe(holder)}" if holder else "nobody works on it"
    yield Finding("state", Level.OK, f"{state.path} is whole; {at_work}")


def _last_spec(output: Path) -> list[Spec]:
    """What the output's last run was sent under; none if there was none, or if that can't be read."""
    state = StateDirectory(output)
    try:
        spec = Spec.from_content(state.last_spec())
        if not spec.connection.emulated:
            check_address(spec.connection.base_url, PROVIDERS[spec.connection.provider].base_url)
    except (BatchwerkError, OSError, KeyError, TypeError, ValueError, orjson.JSONDecodeError):
        return []  # the check of the state says what is wrong with it
    return [spec]


def _existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())
