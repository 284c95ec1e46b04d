"""The arrows between the emulator's files, read from the source: it stands alone, and no import runs in a circle."""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import blocks.emulator
from blocks.emulator.dialects import DIALECTS
from blocks.emulator.dialects.dialect import open_dialect
from blocks.emulator.options import EmulatorOptions
from blocks.emulator.service.service import Service
from blocks.emulator.service.store import Store

FOLDER = Path(blocks.emulator.__file__).parent
ROOT = FOLDER.parents[1]
FOREIGN = {"starlette", "uvicorn", "orjson", "python_multipart"}
HTTP = {"starlette", "uvicorn", "python_multipart"}
FILES = sorted(path.relative_to(FOLDER) for path in FOLDER.rglob("*.py"))


def names_in(path: Path) -> Iterator[str]:
    """Every module or member that a file imports, wherever the import stands: type-checking imports count."""
    for node in ast.walk(ast.parse((FOLDER / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported(path: Path) -> set[Path]:
    """The emulator's own files that a file imports."""
    found = set()
    for name in names_in(path):
        place = ROOT / name.replace(".", "/")
        for candidate in (place.with_suffix(".py"), place / "__init__.py", place.parent.with_suffix(".py")):
            if candidate.is_file() and candidate.is_relative_to(FOLDER):
                found.add(candidate.relative_to(FOLDER))
                break
        else:
            package = place.parent / "__init__.py"
            if package.is_file() and package.is_relative_to(FOLDER):
                found.add(package.relative_to(FOLDER))
    return found


def in_room(room: str) -> list[Path]:
    return [path for path in FILES if path.parts[0] == room]


def test_no_import_runs_in_a_circle() -> None:
    """Every file can be read before the files that import it."""
    graph = {path: imported(path) for path in FILES}
    assert Path("service/batch.py") in graph[Path("service/store.py")]
    assert Path("dialects/__init__.py") in graph[Path("options.py")]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(map(str, error.args[1])))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_only_the_emulator_and_few_packages(path: Path) -> None:
    """It shares no code with what is tested against it."""
    for name in names_in(path):
        package = name.partition(".")[0]
        assert name.startswith("blocks.emulator") or package in FOREIGN or package in sys.stdlib_module_names, name


@pytest.mark.parametrize(
    ("room", "below"),
    [("answers", set()), ("service", {"answers"}), ("wire", {"service"}), ("dialects", {"wire", "service"})],
)
def test_a_room_imports_only_the_rooms_below_it(room: str, below: set[str]) -> None:
    """Beside them, the options and the list of dialects are known everywhere."""
    for path in in_room(room):
        others = imported(path) - {Path("options.py"), Path("dialects/__init__.py")}
        assert {other.parts[0] for other in others} <= {room, *below}, path


@pytest.mark.parametrize("path", in_room("dialects"), ids=str)
def test_dialects_do_not_import_each_other(path: Path) -> None:
    """Changing one provider's dialect can not break another's."""
    own = path.parts[1]
    others = {other.parts[1] for other in imported(path) if other.parts[0] == "dialects" and len(other.parts) == 3}
    assert others <= {own}


@pytest.mark.parametrize("path", [*in_room("answers"), *in_room("service"), *in_room("wire")], ids=str)
def test_what_dialects_share_knows_no_dialect(path: Path) -> None:
    """Not even by name."""
    text = (FOLDER / path).read_text().lower()
    assert not [dialect for dialect in DIALECTS if dialect in text]


@pytest.mark.parametrize("path", [*in_room("answers"), *in_room("service"), Path("options.py")], ids=str)
def test_what_is_below_http_imports_no_http(path: Path) -> None:
    """Batches, faults and answers can be tested without a server."""
    assert not HTTP & {name.partition(".")[0] for name in names_in(path)}


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_in_the_list_can_be_opened(name: str, tmp_path: Path) -> None:
    """The list of names is kept by hand."""
    store = Store(tmp_path / "state.sqlite")
    assert open_dialect(name, Service(EmulatorOptions(dialect=name), store)).routes()
    store.close()
