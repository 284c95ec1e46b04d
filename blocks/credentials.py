"""Prefect blocks: connections and secrets that a team saves once and names in runs. They run nothing."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

from prefect.blocks.core import Block
from prefect.utilities.asyncutils import run_coro_as_sync
from pydantic import Field, SecretStr

from blocks.errors import UsageError
from blocks.providers import anthropic, gemini, holysheep, mistral, openai


class ProviderCredentials(Block):
    """How to reach a provider's batch API. What a kind of block has beside key and address are options."""

    api_key: SecretStr = Field(description="The API key; it is stored encrypted and never shown.")
    base_url: str = Field(description="Where the API is.")

    def options(self) -> dict[str, str]:
        """What `--option` would set."""
        own = type(self).model_fields.keys() - ProviderCredentials.model_fields.keys()
        return {name: str(getattr(self, name)) for name in sorted(own)}


class HolySheepCredentials(ProviderCredentials):
    """How to reach HolySheep AI's batch API."""

    _block_type_name: ClassVar[str] = "HolySheep Credentials"
    _block_type_slug: ClassVar[str] = "holysheep-credentials"
    _description: ClassVar[str] = "API key and base URL of HolySheep AI, for Batchwerk's enrich flow."

    base_url: str = Field(default=holysheep.BASE_URL, description="Where the API is.")
    idempotency: Literal["unverified", "verified"] = Field(
        default="unverified",
        description="`verified` once the server is known to answer a repeated Idempotency-Key with the first batch.",
    )


class OpenAICredentials(ProviderCredentials):
    """How to reach OpenAI's batch API, or that of a service which speaks its dialect."""

    _block_type_name: ClassVar[str] = "OpenAI Batch Credentials"
    _block_type_slug: ClassVar[str] = "openai-credentials"
    _description: ClassVar[str] = "API key and base URL of OpenAI or a compatible service, for Batchwerk's enrich flow."

    base_url: str = Field(default=openai.BASE_URL, description="Where the API is; most addresses end in /v1.")
    endpoint: Literal["/v1/chat/completions", "/v1/responses"] = Field(
        default="/v1/chat/completions", description="What each request of a batch calls."
    )


class AnthropicCredentials(ProviderCredentials):
    """How to reach Anthropic's Message Batches."""

    _block_type_name: ClassVar[str] = "Anthropic Batch Credentials"
    _block_type_slug: ClassVar[str] = "anthropic-credentials"
    _description: ClassVar[str] = "API key and base URL of Anthropic, for Batchwerk's enrich flow."

    base_url: str = Field(default=anthropic.BASE_URL, description="Where the API is, without /v1.")
    version: Literal["2026-10-21", "2023-06-01"] = Field(default="2026-10-21", description="The API version.")
    auth: Literal["x-api-key", "bearer"] = Field(default="x-api-key", description="In which header the key goes.")
    cache: Literal["5m", "off", "1h"] = Field(
        default="5m", description="How long a system text that is long enough stays in the prompt cache."
    )
    effort: Literal["default", "low", "medium", "high", "xhigh", "max"] = Field(
        default="default", description="How much the model thinks before it answers."
    )


class MistralCredentials(ProviderCredentials):
    """How to reach Mistral's batch jobs."""

    _block_type_name: ClassVar[str] = "Mistral Batch Credentials"
    _block_type_slug: ClassVar[str] = "mistral-credentials"
    _description: ClassVar[str] = "API key and base URL of Mistral, for Batchwerk's enrich flow."

    base_url: str = Field(default=mistral.BASE_URL, description="Where the API is, without /v1.")
    inline: Literal["auto", "never"] = Field(default="auto", description="Whether small batches go without a file.")


class GeminiCredentials(ProviderCredentials):
    """How to reach the Gemini Developer API's batches."""

    _block_type_name: ClassVar[str] = "Gemini Batch Credentials"
    _block_type_slug: ClassVar[str] = "gemini-credentials"
    _description: ClassVar[str] = "API key and base URL of the Gemini Developer API, for Batchwerk's enrich flow."

    base_url: str = Field(default=gemini.BASE_URL, description="Where the API is, without its version.")
    api_version: Literal["v1beta", "v1"] = Field(default="v1beta", description="The API version.")


BLOCKS: dict[str, type[ProviderCredentials]] = {
    "holysheep": HolySheepCredentials,
    "openai": OpenAICredentials,
    "anthropic": AnthropicCredentials,
    "mistral": MistralCredentials,
    "gemini": GeminiCredentials,
}


def load_block(slug: str) -> ProviderCredentials:
    """The saved block `type/name`. Raises UsageError where there is none."""
    kind, _, name = slug.partition("/")
    for block in BLOCKS.values():
        if kind == block._block_type_slug:
            try:
                loading: Any = block.aload(name)
                return cast("ProviderCredentials", run_coro_as_sync(loading))
            except ValueError as error:
                raise UsageError(
                    f"there is no saved block {slug}",
                    next_step="`batchwerk setup` registers the block types; make one in the UI or with block.save",
                ) from error
    known = ", ".join(f"{block._block_type_slug}/NAME" for block in BLOCKS.values())
    raise UsageError(f"there is no block type {kind!r} for a provider", next_step=f"known are {known}")
