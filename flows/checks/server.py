"""Prefect's server: whether it is there, what it forgets, limits and slots, saved keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from blocks.errors import StateError
from blocks.printable import counted, printable
from flows.checks.check import Finding, Level

if TYPE_CHECKING:
    from flows.orchestration.inspection import Server
    from flows.orchestration.limits import LimitStatus

KEEP_LEASES = "prefect.server.concurrency.lease_storage.filesystem"


class ServerChecks:
    """The checks of one server. The first one finds out whether there is anything to ask."""

    def __init__(self, tell: Callable[[str], None], *, free_slots: bool) -> None:
        self._tell = tell
        self._free_slots = free_slots
        self._is_there = False

    def server(self) -> Iterator[Finding]:
        """Whether it answers, its version, and whether a restart makes it forget who holds a slot."""
        from flows.orchestration.inspection import inspect_server  # noqa: PLC0415  # Prefect takes seconds to import

        try:
            server = inspect_server()
        except StateError as error:
            advice = "start it (`make serve`), or correct PREFECT_API_URL; runs go on waiting for it meanwhile"
            yield Finding("server", Level.PROBLEM, f"Prefect's server can't be used: {error.message}", advice)
            return
        if server is None:
            what = "no Prefect server is set: each run starts its own; limits and saved keys were not looked at"
            advice = "for a server of your own: make serve, then export PREFECT_API_URL=http://127.0.0.1:4200/api"
            yield Finding("server", Level.WARNING, what, advice)
            return
        self._is_there = True
        yield _version(server)
        if server.lease_storage is not None:
            yield _leases(server.lease_storage)

    def limits(self) -> Iterator[Finding]:
        """The limits that submissions need, and slots that nobody holds."""
        if not self._is_there:
            return
        from flows.orchestration import limits  # noqa: PLC0415

        found = limits.read_limits()
        if not found:
            yield Finding("limits", Level.OK, "none yet: the first run makes them, or `batchwerk setup`")
            return
        if any(each.orphans for each in found):
            self._tell(f"some slots seem to be held by nobody; looking again in {limits.LOOK_TWICE:.0f} s …")
            found = limits.look_again(found)
        for each in found:
            yield self._limit(each)

    def _limit(self, status: LimitStatus) -> Finding:
        words = f"{status.name}: {status.taken} of {status.limit} taken"
        if status.limit == 0:
            advice = f"raise it: prefect gcl update {status.name} --limit 4"
            return Finding("limits", Level.PROBLEM, f"{status.name} is 0: no submissions are allowed", advice)
        if not status.orphans:
            return Finding("limits", Level.OK, words)
        lost = f"{words}, {counted(status.orphans, 'slot')} of them by nobody that is alive"
        if not self._free_slots:
            return Finding("limits", Level.PROBLEM, lost, "free them: batchwerk doctor --free-slots")
        self._tell(f"freeing {counted(status.orphans, 'slot')} of {status.name}")
        from flows.orchestration.limits import free_orphans  # noqa: PLC0415

        free_orphans(status)
        return Finding("limits", Level.OK, f"{lost}; freed")

    def blocks(self) -> Iterator[Finding]:
        """The types of saved keys, and those that were saved."""
        if not self._is_there:
            return
        from flows.orchestration.inspection import read_saved  # noqa: PLC0415

        saved = read_saved()
        if missing := [slug for slug, names in saved.items() if names is None]:
            what = f"the server does not know {counted(len(missing), 'block type')}: {', '.join(missing)}"
            yield Finding("blocks", Level.WARNING, what, "if you want to save keys there: batchwerk setup")
        names = [f"{slug}/{printable(name)}" for slug, found in saved.items() for name in found or ()]
        yield Finding("blocks", Level.OK, f"saved keys: {', '.join(names) or 'none'}")


def _version(server: Server) -> Finding:
    if server.version == server.client_version:
        return Finding("server", Level.OK, f"Prefect {server.version} at {server.url}")
    what = f"Prefect {server.version} at {server.url}, but {server.client_version} here"
    return Finding("server", Level.WARNING, what, "install the same version in both places, the server's first")


def _leases(storage: str) -> Finding:
    if not storage.endswith(".memory"):
        return Finding("leases", Level.OK, f"who holds a slot survives a restart of the server ({storage})")
    what = "the server keeps in memory who holds a slot: slots that are taken when it is restarted belong to nobody"
    advice = f"start it with PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE={KEEP_LEASES}"
    return Finding("leases", Level.WARNING, what, advice)
