"""Events for tests, with as little said as each needs."""

from datetime import UTC, datetime
from typing import Any

from flows.domain.events import (
    BatchResult,
    Collected,
    Compacted,
    Ended,
    Frozen,
    Lost,
    Refused,
    Reopened,
    Restored,
    Seal,
    Slice,
    Submitted,
    Submitting,
    Unknown,
)

TAG = "abcd2345-7"  # of every batch, so that tests of answers need not know in which one they are
AT = datetime(2026, 4, 1, tzinfo=UTC)


def frozen(stop: int, start: int = 0) -> Frozen:
    generation = Seal(1, "generation") if stop > start else None
    plan = Seal(1, "plan")
    return Frozen(at=AT, start=start, stop=stop, spec="s", rows=stop, wanted=stop, generation=generation, plan=plan)


def submitting(batch: int, *slices: Slice) -> Submitting:
    return Submitting(at=AT, batch=batch, tag=TAG, slices=list(slices), bytes=1, tokens=1, sha256="h", spec="s")


def submitted(batch: int) -> Submitted:
    return Submitted(at=AT, batch=batch, id=f"id-{batch}")


def refused(batch: int, *, too_large: bool = False, queue_full: bool = False) -> Refused:
    return Refused(at=AT, batch=batch, reason="no", too_large=too_large, queue_full=queue_full)


def unknown(batch: int) -> Unknown:
    return Unknown(at=AT, batch=batch, reason="lost")


def ended(batch: int, failed: str | None = None) -> Ended:
    return Ended(at=AT, batch=batch, wording="completed", failed=failed)


def collected(batch: int, **fields: Any) -> Collected:
    """`fields` of the result; the others are zero or empty."""
    tokens = dict.fromkeys(["input_tokens", "output_tokens", "cached_tokens", "metered", "unmetered", "strays"], 0)
    money = dict.fromkeys(["cost", "single_cost", "copies_cost", "cache_saved"], 0)
    usual: dict[str, Any] = {"schema_id": "s", "ok": 0, "retry": [], "final": [], "outcomes": {}, "costs": {}}
    return Collected(at=AT, batch=batch, result=BatchResult(**{**usual, **tokens, **money, **fields}))


def collected_with(batch: int, result: BatchResult) -> Collected:
    return Collected(at=AT, batch=batch, result=result)


def lost(batch: int) -> Lost:
    return Lost(at=AT, batch=batch, reason="gone")


def compacted(part: str, *batches: int, schema_id: str = "s") -> Compacted:
    return Compacted(at=AT, schema_id=schema_id, part=part, batches=list(batches))


def restored(part: str) -> Restored:
    return Restored(at=AT, schema_id="s", part=part)


def reopened(*slices: Slice) -> Reopened:
    return Reopened(at=AT, slices=list(slices))
