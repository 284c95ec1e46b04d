"""What the clients of all providers do alike: connect, create, look and cancel.

A client derives from `Calls` and adds what its service does in its own way: `submit`, `find` and `results`.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote

from blocks.batch import BatchPhase, BatchStatus, EncodedBatch, PollPlan
from blocks.errors import BatchRefused, Complaint, UnknownOutcome
from blocks.providers.lenient import id_of, unexpected
from blocks.providers.reconciling import CLOCK_SLACK, SETTLE, Settling
from blocks.transport import ErrorReader, OutOfMoney, Transport

log = logging.getLogger("batchwerk.providers")

WITHIN_A_DAY = PollPlan(first=60.0, factor=1.5, longest=300.0, patience=26 * 3600.0)  # §11; batches end within a day


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a service writes what all services have."""

    name: str
    paths: Mapping[str, str]  # by what they are for; "batch" and "cancel" have an {id}
    read_status: Callable[[Any], BatchStatus]
    read_error: ErrorReader
    read_id: Callable[[Any], str] = id_of  # of the answer to a create; empty if it has none
    spend_codes: Collection[str] = ()  # of errors that waiting does not help
    key_codes: tuple[str, ...] = ()  # of errors that say, whatever the HTTP status, that the key is wrong
    key_pattern: re.Pattern[str] | None = None  # of keys that the service may repeat in its errors
    key_sign: str = "…"  # in their place

    def out_of_money(self, status: int, code: str | None, retry_after: float | None) -> bool:  # noqa: ARG002  # not by these
        """Whether an error says that the account can't pay."""
        return code in self.spend_codes

    def masked_errors(self, key: str) -> ErrorReader:
        """`read_error`, with messages that have no key in them."""

        def read(body: Any) -> Complaint:
            complaint = self.read_error(body)
            message = complaint.message.replace(key, "…") if key else complaint.message
            if self.key_pattern is not None:
                message = self.key_pattern.sub(self.key_sign, message)
            return complaint._replace(message=message)

        return read


class Calls:
    """The part of a client that does not depend on the service.

    `settle`: seconds for which a batch that no list shows may still appear (§1.1).
    """

    dialect: ClassVar[Dialect]
    name: str
    polling: PollPlan
    replays: bool = False

    def __init__(
        self,
        headers: Mapping[str, str],
        base_url: str,
        key: str,
        *,
        polling: PollPlan | None = None,
        settle: float = SETTLE,
        clock: Callable[[], float] = time.time,
        out_of_money: OutOfMoney | None = None,
    ) -> None:
        self.name = self.dialect.name
        self.polling = polling or self.polling
        self._settling = Settling(self.name, settle, clock)
        self._http = Transport(
            self.name,
            base_url,
            headers,
            self.dialect.masked_errors(key),
            out_of_money=out_of_money or self.dialect.out_of_money,
            key_codes=self.dialect.key_codes,
        )

    def poll(self, batch_id: str) -> BatchStatus:
        """Where the batch stands."""
        return self.dialect.read_status(self._http.get(self._path("batch", batch_id)))

    def cancel(self, batch_id: str) -> BatchStatus:
        """Ask to stop; finished requests are kept and paid. A batch that has ended by then is reported as it is."""
        try:
            return self._cancelled(self._http.post(self._path("cancel", batch_id)), batch_id)
        except BatchRefused:
            status = self.poll(batch_id)
            if status.phase is BatchPhase.RUNNING:
                raise
            return status

    def _cancelled(self, answer: Any, batch_id: str) -> BatchStatus:  # noqa: ARG002  # for services whose answer is empty
        return self.dialect.read_status(answer)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _path(self, kind: str, name: str = "") -> str:
        return self.dialect.paths[kind].format(id=quote(name, safe=""))  # an id may come from a file

    def _since(self, batch: EncodedBatch) -> float:
        """Back to when lists are read for a lost batch, by the service's clock: ours may be hours ahead of it."""
        return batch.sent_at + self._http.clock_ahead - CLOCK_SLACK

    def _create(self, path: str, order: Mapping[str, Any] | bytes, tag: str) -> str:
        """Create a batch from an order that fits into memory; this may not be done twice."""
        return self._created(tag, lambda: self._http.create_json(path, order))

    def _created(self, tag: str, create: Callable[[], Any]) -> str:
        """The id of a new batch. Remembers when an answer was lost, as the batch may appear for some time after."""
        try:
            answer = create()
        except UnknownOutcome:
            self._settling.note_lost(tag)
            raise
        if named := self.dialect.read_id(answer):
            return named
        self._settling.note_lost(tag)
        raise UnknownOutcome(f"{self.name} accepted a batch and named no id for it", provider=self.name)

    def _upload(self, batch: EncodedBatch) -> str:
        """The id of a new file, uploaded as a form; it may be uploaded twice, as it costs nothing."""
        fields = {"purpose": "batch"}
        file = self._http.upload(self._path("files"), fields, batch.path, batch.bytes, filename_of(batch.tag))
        file_id = id_of(file)
        if not file_id:
            raise unexpected(self.name, "a file without its id")
        return file_id


def filename_of(tag: str) -> str:
    """What the file of a batch is called at the provider."""
    return f"batchwerk-{tag}.jsonl"


def tag_of(filename: str) -> str:
    """The tag in the name of a batch's file; empty if it is no name of ours."""
    match = re.fullmatch(r"batchwerk-(.+)\.jsonl", filename)
    return match[1] if match else ""
