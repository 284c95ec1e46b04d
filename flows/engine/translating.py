"""Translates errors of the system and of libraries into messages that a user can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from blocks.errors import StateError, system_error
from flows.storage.state import StateDirectory


@contextmanager
def readable_errors(state: StateDirectory) -> Iterator[None]:
    """Around a whole run. Raises BatchwerkError for errors of the disk, DuckDB and Arrow."""
    try:
        yield
    except OSError as error:
        raise system_error(error) from error
    except duckdb.Error as error:
        raise StateError(f"the plan could not be made: {str(error).splitlines()[0]}") from error
    except pa.ArrowInvalid as error:
        raise StateError(
            f"a file in {state.path} is damaged: {str(error).splitlines()[0]}",
            next_step="restore the state directory from a backup; nothing was sent",
        ) from error
