"""Python's garbage collector, which by itself searches a quarter of a million objects that Prefect's imports made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_OBJECTS = 20_000  # between two searches: what is in a cycle may hold a batch, so not too many


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Around much work: what exists already is not searched, what is new less often."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
