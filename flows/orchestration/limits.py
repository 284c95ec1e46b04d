"""Prefect's own limits, shared by all runs on all machines: how many submit at once, and how often."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from blocks.batch import Limits
from blocks.catalog import LOCAL, PROVIDERS
from blocks.emulator import EmulatorOptions
from blocks.errors import UsageError
from flows.batches.orchestrator import MAX_LANES, MAX_PERMITS, Allowance
from flows.orchestration.server import PrefectServer
from flows.orchestration.slots import ORPHANED_AFTER, free, read_holders, unless_locked
from flows.report.waits import Waits

UPLOADS = 4  # submissions at once, over all runs
DEFAULT_SUBMISSIONS_PER_HOUR = 6_000
LOOK_TWICE = ORPHANED_AFTER + 5.0  # seconds
LONGEST_PAUSE = 5.0  # seconds between two tries to get permits


def tag_for(provider: str) -> str:
    """The tag of submission tasks; the rate limit has the same name."""
    return f"batchwerk:{provider}"


def slots_of(provider: str) -> str:
    """The limit on submissions at once: Prefect's limit on task runs with the tag."""
    return f"tag:{tag_for(provider)}"


def ensure_limits(client: SyncPrefectClient, provider: str, limits: Limits) -> Allowance:
    """Create the concurrency and the rate limit if they don't exist; an operator's values are kept.

    Raises UsageError if the operator has set either limit to 0.
    """
    per_second = (limits.submissions_per_hour or DEFAULT_SUBMISSIONS_PER_HOUR) / 3600
    at_once = max(1, int(60 * per_second))  # a burst may use the allowance of one minute
    slots = _existing_or_new(client, slots_of(provider), limits.submissions_at_once or UPLOADS)
    rate = _existing_or_new(client, tag_for(provider), at_once, slot_decay_per_second=per_second)
    for name, limit, usual in ((slots_of(provider), slots, UPLOADS), (tag_for(provider), rate, at_once)):
        if limit == 0:
            raise UsageError(
                f"the concurrency limit {name} is 0: no submissions are allowed",
                next_step=f"raise it: prefect gcl update {name} --limit {usual}",
            )
    return Allowance(min(MAX_LANES, slots), min(MAX_PERMITS, rate))


def ensure_all_limits() -> list[str]:
    """Limits for every provider; returns their names."""
    known = {LOCAL: PROVIDERS[EmulatorOptions().dialect].limits} | {
        provider: entry.limits for provider, entry in PROVIDERS.items()
    }
    with PrefectServer(Waits()) as server:
        for provider, limits in known.items():
            server.ask(lambda client, name=provider, of=limits: ensure_limits(client, name, of))  # type: ignore[misc]
    return [tag_for(provider) for provider in known]


def wait_for_permits(server: PrefectServer, waits: Waits, name: str, count: int, halt: threading.Event) -> bool:
    """Wait until this many submissions may be made; False if it was not to be had before `halt`."""

    def take(client: SyncPrefectClient) -> bool:
        client.increment_concurrency_slots([name], count, "rate_limit")
        return True

    with waits.waiting(f"permits of the rate limit {name}"):
        while not halt.is_set():
            answer = unless_locked(lambda: server.insist(take, halt))
            if answer is True:
                return True
            halt.wait(min(answer, LONGEST_PAUSE))
    return False


@dataclass(frozen=True)
class LimitStatus:
    """A limit on submissions at once, and who has its slots."""

    name: str
    limit: int
    taken: int
    orphans: int  # taken, and held by no task run whose lease is alive


def read_limits() -> list[LimitStatus]:
    """The limits of all providers that exist on the server. Raises ServerAway."""
    with PrefectServer(Waits()) as server:
        return [found for provider in [LOCAL, *PROVIDERS] if (found := server.ask(lambda c, p=provider: _status(c, p)))]  # type: ignore[misc]


def look_again(found: Sequence[LimitStatus]) -> list[LimitStatus]:
    """The limits half a minute later, with those orphaned slots alone that were so then: others just change hands."""
    before = {each.name: each.orphans for each in found}
    time.sleep(LOOK_TWICE)
    return [replace(each, orphans=min(each.orphans, before.get(each.name, 0))) for each in read_limits()]


def free_orphans(found: LimitStatus) -> None:
    """Give back the orphaned slots of a limit; a slot is only sure to be orphaned if it was so half a minute ago."""
    with PrefectServer(Waits()) as server:
        if found.orphans:
            server.ask(lambda client: free(client, found.name, found.orphans))


def _status(client: SyncPrefectClient, provider: str) -> LimitStatus | None:
    try:
        held = read_holders(client, slots_of(provider))
    except ObjectNotFound:
        return None
    return LimitStatus(slots_of(provider), held.limit, held.taken, held.orphans)


def _existing_or_new(client: SyncPrefectClient, name: str, limit: int, slot_decay_per_second: float = 0.0) -> int:
    try:
        return client.read_global_concurrency_limit_by_name(name).limit
    except ObjectNotFound:
        pass
    wanted = GlobalConcurrencyLimitCreate(name=name, limit=limit, slot_decay_per_second=slot_decay_per_second)
    try:
        client.create_global_concurrency_limit(wanted)
    except ObjectAlreadyExists:  # another run created it first
        return client.read_global_concurrency_limit_by_name(name).limit
    return limit
