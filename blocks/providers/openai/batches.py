"""OpenAI's calls: a file of requests is uploaded, a batch made from it, and two files of answers are read.

The section numbers are those of docs/wire-protocols.md, §3 and §1.1 (a create whose answer was lost).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from blocks.batch import (
    Answer,
    EncodedBatch,
    Found,
    PollPlan,
    RequestForm,
)
from blocks.providers.calls import WITHIN_A_DAY, Calls, Dialect, answers_then_errors, filename_of
from blocks.providers.lenient import id_of, mapping, string, time_of, unexpected
from blocks.providers.openai.codec import (
    CHAT,
    batch_of,
    read_error,
    read_line,
    read_page,
    read_status,
)
from blocks.providers.reconciling import CLOCK_SLACK, SETTLE, keep_one

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
FILES_PAGE, BATCHES_PAGE = 1000, 100  # of at most 10,000 and 100 (§3.2, §3.4)
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
        """Look the tag up in the lists; None once it can't appear there any more (§1.1)."""
        since = batch.sent_at - CLOCK_SLACK
        files = [file for file in self._listed("files", since) if file.get("filename") == filename_of(batch.tag)]
        file_ids = {id_of(file) for file in files} - {""}
        listed = (item for item in self._listed("batches", since) if _is_ours(item, batch.tag, file_ids))
        found = {id_of(item): read_status(item) for item in listed}  # a list that moves may show one twice
        if found:
            return keep_one(self.name, found.values(), batch.tag, self.cancel)
        uploads = [at.timestamp() for file in files if (at := time_of(file.get("created_at")))]
        self._settling.check(batch, uploads, where=f": its file is called {filename_of(batch.tag)}")
        return None

    def _listed(self, kind: str, since: float) -> Iterator[Mapping[str, Any]]:
        """Files or batches, newest first, back to a time."""
        params: dict[str, str | int] = {"limit": BATCHES_PAGE}
        if kind == "files":
            params = {"purpose": "batch", "order": "desc", "limit": FILES_PAGE}
        last, more = "", True
        while more:
            items, more = read_page(self._http.get(self._path(kind), **params))
            yield from items
            times = [at.timestamp() for item in items if (at := time_of(item.get("created_at")))]
            before, last = last, id_of(items[-1]) if items else ""
            more = more and last not in {"", before} and not (times and max(times) < since)
            params["after"] = last

    def results(self, batch_id: str, form: RequestForm) -> Iterator[Answer]:
        """The lines of the output file, then those of the error file that are about other requests.

        Counters are not looked at (§3.5): which requests have no line is for whoever sent them to count. Of a batch
        the ids alone are kept in memory, and only where there are two files.
        """
        batch = batch_of(self._http.get(self._path("batch", batch_id)))
        if not id_of(batch):
            raise unexpected(self.name, "a batch without its id")
        output, errors = string(batch.get("output_file_id")), string(batch.get("error_file_id"))
        if not output and not errors:
            log.warning("openai: the batch %s has neither an output nor an error file", batch_id)
        failed = self._answers(errors, form) if errors else None
        yield from answers_then_errors(self._answers(output, form), failed)

    def _answers(self, file_id: str, form: RequestForm) -> Iterator[Answer]:
        """The answers of a file; none where there is no file."""
        lines = self._http.lines(self._path("content", file_id)) if file_id else iter(())
        yield from self._readable((read_line(line, form) for line in lines if line.strip()), file_id)


def _is_ours(batch: Mapping[str, Any], tag: str, file_ids: set[str]) -> bool:
    """By metadata, or by the file it was made from where a service drops metadata."""
    return mapping(batch.get("metadata")).get(METADATA_KEY) == tag or string(batch.get("input_file_id")) in file_ids
