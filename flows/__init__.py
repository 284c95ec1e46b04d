"""The runs: plan, submit, collect, publish, report."""

import os
import sys

if sys.platform == "linux":  # where Arrow always has jemalloc
    # Arrow's default allocator retains much of the memory that threads free (microsoft/mimalloc#1111): 50 % more with
    # wide rows. Arrow reads this once, at import, so it must be set before anything imports Arrow.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
    # It keeps what was freed for a second otherwise, which a hundred megabytes of answers take on top of the next ones.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "dirty_decay_ms:100,muzzy_decay_ms:0")
