"""HolySheep AI's calls."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from blocks.batch import (
    Answer,
    EncodedBatch,
    Found,
    PollPlan,
    RequestForm,
)
from blocks.errors import CantTell, Oversized
from blocks.providers.calls import Calls, Dialect
from blocks.providers.holysheep.codec import batch_id_of, read_error, read_item, read_page, read_status
from blocks.providers.reading import Reading

BASE_URL = "https://api.holysheep.ai/v1"
PATHS = {
    "batches": "/batches",
    "batch": "/batches/{id}",
    "results": "/batches/{id}/results",  # [ours]; the tutorial reads results by (offset, limit)
    "cancel": "/batches/{id}/cancel",  # [ours]
}
IDEMPOTENCY_HEADER = "Idempotency-Key"  # [ours]; the tutorial names a key but no place for it
RESULTS_PAGE = 1000  # results a call
UNVERIFIED, VERIFIED = "unverified", "verified"  # whether the server is known to honour the idempotency key
SPEND_CODES = {"insufficient_quota"}  # [ours]; of a call: waiting is of no use

DIALECT = Dialect("holysheep", PATHS, read_status, read_error, read_id=batch_id_of, spend_codes=SPEND_CODES)


class HolySheep(Calls):
    """HolySheep's calls. `idempotency` is `verified` where the server is known to honour the idempotency key."""

    dialect = DIALECT
    polling = PollPlan(first=2.0, factor=1.5, longest=30.0)

    def __init__(
        self,
        api_key: str,
        base_url: str = BASE_URL,
        *,
        polling: PollPlan | None = None,
        idempotency: str = UNVERIFIED,
    ) -> None:
        self.replays = idempotency == VERIFIED
        super().__init__({"authorization": f"Bearer {api_key}"}, base_url, api_key, polling=polling)

    def submit(self, batch: EncodedBatch, form: RequestForm) -> str:  # noqa: ARG002  # the form is in the body
        """Send a batch under its tag as idempotency key."""
        headers = {IDEMPOTENCY_HEADER: batch.tag}
        create = partial(self._http.create, self._path("batches"), batch.path, batch.bytes, headers)
        return self._created(batch.tag, create)

    def find(self, batch: EncodedBatch, form: RequestForm) -> Found:
        """Replay the call: the same key and body answer the first batch again, where that is verified."""
        if not self.replays:
            raise CantTell(
                f"holysheep can't tell whether the batch {batch.tag} was accepted",
                next_step="if the server is known to honour idempotency keys, add --option idempotency=verified",
                provider=self.name,
            )
        return Found(self.submit(batch, form))

    def results(self, batch_id: str, form: RequestForm) -> Iterator[Answer]:  # noqa: ARG002  # answers are read as they are
        """All items, a page at a time, beyond their number too while some lack: a request may have several.

        Each page is a call of its own: an item that two pages leave out is noticed. Where a page has more bytes than
        are read it is asked for in smaller ones; an item that is alone too large is one that lacks.
        """
        reading = Reading(self.name, f"the batch {batch_id}", None)
        offset, more, limit = 0, True, RESULTS_PAGE
        while more:
            try:
                page = self._http.get(self._path("results", batch_id), offset=offset, limit=limit)
            except Oversized:
                offset, limit = offset + (limit == 1), max(1, limit // 2)
                continue
            items, reading.promised = read_page(page)
            lacked, found = reading.lacking, len(items)
            yield from reading.rows(items, read_item)
            offset += found
            more = found > 0 and (offset < reading.promised or 0 < reading.lacking < lacked)
        reading.check()
