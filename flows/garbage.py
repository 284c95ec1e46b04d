"""The garbage collector, which by itself looks through a quarter of a million objects that Prefect's imports made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 20_000  # new objects between two searches: what is in a cycle may hold a batch, so not too many


@contextmanager
def searched_rarely() -> Iterator[None]:
    """Around much work: what is there already is left alone, what comes is searched less often."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(YOUNG, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
