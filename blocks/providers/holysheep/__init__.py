"""What the catalog knows of the provider holysheep."""

from __future__ import annotations

from blocks.batch import Limits
from blocks.entries import Option, ProviderEntry
from blocks.providers.holysheep.batches import BASE_URL, UNVERIFIED, VERIFIED, HolySheep
from blocks.providers.holysheep.codec import HolySheepCodec
from blocks.vocabularies import Framing

FRAMINGS = {  # of the models that it resells (§9)
    **dict.fromkeys(("gpt-4.1", "gpt-4o", "gpt-5"), Framing("o200k_base", 4, 3)),
    "deepseek-v3": Framing("deepseek_v3", 1, 2),
}

LIMITS = Limits(
    max_requests=10_000,
    max_bytes=64 * 1024 * 1024,  # [ours]
    max_request_bytes=4 * 1024 * 1024,  # [ours]
    max_in_flight=50,
    submissions_per_hour=6_000,
)

ENTRY = ProviderEntry(
    name="holysheep",
    title="HolySheep",
    service="HolySheep AI's batch API",
    key_variable="HOLYSHEEP_API_KEY",
    base_url=BASE_URL,
    limits=LIMITS,
    framings=FRAMINGS,
    client=HolySheep,
    codec=HolySheepCodec,
    options=(
        Option(
            "idempotency",
            "`verified` once the server is known to answer a repeated Idempotency-Key with the first batch.",
            (UNVERIFIED, VERIFIED),
            in_key=False,
        ),
    ),
    emulated={"idempotency": VERIFIED},
)
