"""What the catalog knows of the provider mistral."""

from __future__ import annotations

from blocks.batch import Limits
from blocks.entries import SETTLE, Option, ProviderEntry
from blocks.providers.mistral.batches import AUTO, BASE_URL, NEVER, Mistral
from blocks.providers.mistral.codec import MistralCodec
from blocks.vocabularies import Framing

_TEKKEN = Framing("mistral_v3", 2, 1)  # §9
FRAMINGS = dict.fromkeys(
    ("ministral", "mistral-small", "mistral-medium", "mistral-large-2512", "mistral-large-latest", "open-mistral-nemo"),
    _TEKKEN,
)

LIMITS = Limits(
    # [ours]; a file may have 1,000,000, but answers come only when the whole job is done, and that many would be all
    # that a workspace may have pending.
    max_requests=100_000,
    max_bytes=500_000_000,  # [?]; the API's reference says 512 MB of any file
    max_queued_requests=1_000_000,
)

ENTRY = ProviderEntry(
    name="mistral",
    title="Mistral",
    service="Mistral's batch jobs",
    key_variable="MISTRAL_API_KEY",
    base_url=BASE_URL,
    base_url_help="Where the API is, without /v1.",
    added=("/v1",),
    limits=LIMITS,
    framings=FRAMINGS,
    client=Mistral,
    codec=MistralCodec,
    options=(
        Option("inline", "Whether small batches are sent without a file.", (AUTO, NEVER), in_key=False),
        SETTLE,
    ),
)
