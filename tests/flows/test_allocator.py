"""Which allocator Arrow uses. It decides once in a process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ASK = "import flows, pyarrow; print(pyarrow.default_memory_pool().backend_name)"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Arrow chooses")
@pytest.mark.parametrize(("chosen", "used"), [({}, "jemalloc"), ({"ARROW_DEFAULT_MEMORY_POOL": "system"}, "system")])
def test_arrow_gives_memory_back_unless_the_environment_chose(chosen: dict[str, str], used: str) -> None:
    """The package picks the pool, the variable `ARROW_DEFAULT_MEMORY_POOL` overrules it."""
    others = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    done = subprocess.run([sys.executable, "-c", ASK], env=others | chosen, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == used
