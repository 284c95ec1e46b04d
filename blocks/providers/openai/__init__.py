"""What the catalog knows of the provider openai."""

from __future__ import annotations

from blocks.batch import Limits
from blocks.entries import SETTLE, Option, ProviderEntry
from blocks.providers.openai.batches import BASE_URL, OpenAI
from blocks.providers.openai.codec import CHAT, RESPONSES, OpenAICodec

LIMITS = Limits(  # §3.6
    max_requests=50_000,
    max_bytes=200_000_000,
    submissions_per_hour=2_000,
)

ENTRY = ProviderEntry(
    name="openai",
    title="OpenAI",
    service="OpenAI's batch API, or that of a service that speaks its dialect",
    key_variable="OPENAI_API_KEY",
    base_url=BASE_URL,
    base_url_help="Where the API is; most addresses end in /v1.",
    limits=LIMITS,
    client=OpenAI,
    codec=OpenAICodec,
    options=(
        Option(
            "endpoint",
            "The endpoint that each request of a batch calls.",
            (CHAT, RESPONSES),
            in_codec=True,
            in_key=True,
        ),
        SETTLE,
    ),
)
