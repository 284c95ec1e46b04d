"""DuckDB with limited memory, and how paths, texts and names are written in its SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from blocks.errors import StateError


@contextmanager
def connect(scratch: str, memory: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that spills into the folder `scratch`. `memory`: a size as DuckDB writes it, such as 1GB.

    Raises StateError if the memory is not enough.
    """
    config: dict[str, Any] = {
        "memory_limit": memory,
        "temp_directory": scratch,
        "preserve_insertion_order": False,
        "threads": 2,
    }
    try:
        with duckdb.connect(config=config) as db:
            yield db
    except duckdb.OutOfMemoryException as error:
        raise StateError(
            f"the plan needs more memory than {memory}",
            next_step="give it more, for example --memory-limit 1GB; nothing was sent",
        ) from error


def escape_path(path: Path) -> str:
    """A path for DuckDB, which would read a name such as `part[1].pq` as a pattern."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def quote_text(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def quote_name(name: str) -> str:
    """The name of a column as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
