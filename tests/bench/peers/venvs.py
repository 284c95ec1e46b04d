"""An environment for each peer, made once and kept in a cache folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.bench.surroundings import Unavailable

PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


def python_of(cache: Path, name: str, requirements: tuple[str, ...]) -> Path:
    """The Python of an environment with these requirements. Raises Unavailable where they can't be installed."""
    folder = cache / name
    python, ready = folder / "bin" / "python", folder / "ready"
    wanted = "\n".join(requirements)
    if ready.exists() and ready.read_text() == wanted:
        return python
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    installed = subprocess.run([python, *PIP, *requirements], capture_output=True, text=True, check=False)
    if installed.returncode != 0:
        raise Unavailable(f"{name} can't be installed: {_reason(installed.stderr)}")
    ready.write_text(wanted)
    return python


def _reason(said: str) -> str:
    errors = [line for line in said.splitlines() if line.startswith("ERROR")]
    return errors[-1].removeprefix("ERROR: ") if errors else "pip gave no reason"
