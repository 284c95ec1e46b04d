"""The command with one of its steps replaced, for a forked process."""

from __future__ import annotations

import sys
from typing import Any

from tests.flows.command import main


def counting_checks(*arguments: str) -> None:
    """Says at the end how often the input was checked."""
    from flows import enrich, preflight  # noqa: PLC0415  # in the forked process only

    calls, check = [], preflight.check

    def counting(settings: Any, **more: Any) -> Any:
        calls.append(settings)
        return check(settings, **more)

    preflight.check = enrich.check = counting  # type: ignore[attr-defined]  # imported there
    try:
        main(*arguments)
    finally:
        sys.stderr.write(f"\nchecked {len(calls)} times")


def with_a_bug(*arguments: str) -> None:
    """The run fails as no code of ours means to."""
    from flows import enrich  # noqa: PLC0415  # in the forked process only

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    enrich.run_pipeline = fail  # type: ignore[assignment, attr-defined]  # it returns nothing
    main(*arguments)
