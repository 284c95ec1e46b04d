"""What the catalog knows of the provider anthropic."""

from __future__ import annotations

from blocks.batch import Limits
from blocks.entries import SETTLE, Option, ProviderEntry
from blocks.providers.anthropic.batches import BASE_URL, Anthropic
from blocks.providers.anthropic.codec import AUTH, CACHE, EFFORT, VERSION, AnthropicCodec, shortest_prefix
from blocks.vocabularies import Framing

# §9: no vocabulary is public; newer models make 30 % more tokens of the same text.
_EARLIER, _NEWER = Framing("o200k_base", 4, 3, factor=1.12), Framing("o200k_base", 4, 3, factor=1.45)
FRAMINGS = {
    "claude-": _NEWER,
    **dict.fromkeys(("claude-3", "claude-sonnet-4", "claude-haiku-4", "claude-opus-4"), _EARLIER),
    "claude-opus-4-7": _NEWER,
}

LIMITS = Limits(  # §2.6, tier "Start"
    max_requests=100_000,
    max_bytes=256_000_000,
    max_queued_requests=200_000,
    submissions_at_once=1,  # of two creates whose answers are lost, each could be taken for the other (§1.1)
)

ENTRY = ProviderEntry(
    name="anthropic",
    title="Anthropic",
    service="Anthropic's Message Batches",
    key_variable="ANTHROPIC_API_KEY",
    base_url=BASE_URL,
    base_url_help="Where the API is, without /v1.",
    added=("/v1",),
    limits=LIMITS,
    framings=FRAMINGS,
    client=Anthropic,
    codec=AnthropicCodec,
    shortest_prefix=shortest_prefix,
    options=(
        Option("version", "The API version.", (VERSION, "2023-06-01"), in_codec=True, in_key=False),
        Option("auth", "The header that carries the key.", (AUTH, "bearer"), in_key=False),
        Option(
            "cache",
            "How long a system text that is long enough stays in the prompt cache.",
            (CACHE, "off", "1h"),
            in_codec=True,
            in_key=False,  # a cached text is read like any other
        ),
        Option(
            "effort",
            "How much the model thinks before it answers.",
            (EFFORT, "low", "medium", "high", "xhigh", "max"),
            in_codec=True,
            in_client=False,
            in_key=True,
        ),
        SETTLE,
    ),
)
