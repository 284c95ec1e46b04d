"""A made-up provider in one folder: it shows that the catalog, the help, the blocks and the suite need no other edit.

Its service speaks a part of OpenAI's dialect, so that the emulator can answer for it; no code is shared with the client
of OpenAI.
"""

from blocks.batch import Limits
from blocks.entries import SETTLE, Option, ProviderEntry
from tests.blocks.sixth.batches import BASE_URL, Sixth
from tests.blocks.sixth.codec import BRIEF, VERBOSE, SixthCodec

ENTRY = ProviderEntry(
    name="sixth",
    title="Sixth",
    service="Sixth AI's batch API",
    key_variable="SIXTH_API_KEY",
    base_url=BASE_URL,
    limits=Limits(max_requests=1_000, max_bytes=10_000_000),
    client=Sixth,
    codec=SixthCodec,
    options=(
        Option("tone", "How long the answers are.", (VERBOSE, BRIEF), in_codec=True, in_client=False, in_key=True),
        Option("window", "Hours within which a batch ends.", ("24h",), in_key=False),
        SETTLE,
    ),
)
