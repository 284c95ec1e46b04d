"""Gemini's calls: requests in the call or in a file, answers in an operation or in another file.

The section numbers are those of docs/wire-protocols.md, §5 and §1.1 (a create whose answer was lost).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from blocks.batch import (
    Answer,
    BatchPhase,
    BatchStatus,
    EncodedBatch,
    Found,
    PollPlan,
    RequestForm,
)
from blocks.errors import NotFound, Oversized
from blocks.printable import counted
from blocks.providers.calls import Calls, Dialect
from blocks.providers.gemini.answers import RowReader
from blocks.providers.gemini.codec import (
    batch_of,
    id_of,
    inline_order,
    inlined_rows,
    outputs,
    promised_answers,
    read_page,
    read_status,
    responses_file,
)
from blocks.providers.gemini.errors import BAD_KEY, NO_BILLING, read_error
from blocks.providers.lenient import mapping, string, time_of, unexpected
from blocks.providers.reading import Reading, file_of
from blocks.providers.reconciling import SETTLE, SLOWEST_UPLOAD, Search, keep_one, readable

log = logging.getLogger("batchwerk.gemini")

BASE_URL = "https://generativelanguage.googleapis.com"
V1BETA, V1 = "v1beta", "v1"  # the documentation's version, and the SDK's
PATHS = {
    "create": "/{version}/models/{id}:batchGenerateContent",
    "upload": "/upload/{version}/files",
    "batches": "/{version}/batches",
    "batch": "/{version}/batches/{id}",
    "cancel": "/{version}/batches/{id}:cancel",
    "download": "/{version}/files/{id}:download?alt=media",
}
PAGE = 100  # batches of a list
INLINE_BYTES = 15_000_000  # of the body with which a batch is created; the service takes less than 20 MB in all
# [ours]; such a batch has its answers within the operation, and each look at it after its end brings them all.
INLINE_REQUESTS = 5_000
EMPTY_PAGES = 3  # one after another, after which a list that promises more breaks off
_INLINED_MORE = len(b'"metadata":{},')  # bytes by which a line grows, and the comma after it

DIALECT = Dialect(
    "gemini",
    PATHS,
    read_status,
    read_error,
    read_id=lambda answer: id_of(mapping(answer)),
    spend_codes=(NO_BILLING,),
    key_codes=(BAD_KEY,),
    key_pattern=re.compile(r"\bAIza[\w*.…-]+"),  # Google names the key that it refuses
    key_sign="AIza…",
)


class Gemini(Calls):
    """Gemini's calls. A batch carries its tag as its display name, so that it can be found again.

    `api_version`: part of every path. `settle`: seconds for which a batch that no list shows may still appear (§1.1).
    """

    dialect = DIALECT
    polling = PollPlan(first=60.0, factor=1.5, longest=300.0, patience=50 * 3600.0)  # §11; a batch expires after 48 h

    def __init__(
        self,
        api_key: str,
        base_url: str = BASE_URL,
        *,
        polling: PollPlan | None = None,
        api_version: str = V1BETA,
        settle: float = SETTLE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._version = api_version
        # Our paths name the version; an address that is copied from elsewhere may name it as well.
        address = base_url.rstrip("/").removesuffix(f"/{api_version}")
        super().__init__({"x-goog-api-key": api_key}, address, api_key, polling=polling, settle=settle, clock=clock)

    def submit(self, batch: EncodedBatch, form: RequestForm) -> str:
        """Create a batch, its requests within the call or, where they are many, in a file that is uploaded before."""
        path = self._path("create", form.model.removeprefix("models/"))
        if _is_small(batch):
            with batch.path.open("rb") as file:
                return self._create(path, inline_order(batch.tag, file), batch.tag)
        order = {"displayName": batch.tag, "inputConfig": {"fileName": self._upload(batch)}}
        return self._create(path, {"batch": order}, batch.tag)

    def _upload(self, batch: EncodedBatch) -> str:
        """The name of a new file; it may be uploaded twice, as it costs nothing."""
        name, size = f"batchwerk-{batch.tag}", str(batch.bytes)
        about = {"file": {"display_name": name, "mime_type": "application/jsonl", "size_bytes": size}}
        answer = self._http.upload_resumable(self._path("upload"), about, batch.path, batch.bytes)
        named = string(mapping(mapping(answer).get("file")).get("name"))
        if not named:
            raise unexpected(self.name, "a file without its name")
        return named

    def find(self, batch: EncodedBatch, form: RequestForm) -> Found | None:  # noqa: ARG002  # the tag is enough
        """Look the tag up in the list; None once it can't appear there any more (§1.1)."""
        search = Search(batch)
        for operation in readable(search, self._listed(batch, search)):
            search.note(id_of(operation), _display_name(operation) or None, partial(read_status, operation))
        if search.found:
            return keep_one(self.name, search.found.values(), batch.tag, self.cancel)
        # Its file was uploaded between the note that it is sent and the creation; no list tells when.
        uploaded = [batch.sent_at + batch.bytes / SLOWEST_UPLOAD] if batch.sent_at and not _is_small(batch) else []
        self._settling.check(batch, search, uploaded, where=f": its display name is {batch.tag}")
        return None

    def _listed(self, batch: EncodedBatch, search: Search) -> Iterator[Mapping[str, Any]]:
        """All batches, or those back to a time: in which order they are listed is not documented."""
        token, seen, times, empty = "", {""}, list[float](), 0
        while True:
            params = {"pageToken": token} if token else {}
            operations, token = read_page(self._http.get(self._path("batches"), pageSize=PAGE, **params))
            yield from operations
            stamps = [time_of(batch_of(operation).get("createTime")) for operation in operations]
            page = [at.timestamp() for at in stamps if at is not None]
            times += page
            empty = 0 if operations else empty + 1
            if token and (token in seen or empty >= EMPTY_PAGES):
                search.broke_off()
            old = bool(page) and max(page) < self._since(batch) and _newest_first(times)
            if not token or search.trouble or (old and (search.found or search.is_proof)):
                return
            seen.add(token)

    def poll(self, batch_id: str) -> BatchStatus:
        """Where the batch stands. Only one that has ended brings answers, and with them more than can be read."""
        try:
            return super().poll(batch_id)
        except Oversized:
            return BatchStatus(batch_id, BatchPhase.ENDED, "ended, with answers of more bytes than are read")

    def results(self, batch_id: str, form: RequestForm) -> Iterator[Answer]:
        """The answers, from the file or from the operation itself, checked against the counters.

        Answers that came under another key wait in memory for those of their owners. Raises NotFound where the
        operation names nothing to read: requests without an answer are another thing.
        """
        operation = mapping(self._http.get(self._path("batch", batch_id)))
        if not id_of(operation):
            raise unexpected(self.name, "a batch without its name")
        reading = Reading(self.name, f"the batch {batch_id}", promised_answers(operation), id_name="key")
        reader = RowReader(form, _display_name(operation))
        yield from reader.settled(self._rows(operation, batch_id, reading, reader))
        if reader.moved:
            log.warning(
                "gemini: %s of %s came under the key of another row; each was given to the row that it names",
                counted(reader.moved, "answer"),
                batch_id,
            )
        reading.check()

    def _rows(
        self, operation: Mapping[str, Any], batch_id: str, reading: Reading, reader: RowReader
    ) -> Iterator[Answer]:
        if file := file_of(responses_file(operation), reading):
            lines = self._http.lines(self._path("download", file.removeprefix("files/")))
            return reading.lines(lines, reader.read)
        if not any("inlinedResponses" in output for output in outputs(operation)):
            raise NotFound(
                f"gemini no longer has the answers of {batch_id}: it names neither a file nor a list of them",
                next_step="what was collected before is kept",
                provider=self.name,
            )
        return reading.rows(inlined_rows(operation), reader.read)

    def _cancelled(self, answer: Any, batch_id: str) -> BatchStatus:  # noqa: ARG002  # it is empty
        return self.poll(batch_id)

    def _path(self, kind: str, name: str = "") -> str:
        return PATHS[kind].format(version=self._version, id=quote(name, safe=""))


def _is_small(batch: EncodedBatch) -> bool:
    """Whether a batch goes within the call that creates it."""
    return batch.requests <= INLINE_REQUESTS and batch.bytes + _INLINED_MORE * batch.requests < INLINE_BYTES


def _display_name(operation: Mapping[str, Any]) -> str:
    return string(batch_of(operation).get("displayName"))


def _newest_first(times: list[float]) -> bool:
    """Whether times that were listed one after another show that the list is in that order."""
    return len(times) > 1 and times[0] > times[-1] and all(one >= other for one, other in pairwise(times))
