"""The calls of the made-up provider."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from blocks.batch import Answer, EncodedBatch, Found, PollPlan, RequestForm
from blocks.providers.calls import WITHIN_A_DAY, Calls, Dialect
from blocks.providers.lenient import id_of, mapping, string
from blocks.providers.reading import Reading, file_of, promised_by
from blocks.providers.reconciling import SETTLE, Search, keep_one, readable
from tests.blocks.sixth.codec import CHAT, read_error, read_page, read_row, read_status

BASE_URL = "https://api.sixth.example/v1"
PATHS = {
    "files": "/files",
    "content": "/files/{id}/content",
    "batches": "/batches",
    "batch": "/batches/{id}",
    "cancel": "/batches/{id}/cancel",
}
PAGE = 100  # batches of a list
DIALECT = Dialect("sixth", PATHS, read_status, read_error, spend_codes={"insufficient_quota"})


class Sixth(Calls):
    """A batch carries its tag as metadata."""

    dialect = DIALECT
    polling = WITHIN_A_DAY

    def __init__(
        self,
        api_key: str,
        base_url: str = BASE_URL,
        *,
        polling: PollPlan | None = None,
        window: str = "24h",
        settle: float = SETTLE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        headers = {"authorization": f"Bearer {api_key}"}
        super().__init__(headers, base_url, api_key, polling=polling, settle=settle, clock=clock)
        self._window = window

    def submit(self, batch: EncodedBatch, form: RequestForm) -> str:
        """A file, then a batch of it."""
        order = {
            "input_file_id": self._upload(batch),
            "endpoint": CHAT,
            "completion_window": self._window,
            "metadata": {"tag": batch.tag},
        }
        return self._create(self._path("batches"), order, batch.tag)

    def find(self, batch: EncodedBatch, form: RequestForm) -> Found | None:
        """By the tag in the list."""
        search = Search(batch)
        for item in readable(search, self._listed(search)):
            mark = string(mapping(item.get("metadata")).get("tag"))
            search.note(id_of(item), mark, partial(read_status, item))
        if search.found:
            return keep_one(self.name, search.found.values(), batch.tag, self.cancel)
        self._settling.check(batch, search)
        return None

    def _listed(self, search: Search) -> Iterator[Mapping[str, Any]]:
        params: dict[str, str | int] = {"limit": PAGE}
        more = True
        while more:
            items, more = read_page(self._http.get(self._path("batches"), **params))
            yield from items
            if more and not items:
                search.broke_off()
                return
            params["after"] = id_of(items[-1]) if items else ""

    def results(self, batch_id: str, form: RequestForm) -> Iterator[Answer]:
        """From a file of answers and a file of errors."""
        batch = mapping(self._http.get(self._path("batch", batch_id)))
        promised = promised_by(mapping(batch.get("request_counts")), "completed", "failed")
        reading = Reading(self.name, f"the batch {batch_id}", promised)
        for name in ("output_file_id", "error_file_id"):
            if file := file_of(batch.get(name), reading):
                yield from reading.lines(self._http.lines(self._path("content", file)), partial(read_row, form=form))
        reading.check()
