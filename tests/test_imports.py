"""The arrows between folders, read from the source: who may import what, and what a start costs."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path.relative_to(ROOT) for folder in ("flows", "blocks") for path in (ROOT / folder).rglob("*.py"))
DOMAIN = [path for path in MODULES if path.is_relative_to("flows/domain")]
EMULATOR = [path for path in MODULES if path.is_relative_to("blocks/emulator")]

HTTPX = {"blocks/transport.py"}
PREFECT = {
    "blocks/credentials.py",
    "flows/enrich.py",
    "flows/orchestration/tasks.py",
    "flows/orchestration/limits.py",
    "flows/orchestration/artifacts.py",
}
NOT_IN_DOMAIN = {
    "prefect",
    "httpx",
    "pyarrow",
    "duckdb",
    "pandas",
    "numpy",
    "time",
    "os",
    "pathlib",
    "random",
    "secrets",
}
CLOCKS = {"now", "utcnow", "today"}


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, wherever the import stands."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            module = node.module or ""
            yield module
            yield from (f"{module}.{name.name}" for name in node.names)


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", [path for path in MODULES if path.parts[0] == "blocks"], ids=str)
def test_blocks_never_import_flows(path: Path) -> None:
    """What we connect to knows nothing of what we do with it."""
    assert "flows" not in roots(path)


@pytest.mark.parametrize("path", DOMAIN, ids=str)
def test_domain_is_pure(path: Path) -> None:
    """No service, no table library, no clock, no disk, no chance in the domain."""
    assert roots(path).isdisjoint(NOT_IN_DOMAIN)
    calls = (node for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.Call))
    called = {call.func.attr for call in calls if isinstance(call.func, ast.Attribute)}
    assert called.isdisjoint(CLOCKS)
    builtins = {
        node.func.id
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert "open" not in builtins


@pytest.mark.parametrize("path", DOMAIN, ids=str)
def test_domain_imports_only_itself_and_the_neutral_blocks(path: Path) -> None:
    """The domain knows the ports and the errors, and nothing else of ours."""
    ours = {name for name in imported(path) if name.partition(".")[0] in {"flows", "blocks"}}
    assert all(name.startswith(("flows.domain", "blocks.batch", "blocks.errors")) for name in ours)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_http_is_known_in_one_place(path: Path) -> None:
    """Only the transport imports httpx."""
    assert "httpx" not in roots(path) or str(path) in HTTPX


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_prefect_is_known_in_few_places(path: Path) -> None:
    """Prefect is imported where its faces are and nowhere else, not even inside a function."""
    assert "prefect" not in roots(path) or str(path) in PREFECT


@pytest.mark.parametrize("path", EMULATOR, ids=str)
def test_the_emulator_shares_no_code_with_the_clients(path: Path) -> None:
    """An emulator that shared the codec would share its bugs."""
    ours = {name for name in imported(path) if name.partition(".")[0] in {"flows", "blocks"}}
    assert all(name.startswith("blocks.emulator") for name in ours)


@pytest.mark.parametrize("path", [p for p in MODULES if not p.is_relative_to("blocks/emulator")], ids=str)
def test_the_emulator_is_reached_by_its_front_door(path: Path) -> None:
    """Others import what `blocks.emulator` offers; only its own command knows its inside."""
    inside = {name for name in imported(path) if name.startswith("blocks.emulator.")}
    offered = {f"blocks.emulator.{name}" for name in ("EmulatorOptions", "running_emulator", "RunningEmulator")}
    assert inside <= offered or str(path) == "flows/cli.py"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_module_is_named_like_one_of_the_standard_library(path: Path) -> None:
    """A `json.py` of ours would be imported instead of Python's when a file of the folder is run."""
    name = path.parent.name if path.name == "__init__.py" else path.stem
    assert name == "__main__" or name not in sys.stdlib_module_names


def loaded_after(statement: str) -> set[str]:
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("module", ["flows.preflight", "flows.cli", "flows.report.preview"])
def test_a_mistake_is_answered_before_prefect_is_imported(module: str) -> None:
    """Prefect and pandas take seconds to import: checking a call needs neither."""
    loaded = loaded_after(f"import {module}")
    assert module in loaded
    assert {name.partition(".")[0] for name in loaded}.isdisjoint({"prefect", "pandas"})


def test_importing_the_domain_brings_in_no_table_library() -> None:
    """Also not by way of another module."""
    modules = [".".join(path.with_suffix("").parts) for path in DOMAIN if path.name != "__init__.py"]
    loaded = loaded_after(f"import {', '.join(modules)}")
    assert {name.partition(".")[0] for name in loaded}.isdisjoint({"prefect", "httpx", "pyarrow", "duckdb", "pandas"})
