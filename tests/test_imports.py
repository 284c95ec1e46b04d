"""The house, read from the source: who may import what, how large a file may be, and what a start costs."""

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path.relative_to(ROOT) for folder in ("flows", "blocks") for path in (ROOT / folder).rglob("*.py"))
DOMAIN = [path for path in MODULES if path.is_relative_to("flows/domain")]
EMULATOR = [path for path in MODULES if path.is_relative_to("blocks/emulator")]

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_CLASS = 200
MOST_MODULES_AT_THE_TOP = 8  # of `flows`: what a newcomer sees first

# For each folder (or module) of `flows`, what else of the project it may import. A prefix stands for all below it.
SPEC_AND_PREFLIGHT = ("flows.spec", "flows.preflight")
MAY_IMPORT = {
    "flows.domain": ("blocks.batch", "blocks.errors", "blocks.printable"),
    "flows.storage": ("flows.domain", "blocks"),
    "flows.settings": ("flows.storage", "flows.domain", "blocks"),
    "flows.spec": ("flows.settings", "flows.preflight", "flows.storage", "flows.domain", "blocks"),
    "flows.preflight": ("flows.settings", "flows.spec", "flows.storage", "flows.domain", "blocks"),
    "flows.engine": ("flows.storage", "flows.domain", "flows.settings", *SPEC_AND_PREFLIGHT, "blocks"),
    "flows.report": ("flows.engine", "flows.storage", "flows.domain", *SPEC_AND_PREFLIGHT, "blocks"),
    "flows.batches": (
        "flows.report",
        "flows.engine",
        "flows.storage",
        "flows.domain",
        *SPEC_AND_PREFLIGHT,
        "blocks",
    ),
    "flows.accounts": ("flows.storage", "flows.domain", "flows.spec", "blocks"),
    "flows.checks": ("flows.orchestration", "flows.storage", "flows.spec", "blocks"),
    "flows.orchestration": ("flows.batches", "flows.report", "flows.preflight", "flows.domain", "blocks"),
}
FACES = {
    "flows",
    "flows.cli",
    "flows.enrich",
    "flows.pipeline",
    "flows.harvest",
    "flows.cancel",
}  # may import everything

HTTPX = {"blocks/transport.py", "flows/orchestration/server.py"}  # Prefect's client raises httpx's errors
PREFECT = ("flows/orchestration", "flows/enrich.py", "blocks/credentials.py")
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


def module_name(path: Path) -> str:
    """Under which name a file is imported."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(path): path for path in MODULES}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


@cache
def imported(path: Path) -> frozenset[str]:
    """Every module that a file names in an import, wherever the import stands."""
    return frozenset(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            module = node.module or ""
            yield module
            yield from (f"{module}.{name.name}" for name in node.names)


def files_imported(path: Path) -> set[str]:
    """The project's own files that a file imports; a package is the file only for what no module of it is called."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            inside = [f"{node.module}.{name.name}" for name in node.names]
            found.update(name if name in NAMES else str(node.module) for name in inside)
    return found & NAMES.keys()


def below(name: str, *places: str) -> bool:
    """Whether a module is one of these or lies in one of these folders."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def called(path: Path, kind: type[ast.Attribute | ast.Name]) -> set[str]:
    """The names of what a file calls: of methods, or of plain functions."""
    calls = (node.func for node in ast.walk(parsed(path)) if isinstance(node, ast.Call))
    return {func.attr if isinstance(func, ast.Attribute) else func.id for func in calls if isinstance(func, kind)}


def test_blocks_never_import_flows() -> None:
    """What we connect to knows nothing of what we do with it."""
    assert [path for path in MODULES if path.parts[0] == "blocks" and "flows" in roots(path)] == []


def test_domain_is_pure() -> None:
    """No service, no table library, no clock, no disk, no chance in the domain."""
    assert [path for path in DOMAIN if not roots(path).isdisjoint(NOT_IN_DOMAIN)] == []
    assert [path for path in DOMAIN if not called(path, ast.Attribute).isdisjoint(CLOCKS)] == []
    assert [path for path in DOMAIN if "open" in called(path, ast.Name)] == []


def test_folders_import_only_what_lies_below_them() -> None:
    """The arrows between the folders of `flows` point one way, from the faces down to the domain."""
    forbidden = []
    for path in MODULES:
        name = module_name(path)
        if path.parts[0] == "flows" and name not in FACES:
            (place,) = (place for place in MAY_IMPORT if below(name, place))
            forbidden += [
                (name, other) for other in files_imported(path) if not below(other, place, *MAY_IMPORT[place])
            ]
    assert forbidden == []


def test_no_files_import_each_other_in_a_circle() -> None:
    """Not even for the types alone, or inside a function: each file can be read after those that it imports."""
    graph = {name: files_imported(path) for name, path in NAMES.items()}
    assert "flows.preflight" in graph["flows.pipeline"]
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"imports form a circle: {' <- '.join(error.args[1])}")


def test_the_top_of_flows_stays_small() -> None:
    """What lies there is the story and its faces; everything else has a folder."""
    top = [path.name for path in MODULES if path.parent == Path("flows") and path.name != "__init__.py"]
    assert len(top) <= MOST_MODULES_AT_THE_TOP, sorted(top)


def test_no_file_and_no_class_is_too_long() -> None:
    """One reason to change for each file; a class that is longer does two things."""
    lines = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {path: count for path, count in lines.items() if count > MOST_LINES_OF_A_FILE} == {}
    classes = [node for path in MODULES for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in classes}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES_OF_A_CLASS} == {}


def test_http_is_known_in_one_place() -> None:
    """Only the transport imports httpx, and what calls Prefect's server."""
    assert {str(path) for path in MODULES if "httpx" in roots(path)} == HTTPX


def test_prefect_is_known_in_few_places() -> None:
    """Prefect is imported where its faces are and nowhere else, not even inside a function."""
    knowing = [path for path in MODULES if "prefect" in roots(path)]
    assert [path for path in knowing if not any(path.is_relative_to(place) for place in PREFECT)] == []


def test_the_emulator_shares_no_code_with_the_clients() -> None:
    """An emulator that shared the codec would share its bugs."""
    ours = [(path, name) for path in EMULATOR for name in imported(path) if below(name, "flows", "blocks")]
    assert [(path, name) for path, name in ours if not below(name, "blocks.emulator")] == []


def test_the_emulator_is_reached_by_its_front_door() -> None:
    """Others import what `blocks.emulator` offers; only its own command knows its inside."""
    offered = {f"blocks.emulator.{name}" for name in ("EmulatorOptions", "running_emulator", "RunningEmulator")}
    others = [path for path in MODULES if path not in EMULATOR and str(path) != "flows/cli.py"]
    inside = [(path, name) for path in others for name in imported(path) if name.startswith("blocks.emulator.")]
    assert [(path, name) for path, name in inside if name not in offered] == []


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    """A `json.py` of ours would be imported instead of Python's when a file of the folder is run."""
    named = {path: path.parent.name if path.name == "__init__.py" else path.stem for path in MODULES}
    assert [p for p, name in named.items() if name != "__main__" and name in sys.stdlib_module_names] == []


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
