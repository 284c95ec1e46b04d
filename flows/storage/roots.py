"""Which paths a run may use: names that are text, in the folders that the environment of the process allows.

The second is for teams whose runs come from a form.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from blocks.errors import UsageError
from blocks.printable import printable

ROOTS = "BATCHWERK_ROOTS"  # of the environment: folders, separated like those of PATH; without it all are allowed


def check_name(path: Path) -> None:
    """Raises UsageError for a name with bytes that are no UTF-8: neither Arrow nor our own JSON files could hold it."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the name {printable(str(path))} has bytes that are no text in UTF-8", next_step="rename it"
        ) from error


def check_inside(paths: Iterable[Path]) -> None:
    """Raises UsageError for a name that is no text, and for a path that leads out of the allowed folders.

    Symbolic links are followed.
    """
    roots = [Path(root).resolve() for root in os.environ.get(ROOTS, "").split(os.pathsep) if root]
    for path in paths:
        check_name(path)
        if roots and not any(path.resolve().is_relative_to(root) for root in roots):
            raise UsageError(
                f"{path} lies outside of the folders that runs may use here",
                next_step=f"choose another place, or add its folder to {ROOTS} where the run works",
            )
