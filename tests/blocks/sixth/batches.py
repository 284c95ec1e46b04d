"""The calls of the made-up provider."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from blocks.batch import Answer, EncodedBatch, Found, PollPlan, RequestForm
from blocks.providers.calls import WITHIN_A_DAY, Calls, Dialect, answers_then_errors
from blocks.providers.lenient import id_of, mapping, string
from blocks.providers.reconciling import SETTLE, Search, keep_one, readable
from tests.blocks.sixth.codec import CHAT, read_error, read_line, read_page, read_status

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
        output, errors = string(batch.get("output_file_id")), string(batch.get("error_file_id"))
        failed = self._answers(errors, form) if errors else None
        yield from answers_then_errors(self._answers(output, form), failed)

    def _answers(self, file_id: str, form: RequestForm) -> Iterator[Answer]:
        lines = self._http.lines(self._path("content", file_id)) if file_id else iter(())
        yield from self._readable((read_line(line, form) for line in lines if line.strip()), file_id)
