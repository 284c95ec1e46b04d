"""Mistral's calls: small jobs carry their requests with them, large ones refer to a file that was uploaded.

The section numbers are those of docs/wire-protocols.md, §4 and §1.1 (a create whose answer was lost).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any

from blocks.batch import (
    Answer,
    EncodedBatch,
    Found,
    PollPlan,
    RequestForm,
)
from blocks.providers.calls import WITHIN_A_DAY, Calls, Dialect, filename_of
from blocks.providers.lenient import array, id_of, mapping, string, time_of, unexpected
from blocks.providers.mistral.codec import (
    inline_order,
    read_error,
    read_page,
    read_row,
    read_status,
)
from blocks.providers.reading import Reading, file_of, promised_by
from blocks.providers.reconciling import SETTLE, Search, keep_one, readable

log = logging.getLogger("batchwerk.mistral")

BASE_URL = "https://api.mistral.ai"
CHAT = "/v1/chat/completions"  # what a job's requests call
PATHS = {
    "files": "/v1/files",
    "content": "/v1/files/{id}/content",
    "jobs": "/v1/batch/jobs",
    "batch": "/v1/batch/jobs/{id}",
    "cancel": "/v1/batch/jobs/{id}/cancel",
}
METADATA_KEY = "batchwerk"  # under which a job carries our tag
TIMEOUT_HOURS = 24
PAGE = 100  # items of a list
AUTO, NEVER = "auto", "never"  # when requests are sent within the order for a job
INLINE_REQUESTS = 9_999  # §4: fewer than 10,000
INLINE_BYTES = 8_000_000  # [ours]; such an order is put together in memory
SPEND_CODES = {"insufficient_quota"}  # of calls, as OpenAI says it [?]: waiting is of no use

DIALECT = Dialect("mistral", PATHS, read_status, read_error, spend_codes=SPEND_CODES)


class Mistral(Calls):
    """Mistral's calls. A job carries its tag as metadata, so that it can be found again.

    `inline`: `auto` sends small batches within the order for the job, `never` always by file. `settle`: seconds for
    which a job that no list shows may still appear (§1.1).
    """

    dialect = DIALECT
    polling = WITHIN_A_DAY

    def __init__(
        self,
        api_key: str,
        base_url: str = BASE_URL,
        *,
        polling: PollPlan | None = None,
        inline: str = AUTO,
        settle: float = SETTLE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._inline = inline == AUTO
        headers = {"authorization": f"Bearer {api_key}"}
        # Our paths name the version; an address that is copied from elsewhere may name it as well.
        address = base_url.rstrip("/").removesuffix("/v1")
        super().__init__(headers, address, api_key, polling=polling, settle=settle, clock=clock)

    def submit(self, batch: EncodedBatch, form: RequestForm) -> str:
        """Order a job, the requests within the order or, where they are many, in a file that is uploaded before.

        The file may be uploaded twice; the order may not be made twice.
        """
        order = {
            "endpoint": CHAT,
            "model": form.model,
            "metadata": {METADATA_KEY: batch.tag},
            "timeout_hours": TIMEOUT_HOURS,
        }
        if self._inline and batch.requests <= INLINE_REQUESTS and batch.bytes < INLINE_BYTES:
            return self._create(self._path("jobs"), inline_order(order, batch.path.read_bytes()), batch.tag)
        return self._create(self._path("jobs"), {**order, "input_files": [self._upload(batch)]}, batch.tag)

    def find(self, batch: EncodedBatch, form: RequestForm) -> Found | None:  # noqa: ARG002  # the tag is enough
        """Look the tag up in the list of jobs; None once it can't appear there any more (§1.1)."""
        search = Search(batch)
        # An empty answer to a filter may be the filter's fault: the whole list is looked through as well.
        for filters in ({METADATA_KEY: batch.tag}, {}):
            if not search.found:
                self._look_through(batch, search, filters)
        if search.found:
            return keep_one(self.name, search.found.values(), batch.tag, self.cancel)
        where = f": its metadata says {METADATA_KEY}={batch.tag}"
        self._settling.check(batch, search, self._uploads(batch), where=where)
        return None

    def _look_through(self, batch: EncodedBatch, search: Search, filters: Mapping[str, str]) -> None:
        """All jobs back to the time of sending, or those that a filter lets through if the server knows it."""
        listed = self._listed("jobs", batch, search, {**filters, "order_by": "-created"})
        for job in readable(search, listed):
            mark = string(mapping(job.get("metadata")).get(METADATA_KEY)) or None
            search.note(id_of(job), mark, partial(read_status, job))

    def _uploads(self, batch: EncodedBatch) -> list[float]:
        """When files of a batch with this tag were uploaded, in seconds since the epoch."""
        search, filters = Search(batch), {"purpose": "batch", "search": filename_of(batch.tag)}
        listed = list(readable(search, self._listed("files", None, search, filters)))
        times = [time_of(file.get("created_at")) for file in listed if file.get("filename") == filename_of(batch.tag)]
        return [at.timestamp() - self._http.clock_ahead for at in times if at is not None]

    def _listed(
        self, kind: str, batch: EncodedBatch | None, search: Search, filters: Mapping[str, str]
    ) -> Iterator[Mapping[str, Any]]:
        """Jobs or files, each once; with `batch` back to its sending and to a job that shows what the list is worth."""
        seen: set[str] = set()
        for page in count():
            items, total = read_page(self._http.get(self._path(kind), page=page, page_size=PAGE, **filters))
            new = [item for item in items if id_of(item) and id_of(item) not in seen]
            yield from new
            seen.update(map(id_of, new))
            if total is not None and not new and len(seen) < total:
                search.broke_off()
            complete = len(items) < PAGE and total is not None and len(seen) >= total
            if not new or complete:
                return
            times = [at.timestamp() for item in items if (at := time_of(item.get("created_at")))]
            old = batch is not None and bool(times) and max(times) < self._since(batch)
            if old and (search.found or search.is_proof):
                return

    def results(self, batch_id: str, form: RequestForm) -> Iterator[Answer]:
        """What was answered and what failed, checked against the counters.

        Answers stand in a file or, of a job that has none, within it.
        """
        job = mapping(self._http.get(self._path("batch", batch_id)))
        if not id_of(job):
            raise unexpected(self.name, "a job without its id")
        promised = promised_by(job, "succeeded_requests", "failed_requests")
        reading = Reading(self.name, f"the job {batch_id}", promised)
        output, errors = (file_of(job.get(name), reading) for name in ("output_file", "error_file"))
        rows = [] if output else self._inline_rows(batch_id)
        if not (output or rows or errors) and promised != 0:
            raise reading.incomplete("has ended and has neither answers nor a file of them yet")
        yield from reading.rows(rows, partial(read_row, form=form))
        for file in filter(None, (output, errors)):
            yield from reading.lines(self._http.lines(self._path("content", file)), partial(read_row, form=form))
        reading.check(late=not (output or rows) and job.get("succeeded_requests") != 0)

    def _inline_rows(self, batch_id: str) -> list[Any]:
        return array(mapping(self._http.get(self._path("batch", batch_id), inline="true")).get("outputs"))
