"""Slots of the limit on submissions, held under a lease that is renewed; and slots that nobody holds any longer.

Prefect's tasks would take them too, by their tag, but wait for them without a word and without end, and fail where the
server is away. Here whoever waits says so, lets go when the run stops, and outlives the server's absence.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeVar
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.exceptions import ObjectNotFound

from flows.batches.orchestrator import Slot
from flows.orchestration.server import CallFailed, PrefectServer, Refused, ServerAway
from flows.report.waits import Waits

T = TypeVar("T")

LEASE = 60.0  # seconds; the shortest that Prefect allows
RENEW_EVERY = 15.0
LOOK_EVERY = 5.0  # seconds between two looks at who holds the slots
ORPHANED_AFTER = 25.0  # seconds; Prefect's own service frees expired leases every 15 s, where it runs
LONGEST_PAUSE = 2.0  # between two tries: Prefect would have us wait longer the more often it refused


class Holders(NamedTuple):
    """Who holds the slots of a limit."""

    limit: int
    taken: int  # as the limit counts
    task_runs: tuple[UUID, ...]  # with a lease that is alive

    @property
    def orphans(self) -> int:
        """Slots that were taken and that nobody can give back."""
        return max(0, self.taken - len(self.task_runs))


def read_holders(client: SyncPrefectClient, name: str) -> Holders:
    """Who holds the slots of `tag:NAME`. Raises ObjectNotFound if there is no such limit."""
    limit = client.read_global_concurrency_limit_by_name(name)
    tag = client.read_concurrency_limit_by_tag(name.removeprefix("tag:"))
    return Holders(limit.limit, limit.active_slots, tuple(tag.active_slots))


def free(client: SyncPrefectClient, name: str, count: int) -> None:
    """Give back slots that nobody holds."""
    client.release_concurrency_slots([name], count, occupancy_seconds=LEASE)


class OrphanWatch:
    """Tells slots that nobody holds from those that are just changing hands: they stay so for a while."""

    def __init__(self) -> None:
        self._fewest, self._since = 0, 0.0

    def seen(self, orphans: int, now: float) -> int:
        """How many may be freed now."""
        if not self._fewest or not orphans:
            self._fewest, self._since = orphans, now
            return 0
        self._fewest = min(self._fewest, orphans)
        if now - self._since < ORPHANED_AFTER:
            return 0
        found, self._fewest = self._fewest, 0
        return found


class Slots:
    """The slots of one limit."""

    def __init__(self, server: PrefectServer, waits: Waits, name: str) -> None:
        self._server = server
        self._waits = waits
        self._name = name

    @contextmanager
    def slot(self, holder: UUID, halt: threading.Event) -> Iterator[Slot | None]:
        """A slot, waited for and given back; None if it was not to be had before `halt`."""
        lease = self._acquired(holder, halt)
        if lease is None:
            yield None
            return
        slot, ended = Slot(), threading.Event()
        renewing = threading.Thread(target=self._renew, args=(lease, slot, ended), daemon=True, name="lease")
        renewing.start()
        try:
            yield slot
        finally:
            ended.set()
            with suppress(CallFailed):  # else the lease runs out by itself
                self._server.ask(lambda client: client.release_concurrency_slots_with_lease(lease))

    def _acquired(self, holder: UUID, halt: threading.Event) -> UUID | None:
        watch, next_look = OrphanWatch(), 0.0

        def take(client: SyncPrefectClient) -> UUID:
            by = ConcurrencyLeaseHolder(type="task_run", id=holder)
            answer = client.increment_concurrency_slots_with_lease([self._name], 1, "concurrency", LEASE, by)
            return UUID(answer.json()["lease_id"])

        with self._waits.waiting(f"a slot of {self._name}") as tell:
            while not halt.is_set():
                answer = unless_locked(lambda: self._server.insist(take, halt))
                if isinstance(answer, UUID):
                    return answer
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + LOOK_EVERY
                    self._look(watch, tell)
                halt.wait(min(answer, LONGEST_PAUSE))
        return None

    def _look(self, watch: OrphanWatch, tell: Callable[[str], None]) -> None:
        """Say who holds the slots, and free those that nobody holds."""
        try:
            held = self._server.ask(lambda client: read_holders(client, self._name))
            tell(self._server.ask(lambda client: describe(client, held)))
            if orphans := watch.seen(held.orphans, time.monotonic()):
                self._server.ask(lambda client: free(client, self._name, orphans))
        except (CallFailed, ObjectNotFound):
            tell("")  # an older server, or one that is away: the next look tells more

    def _renew(self, lease: UUID, slot: Slot, ended: threading.Event) -> None:
        while not ended.wait(RENEW_EVERY):
            try:
                self._server.ask(lambda client: client.renew_concurrency_lease(lease, LEASE))
            except ServerAway:
                continue
            except (CallFailed, ObjectNotFound):  # it ran out, or the server forgot it
                slot.lost.set()
                return


def unless_locked(take: Callable[[], T]) -> T | float:
    """What was taken, or in how many seconds to try again because nothing is free now. Raises Refused."""
    try:
        return take()
    except ServerAway:
        return 0.0  # only once the wait was ended
    except Refused as error:
        if not error.is_locked:
            raise
        return error.retry_after or 1.0


def describe(client: SyncPrefectClient, held: Holders) -> str:
    """Who holds the slots, as far as Prefect knows."""
    names = []
    for each in held.task_runs[:3]:
        try:
            flow_run = client.read_task_run(each).flow_run_id
            names.append(client.read_flow_run(flow_run).name if flow_run else str(each))
        except ObjectNotFound:
            names.append(f"task run {each}")
    by = f"; held by {', '.join(dict.fromkeys(names))}" if names else ""
    lost = f"; {held.orphans} of them by nobody that is alive, freed soon" if held.orphans else ""
    return f"{held.taken} of {held.limit} taken{by}{lost}"
