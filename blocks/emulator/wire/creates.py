"""The faults of creates: rate limits and quotas before a batch is stored, lost and late answers afterwards."""

import asyncio

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from blocks.emulator.options import EmulatorOptions
from blocks.emulator.service.batch import Refusal
from blocks.emulator.service.service import Accepted, Service
from blocks.emulator.wire.breaking import DroppedConnection
from blocks.emulator.wire.calls import CallError

HOLD_FILE_CHECK = 0.02  # seconds between two looks


def refuse_by_rate(service: Service) -> None:
    """Raises CallError (429) for every Nth create if switched: for its rate, or for a quota that is used up."""
    refusal = service.create_refusal()
    if refusal is Refusal.QUOTA:
        raise CallError(429, refusal.value, "the quota is exhausted; waiting does not help")
    if refusal is not None:
        wait = service.options.retry_after
        raise CallError(429, refusal.value, f"too many creates; retry in {wait:g} s", retry_headers(service.options))


def retry_headers(options: EmulatorOptions) -> dict[str, str]:
    """The header that says how long to wait; none if switched off."""
    known = {"retry-after": f"{options.retry_after:g}", "retry-after-ms": f"{1000 * options.retry_after:.0f}"}
    return {name: value for name, value in known.items() if name == options.retry_header}


async def answer_create(service: Service, accepted: Accepted, answer: Response) -> Response:
    """The answer to a create that is stored: at once, later, or never."""
    left = accepted.held
    while left > 0 and not service.closing:
        await asyncio.sleep(min(left, 0.1))
        left -= 0.1
    while await run_in_threadpool(service.is_held):
        await asyncio.sleep(HOLD_FILE_CHECK)
    return DroppedConnection() if accepted.dropped else answer
