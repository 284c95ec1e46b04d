"""Python's garbage collector, which by default scans 250,000 objects created by Prefect's imports."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_OBJECTS = 20_000  # allocations between two scans; not more, since a cycle may hold a batch


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """For heavy work: existing objects are not scanned, new ones less often."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
