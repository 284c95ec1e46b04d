"""What Batchwerk does with its connections: plan, submit, collect, publish, report."""

import os
import sys

if sys.platform == "linux":  # where Arrow always has it
    # Arrow's own choice keeps much of what threads free (microsoft/mimalloc#1111): with wide rows half as much again.
    # It is read once, when Arrow is loaded.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
