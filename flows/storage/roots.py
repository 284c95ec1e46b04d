"""Where a run may read and write, if the environment of the process says so: for teams whose runs come from a form."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from blocks.errors import UsageError

ROOTS = "BATCHWERK_ROOTS"  # of the environment: folders, separated like those of PATH; without it all are allowed


def check_inside(paths: Iterable[Path]) -> None:
    """Raises UsageError for a path that leads out of the allowed folders, be it by way of a symbolic link."""
    roots = [Path(root).resolve() for root in os.environ.get(ROOTS, "").split(os.pathsep) if root]
    if not roots:
        return
    for path in paths:
        if not any(path.resolve().is_relative_to(root) for root in roots):
            raise UsageError(
                f"{path} lies outside of the folders that runs may use here",
                next_step=f"choose another place, or add its folder to {ROOTS} where the run works",
            )
