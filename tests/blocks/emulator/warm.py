"""What each emulator would import and compile while it starts, done once in the process that they are forked from."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from blocks.emulator import EmulatorOptions, options
from blocks.emulator.app import create_app
from blocks.emulator.dialects import DIALECTS
from blocks.emulator.dialects.dialect import open_dialect
from blocks.emulator.server import open_service, server_config

LATE = ("anyio._backends._asyncio", "uvicorn.loops.asyncio")  # imported by the first call: a third of what a test takes


def read_ahead() -> None:
    """Options, applications and the server's own modules. Starts no thread."""
    for module in LATE:
        import_module(module)
    options.argument_parser = cache(options.argument_parser)
    options.parse_args([])
    with TemporaryDirectory() as folder:
        for name in DIALECTS:
            with open_service(EmulatorOptions(dialect=name, state=Path(folder) / f"{name}.sqlite")) as service:
                server_config(create_app(service, open_dialect(name, service))).load()
