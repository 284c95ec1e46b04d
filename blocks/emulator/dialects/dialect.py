"""The port that every dialect implements."""

from collections.abc import Mapping
from importlib import import_module
from typing import Protocol, cast

from starlette.routing import BaseRoute

from blocks.emulator.service.service import Service
from blocks.emulator.wire.calls import CallError


class Dialect(Protocol):
    """Routes and JSON shapes of one provider. `base_path` is the prefix of the clients' paths."""

    base_path: str

    def routes(self) -> list[BaseRoute]:
        """The endpoints, with their full paths."""

    def headers(self) -> Mapping[str, str]:
        """Headers of every answer; called once per call, before it is handled."""

    def error_body(self, error: CallError) -> object:
        """The JSON that this provider sends for an error, including errors that any call can meet."""


def open_dialect(name: str, service: Service) -> Dialect:
    """The dialect of that name on a service; its module is imported only now."""
    module = import_module(f"blocks.emulator.dialects.{name}.dialect")
    return cast("Dialect", module.Dialect(service))
