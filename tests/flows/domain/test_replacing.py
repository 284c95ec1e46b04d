"""What of a run would replace answers that were paid for: the end of a sentence for each difference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flows.domain.replacing import Asked, what_replaces

BEFORE = Asked("digest", "job", "model", "https://here", emulated=False, skip_empty=("text",), where=None, limit=None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"emulated": True}, "is a trial with the emulator"),
        ({"endpoint": "https://there"}, "asks another service, https://there"),
        ({"model": "other"}, "asks another model, other"),
        ({"digest": "other"}, "asks another question: the job file or a provider option has changed"),
        ({"skip_empty": ("text", "title", "note")}, "skips rows in which title is empty"),
        ({"skip_empty": ()}, ""),
        ({"where": "stars > 3"}, "leaves out the rows that --where 'stars > 3' does not select"),
        ({"limit": 9}, "is limited to 9 rows"),
        ({"limit": 10}, ""),
    ],
)
def test_what_replaces_is_named(changes: dict[str, Any], said: str) -> None:
    """The first of several; what adds rows replaces nothing."""
    assert what_replaces(BEFORE, replace(BEFORE, **changes), rows=10) == said
