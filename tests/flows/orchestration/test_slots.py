"""Slots that nobody holds are told from those that are changing hands."""

from __future__ import annotations

from uuid import uuid4

from flows.orchestration.slots import ORPHANED_AFTER, Holders, OrphanWatch


def test_a_slot_is_orphaned_only_after_a_while() -> None:
    """Between taking a slot and writing down its lease lies a moment, and so it does until an expired one is freed."""
    watch = OrphanWatch()
    assert watch.seen(2, 0.0) == 0
    assert watch.seen(2, ORPHANED_AFTER - 1) == 0
    assert watch.seen(2, ORPHANED_AFTER) == 2
    assert watch.seen(2, ORPHANED_AFTER + 1) == 0, "what was freed is not freed again"


def test_only_as_many_as_were_orphaned_all_the_time_are_freed() -> None:
    """The others were taken and given back meanwhile."""
    watch = OrphanWatch()
    for moment, orphans in enumerate([3, 1, 2]):
        assert watch.seen(orphans, float(moment)) == 0
    assert watch.seen(3, ORPHANED_AFTER) == 1


def test_a_moment_without_orphans_begins_anew() -> None:
    """Then it were others."""
    watch = OrphanWatch()
    assert watch.seen(1, 0.0) == 0
    assert watch.seen(0, 1.0) == 0
    assert watch.seen(1, ORPHANED_AFTER) == 0


def test_orphans_are_what_no_living_lease_accounts_for() -> None:
    """A limit that counts less than there are leases has none."""
    assert Holders(4, 3, (uuid4(),)).orphans == 2
    assert Holders(4, 1, (uuid4(), uuid4())).orphans == 0
