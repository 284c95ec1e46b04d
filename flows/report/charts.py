"""The shapes of the page's charts: places and sizes, in hundredths of their width and height. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

BINS = 120  # of time
FEW = 40  # batches that have a bar each; of more, their number over time is shown
STATES = {"submitting", "unknown", "submitted", "ended", "collected"}  # of batches that the provider has, or may have
PHASES = ("waiting for limits", "being sent", "with the provider", "being collected")


def share(part: Any, whole: Any) -> float:
    """In hundredths; 0 if there is nothing."""
    return 0.0 if not whole or part is None else round(100 * float(part) / float(whole), 3)


def columns(values: Sequence[Any]) -> list[tuple[float, float, float]]:
    """Left edge, width and height of a column for each value."""
    highest = max((float(value) for value in values if value is not None), default=0.0)
    width = 100 / max(1, len(values))
    heights = [share(max(0, value or 0), highest) for value in values]
    return [(round(place * width, 3), round(width * 0.8, 3), height) for place, height in enumerate(heights)]


def batches_over_time(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """When the batches that this run sent or collected waited, were being sent, with the provider, and collected."""
    end = float(report["ended_at"])
    begin = end - float(report["seconds"])
    mine = []
    for line in report["batch_table"]:
        times = [float(at) for at in line["times"]]
        if max(times) >= begin and line["state"] in STATES:
            mine.append((line, _phases(times, end)))
    if not mine:
        return None
    first = min(phases[0][0] for _, phases in mine)
    length = max(end - first, 1e-3)
    spans = [(line, [_placed(phase, first, length) for phase in phases]) for line, phases in mine]
    return {
        "first": first,
        "length": length,
        "batches": len(mine),
        "bars": spans if len(mine) <= FEW else [],
        "areas": _areas([places for _, places in spans]) if len(mine) > FEW else [],
        "idle": _idle(phases for _, phases in mine),
    }


def _phases(times: Sequence[float], end: float) -> list[tuple[float, float]]:
    """From when to when a batch was in each of its phases; what has not ended lasts until now."""
    known = list(times)
    for place in reversed(range(len(known) - 1)):  # an answer that was lost: it was sent at the latest by then
        known[place] = known[place] or known[place + 1]
    return list(pairwise(accumulate((at or end for at in known), max)))


def _placed(phase: tuple[float, float], first: float, length: float) -> tuple[float, float]:
    start, stop = phase
    return round(100 * (start - first) / length, 3), round(100 * (stop - start) / length, 3)


def _areas(batches: Sequence[Sequence[tuple[float, float]]]) -> list[dict[str, Any]]:
    """For each phase the outline of an area: how many batches were in it at each time, one area upon the other."""
    counts = [_counts(batch[phase] for batch in batches) for phase in range(len(PHASES))]
    stacked = [list(accumulate(each)) for each in zip(*counts, strict=True)]
    highest = max((each[-1] for each in stacked), default=0) or 1
    areas = []
    for phase in range(len(PHASES)):
        top = [share(each[phase], highest) for each in stacked]
        bottom = [share(each[phase - 1], highest) if phase else 0.0 for each in stacked]
        areas.append({"points": _outline(top, bottom), "most": max(counts[phase])})
    return areas


def _counts(phases: Iterable[tuple[float, float]]) -> list[int]:
    changes = [0] * (BINS + 1)
    for start, width in phases:
        if width > 0:
            low, high = int(start * BINS / 100), int((start + width) * BINS / 100)
            changes[min(low, BINS - 1)] += 1
            changes[min(max(high, low + 1), BINS)] -= 1
    return list(accumulate(changes))[:BINS]


def _outline(top: Sequence[float], bottom: Sequence[float]) -> str:
    step = 100 / BINS
    up = [
        f"{place * step:.2f},{100 - height:.1f} {(place + 1) * step:.2f},{100 - height:.1f}"
        for place, height in enumerate(top)
    ]
    down = [
        f"{(place + 1) * step:.2f},{100 - height:.1f} {place * step:.2f},{100 - height:.1f}"
        for place, height in reversed(list(enumerate(bottom)))
    ]
    return " ".join([*up, *down])


def _idle(batches: Iterable[Sequence[tuple[float, float]]]) -> float:
    """Seconds in which no batch was under way: one that waits for a limit is not."""
    spans = sorted((phases[1][0], phases[-1][1]) for phases in batches)
    idle, until = 0.0, spans[0][0]
    for start, stop in spans:
        idle += max(0.0, start - until)
        until = max(until, stop)
    return round(idle, 3)
