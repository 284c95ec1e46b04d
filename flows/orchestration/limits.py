"""Prefect's own limits, shared by all runs on all machines: how many submit at once, and how often."""

from __future__ import annotations

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import rate_limit
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from blocks.batch import Limits
from blocks.catalog import LOCAL, PROVIDERS
from blocks.emulator import EmulatorOptions
from blocks.errors import UsageError
from flows.batches.orchestrator import MAX_LANES, MAX_PERMITS, Allowance

UPLOADS = 4  # submissions at once, over all runs
DEFAULT_SUBMISSIONS_PER_HOUR = 6_000


def tag_for(provider: str) -> str:
    """The tag of submission tasks; the rate limit has the same name."""
    return f"batchwerk:{provider}"


def ensure_limits(provider: str, limits: Limits) -> Allowance:
    """Create the concurrency and the rate limit if they don't exist; an operator's values are kept.

    Raises UsageError if the operator has set either limit to 0.
    """
    per_second = (limits.submissions_per_hour or DEFAULT_SUBMISSIONS_PER_HOUR) / 3600
    at_once = max(1, int(60 * per_second))  # a burst may use the allowance of one minute
    with get_client(sync_client=True) as client:
        slots = _existing_or_new(client, f"tag:{tag_for(provider)}", limits.submissions_at_once or UPLOADS)
        rate = _existing_or_new(client, tag_for(provider), at_once, slot_decay_per_second=per_second)
    for name, limit, usual in ((f"tag:{tag_for(provider)}", slots, UPLOADS), (tag_for(provider), rate, at_once)):
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
    for provider, limits in known.items():
        ensure_limits(provider, limits)
    return [tag_for(provider) for provider in known]


def wait_for_permits(provider: str, count: int) -> None:
    """Block until this many submissions may be made."""
    rate_limit(tag_for(provider), occupy=count)


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
