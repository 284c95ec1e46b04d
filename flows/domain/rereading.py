"""How often answers that are not all there are looked for, before that counts.

A file of results may come seconds after its batch has ended, and a proxy may cut it short for minutes. Only what stays
as it is over several looks is taken for what the provider has.
"""

from __future__ import annotations

from blocks.batch import PollPlan

LOOKS = 5


def pause_after(looks: int, polling: PollPlan) -> float:
    """Seconds from this many looks to the next one: those between two polls, from the first."""
    pause = polling.first
    for _ in range(min(looks, LOOKS) - 1):
        pause = polling.next_pause(pause)
    return pause


def is_settled(looks: int, since: float, now: float, polling: PollPlan) -> bool:
    """Whether what the looks found so far, the first at `since`, is all that will be found."""
    return looks >= LOOKS and now - since >= sum(pause_after(look, polling) for look in range(1, LOOKS))
