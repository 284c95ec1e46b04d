"""What the catalog knows of the provider openai."""

from __future__ import annotations

from blocks.batch import Limits
from blocks.entries import SETTLE, Option, ProviderEntry
from blocks.providers.openai.batches import BASE_URL, OpenAI
from blocks.providers.openai.codec import (
    CHAT,
    IN_PROMPT,
    JSON_OBJECT,
    JSON_SCHEMA,
    MAX_COMPLETION_TOKENS,
    MAX_TOKENS,
    OFF,
    RESPONSES,
    OpenAICodec,
)
from blocks.vocabularies import Framing

_O200K, _CL100K = Framing("o200k_base", 4, 3), Framing("cl100k_base", 4, 3)  # §9
FRAMINGS = {
    **dict.fromkeys(("gpt-4o", "chatgpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "o1", "o3", "o4-mini"), _O200K),
    **dict.fromkeys(("gpt-4", "gpt-3.5-turbo"), _CL100K),
}

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
    framings=FRAMINGS,
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
        Option(
            "structured",
            "How a compatible service is told the shape of answers; prompt: in the system text alone.",
            (JSON_SCHEMA, JSON_OBJECT, IN_PROMPT, OFF),
            in_codec=True,
            in_client=False,
            in_key=True,
        ),
        Option(
            "token_limit",
            "The name under which a chat completion takes the limit of its answer's tokens.",
            (MAX_COMPLETION_TOKENS, MAX_TOKENS),
            in_codec=True,
            in_client=False,
            in_key=True,
        ),
        SETTLE,
    ),
)
