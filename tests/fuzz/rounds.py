"""How long a property is tried: briefly and always alike, or for as long as the environment says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import SearchStrategy

SECONDS = "BATCHWERK_FUZZ_SECONDS"  # for each border; without it, one round
HEALTH = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


def check_rounds(check: Callable[[Any], None], cases: SearchStrategy[Any], examples: int) -> None:
    """Try so many cases; with a time to fill, again with other seeds until it is over."""
    end = time.monotonic() + float(os.environ.get(SECONDS, "0"))
    number = 0
    while number == 0 or time.monotonic() < end:

        @seed(number)
        @settings(max_examples=examples, deadline=None, derandomize=False, database=None, suppress_health_check=HEALTH)
        @given(cases)
        def attempt(case: Any) -> None:
            check(case)

        attempt()
        number += 1
