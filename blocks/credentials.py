"""Prefect blocks: connections and secrets that a team saves once and names in runs. They run nothing.

Each provider of the catalog has a type of block: its fields are key, address and the provider's options.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, cast

from prefect.blocks.core import Block
from prefect.utilities.asyncutils import run_coro_as_sync
from pydantic import Field, SecretStr, create_model

from blocks.catalog import PROVIDERS
from blocks.entries import ProviderEntry
from blocks.errors import UsageError


class ProviderCredentials(Block):
    """How to reach a provider's batch API. What a kind of block has beside key and address are options."""

    api_key: SecretStr = Field(description="The API key; it is stored encrypted and never shown.")
    base_url: str = Field(description="Where the API is.")

    def options(self) -> dict[str, str]:
        """What `--option` would set."""
        own = type(self).model_fields.keys() - ProviderCredentials.model_fields.keys()
        return {name: str(getattr(self, name)) for name in sorted(own)}


@cache
def block_type(name: str) -> type[ProviderCredentials]:
    """The type of a provider's blocks; its slug is `<name>-credentials`."""
    entry = PROVIDERS[name]
    fields: dict[str, Any] = dict(_fields(entry))
    # Prefect registers a type by its slug while the class is made: the names have to be there by then.
    named = type(
        f"{entry.title}Names",
        (),
        {
            "_block_type_name": f"{entry.title} Batch Credentials",
            "_block_type_slug": slug_of(name),
            "_description": f"API key and base URL of {entry.service}, for Batchwerk's enrich flow.",
        },
    )
    return create_model(
        f"{entry.title}Credentials",
        __base__=(named, ProviderCredentials),
        __module__=__name__,
        __doc__=f"How to reach {entry.service}.",
        **fields,
    )


def slug_of(name: str) -> str:
    """What a saved block of a provider is named by, before its own name."""
    return f"{name}-credentials"


def _fields(entry: ProviderEntry) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Types and defaults as pydantic takes them; numbers are given with `--option` only."""
    yield "base_url", (str, Field(default=entry.base_url, description=entry.base_url_help))
    for option in entry.options:
        if option.choices:
            yield option.name, (Literal[option.choices], Field(default=option.usual, description=option.help))


def block_types() -> list[type[ProviderCredentials]]:
    """Those of all providers, in the order of the catalog."""
    return [block_type(name) for name in PROVIDERS]


HolySheepCredentials = block_type("holysheep")
OpenAICredentials = block_type("openai")
AnthropicCredentials = block_type("anthropic")
MistralCredentials = block_type("mistral")
GeminiCredentials = block_type("gemini")


def load_block(slug: str) -> ProviderCredentials:
    """The saved block `type/name`. Raises UsageError where there is none."""
    kind, _, name = slug.partition("/")
    provider = next((provider for provider in PROVIDERS if kind == slug_of(provider)), None)
    if provider is None:
        known = ", ".join(f"{slug_of(provider)}/NAME" for provider in PROVIDERS)
        raise UsageError(f"there is no block type {kind!r} for a provider", next_step=f"known are {known}")
    try:
        loading: Any = block_type(provider).aload(name)
        return cast("ProviderCredentials", run_coro_as_sync(loading))
    except ValueError as error:
        raise UsageError(
            f"there is no saved block {slug}",
            next_step="`batchwerk setup` registers the block types; make one in the UI or with block.save",
        ) from error
