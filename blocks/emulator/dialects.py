"""Which dialects there are. Each is one module with a class `Dialect`, imported only when it is spoken."""

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.routing import BaseRoute

    from blocks.emulator.calls import CallError
    from blocks.emulator.service import Service

MODULES = {
    "anthropic": "blocks.emulator.anthropic",
    "gemini": "blocks.emulator.gemini",
    "holysheep": "blocks.emulator.holysheep",
    "mistral": "blocks.emulator.mistral",
    "openai": "blocks.emulator.openai",
}


class Dialect(Protocol):
    """Routes and JSON shapes of one provider."""

    base_path: str

    def routes(self) -> "list[BaseRoute]": ...

    def headers(self) -> "Mapping[str, str]":
        """What every answer carries."""

    def error_body(self, error: "CallError") -> object:
        """The JSON that this provider sends for an error, also for those that befall any call."""


def speak(name: str, service: "Service") -> Dialect:
    return cast("Dialect", import_module(MODULES[name]).Dialect(service))
