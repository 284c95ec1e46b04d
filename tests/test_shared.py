"""Tests that need what the repository does not hold are left out with a word, and never in CI."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shared import require_shared


@pytest.fixture(autouse=True)
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BATCHWERK_SHARED", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    return tmp_path


def test_what_is_there_is_used(shared: Path) -> None:
    """A file as well as a folder."""
    (shared / "recorded").mkdir()
    (shared / "recorded" / "a.json").touch()
    assert require_shared("recorded") == shared / "recorded"
    assert require_shared("recorded/a.json").is_file()


def test_what_is_missing_skips_a_test() -> None:
    """The reason says what is missing."""
    with pytest.raises(pytest.skip.Exception, match="recorded is missing"):
        require_shared("recorded")


def test_what_is_missing_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite that is green there has run in full."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI leaves nothing out"):
        require_shared("recorded")
