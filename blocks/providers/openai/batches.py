"""OpenAI's calls: a file of requests is uploaded, a batch made from it, and two files of answers are read.

The section numbers are those of docs/wire-protocols.md, §3 and §1.1 (a create whose answer was lost).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from blocks.batch import (
    Answer,
    EncodedBatch,
    Found,
    PollPlan,
    RequestForm,
)
from blocks.providers.calls import WITHIN_A_DAY, Calls, Dialect, filename_of, tag_of
from blocks.providers.lenient import id_of, mapping, string, time_of, unexpected
from blocks.providers.openai.codec import (
    CHAT,
    batch_of,
    read_error,
    read_page,
    read_row,
    read_status,
)
from blocks.providers.reading import Reading, file_of, promised_by
from blocks.providers.reconciling import SETTLE, Search, keep_one, readable

log = logging.getLogger("batchwerk.openai")

BASE_URL = "https://api.openai.com/v1"
PATHS = {
    "files": "/files",
    "content": "/files/{id}/content",
    "batches": "/batches",
    "batch": "/batches/{id}",
    "cancel": "/batches/{id}/cancel",
}
METADATA_KEY = "batchwerk"  # under which a batch carries our tag
WINDOW = "24h"
PAGE = 100  # items of a list; of files some services give no more than of batches (§3.2, §3.4, §7)
SPEND_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}

DIALECT = Dialect(
    "openai",
    PATHS,
    read_status,
    read_error,
    read_id=lambda answer: id_of(batch_of(answer)),
    spend_codes=SPEND_CODES,
    key_pattern=re.compile(r"\bsk-[\w*.…-]+"),  # it repeats a wrong key, masked in the middle; others may not mask it
    key_sign="sk-…",
)


class OpenAI(Calls):
    """OpenAI's calls. A batch carries its tag as metadata and in the name of its file, so that it can be found again.

    `settle`: seconds for which a batch that no list shows may still appear (§1.1).
    """

    dialect = DIALECT
    polling = WITHIN_A_DAY

    def __init__(
        self,
        api_key: str,
        base_url: str = BASE_URL,
        *,
        polling: PollPlan | None = None,
        endpoint: str = CHAT,
        settle: float = SETTLE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = endpoint
        headers = {"authorization": f"Bearer {api_key}"}
        super().__init__(headers, base_url, api_key, polling=polling, settle=settle, clock=clock)

    def submit(self, batch: EncodedBatch, form: RequestForm) -> str:  # noqa: ARG002  # the form is in the body
        """Upload the file, which may be done twice, then make a batch of it, which may not."""
        order = {
            "input_file_id": self._upload(batch),
            "endpoint": self._endpoint,
            "completion_window": WINDOW,
            "metadata": {METADATA_KEY: batch.tag},
        }
        return self._create(self._path("batches"), order, batch.tag)

    def find(self, batch: EncodedBatch, form: RequestForm) -> Found | None:  # noqa: ARG002  # the tag is enough
        """Look the tag up in the lists; None once it can't appear there any more (§1.1).

        A batch carries its tag as metadata or, where a service keeps none, in the name of its file.
        """
        listed: dict[str, Mapping[str, Any]] = {}  # a list that moves may show one twice
        search = Search(batch)
        for item in readable(search, self._listed("batches", batch, search)):
            listed[id_of(item)] = item
            search.note(id_of(item), _mark_of(item), partial(read_status, item))
        uploads: list[float] = []
        if not search.found:
            names = {}
            for file in readable(Search(batch), self._listed("files", batch, Search(batch))):
                names[id_of(file)] = string(file.get("filename"))
                if names[id_of(file)] == filename_of(batch.tag) and (at := time_of(file.get("created_at"))):
                    uploads.append(at.timestamp() - self._http.clock_ahead)
            tags = {named: tag for named, name in names.items() if (tag := tag_of(name))}
            for named, item in listed.items():
                search.note(named, tags.get(string(item.get("input_file_id"))), partial(read_status, item))
        if search.found:
            return keep_one(self.name, search.found.values(), batch.tag, self.cancel)
        self._settling.check(batch, search, uploads, where=f": its file is called {filename_of(batch.tag)}")
        return None

    def _listed(self, kind: str, batch: EncodedBatch, search: Search) -> Iterator[Mapping[str, Any]]:
        """Files or batches, newest first, back to the time of sending and to one that shows what the list is worth."""
        params: dict[str, str | int] = {"limit": PAGE}
        if kind == "files":
            params |= {"purpose": "batch", "order": "desc"}
        last, more = "", True
        while more:
            items, more = read_page(self._http.get(self._path(kind), **params))
            yield from items
            times = [at.timestamp() for item in items if (at := time_of(item.get("created_at")))]
            before, last = last, id_of(items[-1]) if items else ""
            if more and last in {"", before}:
                search.broke_off()
                return
            old = bool(times) and max(times) < self._since(batch)
            more = more and not (old and (search.found or search.is_proof or kind == "files"))
            params["after"] = last

    def results(self, batch_id: str, form: RequestForm) -> Iterator[Answer]:
        """The lines of the output file and of the error file, checked against the counters (§3.5)."""
        batch = batch_of(self._http.get(self._path("batch", batch_id)))
        if not id_of(batch):
            raise unexpected(self.name, "a batch without its id")
        counts = mapping(batch.get("request_counts"))
        promised = promised_by(counts, "completed", "failed")
        reading = Reading(self.name, f"the batch {batch_id}", promised)
        files = [file_of(batch.get(name), reading) for name in ("output_file_id", "error_file_id")]
        if not any(files):
            if promised != 0:
                raise reading.incomplete("has ended and does not name a file of answers yet")
            log.warning("openai: the batch %s has neither an output nor an error file, and counts no answer", batch_id)
            return
        for file in filter(None, files):
            yield from reading.lines(self._http.lines(self._path("content", file)), partial(read_row, form=form))
        reading.check(late=not files[0] and counts.get("completed") != 0)


def _mark_of(batch: Mapping[str, Any]) -> str | None:
    return string(mapping(batch.get("metadata")).get(METADATA_KEY)) or None
