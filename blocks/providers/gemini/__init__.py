"""What the catalog knows of the provider gemini."""

from __future__ import annotations

from blocks.batch import Limits
from blocks.entries import SETTLE, Option, ProviderEntry
from blocks.providers.gemini.batches import BASE_URL, V1, V1BETA, Gemini
from blocks.providers.gemini.codec import GeminiCodec
from blocks.vocabularies import Framing

# §9: Google's SDK names Gemma 3 for the first two; Gemma 4 counts the same, ten times as fast.
FRAMINGS = dict.fromkeys(("gemini-2", "gemini-3-", "gemini-3.1", "gemini-3.5-flash"), Framing("gemma4", 0, 0))

LIMITS = Limits(
    max_requests=100_000,  # [ours]; a batch that expires gives no answers at all, so not everything is put into one
    max_bytes=2_000_000_000,
    max_in_flight=100,
    max_queued_tokens=None,  # depends on the model and on the account's tier (§5): the user says it
)

ENTRY = ProviderEntry(
    name="gemini",
    title="Gemini",
    service="the Gemini Developer API's batches",
    key_variable="GEMINI_API_KEY",
    base_url=BASE_URL,
    base_url_help="Where the API is, without its version.",
    added=(f"/{V1BETA}", f"/{V1}"),
    limits=LIMITS,
    framings=FRAMINGS,
    client=Gemini,
    codec=GeminiCodec,
    options=(
        Option("api_version", "The API version.", (V1BETA, V1), in_key=False),
        SETTLE,
    ),
)
