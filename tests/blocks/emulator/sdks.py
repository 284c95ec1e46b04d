"""Providers' own SDKs: they take seconds to import, which only the process spends that runs their tests."""

from __future__ import annotations

from typing import Any

import pytest


class Sdk:
    """A module of an SDK, imported when something of it is asked for; a test that does is skipped without it."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = pytest.importorskip(self._module, reason=f"{self._module} is not installed")
        return getattr(found, name)
