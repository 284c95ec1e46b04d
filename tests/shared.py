"""What some tests are judged by and the repository does not hold: recorded answers, published descriptions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def require_shared(relative: str) -> Path:
    """A file or folder in `shared`, beside the checkout or where BATCHWERK_SHARED says.

    Without it the test is skipped, or the whole module if it asks while it is imported. In CI it fails: what is
    never run there proves nothing.
    """
    path = Path(os.environ.get("BATCHWERK_SHARED", ROOT.parent / "shared")) / relative
    if path.exists():
        return path
    if os.environ.get("CI") == "true":
        pytest.fail(f"{path} is missing, and CI leaves nothing out", pytrace=False)
    pytest.skip(f"{path} is missing", allow_module_level=True)
