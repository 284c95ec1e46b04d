"""The emulator stands alone: it shares no code with what is tested against it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import blocks.emulator
from blocks.emulator.dialects import MODULES

FOLDER = Path(blocks.emulator.__file__).parent
FOREIGN = {"starlette", "uvicorn", "orjson"}
BASES = {"batch", "options", "faults", "answers", "reading", "lexicon", "schemas", "subject", "patterns", "store"}
BASES |= {"elements", "files", "lines", "multipart", "openapi"}


def imports_of(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.name} imports relatively"
            yield node.module or ""


@pytest.mark.parametrize("module", sorted(FOLDER.glob("*.py")), ids=lambda module: module.stem)
def test_module_imports_only_the_emulator_and_three_packages(module: Path) -> None:
    for name in imports_of(module):
        package = name.partition(".")[0]
        assert name.startswith("blocks.emulator") or package in FOREIGN or package in sys.stdlib_module_names, name


@pytest.mark.parametrize("name", sorted(BASES | {"processing", "service", "calls", "resumable", "transfers"}))
def test_what_dialects_share_knows_no_dialect(name: str) -> None:
    module = FOLDER / f"{name}.py"
    text = module.read_text().replace('switch("holysheep"', "").lower()
    for dialect, its_module in MODULES.items():
        assert its_module not in imports_of(module)
        assert dialect not in text


@pytest.mark.parametrize("name", sorted(BASES))
def test_what_is_below_http_imports_no_http(name: str) -> None:
    assert not {"starlette", "uvicorn"} & {imported.partition(".")[0] for imported in imports_of(FOLDER / f"{name}.py")}
