"""What was freed, given back to the system."""

from __future__ import annotations

import ctypes
import sys


def give_back_memory() -> None:
    """Have the C library return what is free.

    It keeps what a batch of long answers took, hundreds of megabytes: what Arrow, which has an allocator of its own,
    takes next would come on top.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # glibc's alone
    if trim is not None:
        trim(0)
