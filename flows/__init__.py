"""What Batchwerk does with its connections: plan, submit, collect, publish, report."""

import os
import sys

if sys.platform == "linux":  # where Arrow always has jemalloc
    # Arrow's default allocator keeps much of what threads free (microsoft/mimalloc#1111): half as much again with wide
    # rows. Arrow reads this once, when it is loaded, so it has to be set before anything imports it.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
