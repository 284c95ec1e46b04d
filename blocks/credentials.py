"""Prefect blocks: connections and secrets that a team saves once and names in runs. They run nothing."""

from __future__ import annotations

from typing import ClassVar, Literal, cast

from prefect.blocks.core import Block
from prefect.utilities.asyncutils import run_coro_as_sync
from pydantic import Field, SecretStr

from blocks.errors import UsageError
from blocks.providers import holysheep


class HolySheepCredentials(Block):
    """How to reach HolySheep AI's batch API."""

    _block_type_name: ClassVar[str] = "HolySheep Credentials"
    _block_type_slug: ClassVar[str] = "holysheep-credentials"
    _description: ClassVar[str] = "API key and base URL of HolySheep AI, for Batchwerk's enrich flow."

    api_key: SecretStr = Field(description="The API key; it is stored encrypted and never shown.")
    base_url: str = Field(default=holysheep.BASE_URL, description="Where the API is.")
    idempotency: Literal["unverified", "verified"] = Field(
        default="unverified",
        description="`verified` once the server is known to answer a repeated Idempotency-Key with the first batch.",
    )


BLOCKS = {"holysheep": HolySheepCredentials}


def load_block(slug: str) -> HolySheepCredentials:
    """The saved block `type/name`. Raises UsageError where there is none."""
    kind, _, name = slug.partition("/")
    for block in BLOCKS.values():
        if kind == block._block_type_slug:
            try:
                return cast("HolySheepCredentials", run_coro_as_sync(block.aload(name)))
            except ValueError as error:
                raise UsageError(
                    f"there is no saved block {slug}",
                    next_step="`batchwerk setup` registers the block types; make one in the UI or with block.save",
                ) from error
    known = ", ".join(f"{block._block_type_slug}/NAME" for block in BLOCKS.values())
    raise UsageError(f"there is no block type {kind!r} for a provider", next_step=f"known are {known}")
