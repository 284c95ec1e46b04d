"""Anthropic's calls: one JSON body of requests, then a stream of result lines.

The section numbers are those of docs/wire-protocols.md, §2 and §1.1 (a create whose answer was lost).
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from blocks.batch import (
    Answer,
    EncodedBatch,
    Found,
    PollPlan,
    RequestForm,
)
from blocks.errors import BatchRefused, CantTell, Complaint, NotFound, UnknownOutcome
from blocks.printable import counted
from blocks.providers.anthropic.codec import (
    AUTH,
    CACHE,
    SPEND_CODES,
    VERSION,
    AnswerReader,
    custom_id_of,
    error_of,
    read_page,
    read_status,
    size_of,
)
from blocks.providers.calls import WITHIN_A_DAY, Calls, Dialect
from blocks.providers.lenient import id_of, mapping, string, time_of, unexpected
from blocks.providers.reading import Reading, promised_by
from blocks.providers.reconciling import CLOCK_SLACK, SETTLE, SLOWEST_UPLOAD, Search, keep_one, readable
from blocks.transport import OutOfMoney

log = logging.getLogger("batchwerk.anthropic")

BASE_URL = "https://api.anthropic.com"
PATHS = {
    "batches": "/v1/messages/batches",
    "batch": "/v1/messages/batches/{id}",
    "results": "/v1/messages/batches/{id}/results",
    "cancel": "/v1/messages/batches/{id}/cancel",
}
UNFINISHED = {"in_progress", "canceling"}  # states of batches that have no results yet (§2.3)
GONE = ""  # in the place of the first custom_id of results that are not kept any more
SHORTEST_SLACK = 60.0  # seconds between the times that a batch may have been made, and those that are told
BATCHES_PAGE = 1000  # the most that a list gives (§2.2)


_creating: dict[str, Lock] = {}  # one for each key at an address; creates of this process go one after another


def _read_error(body: Any) -> Complaint:
    """An error body (§2.7)."""
    _, code, message = error_of(body)
    return Complaint(code or None, message)


DIALECT = Dialect("anthropic", PATHS, read_status, _read_error)


class Anthropic(Calls):
    """Anthropic's calls. Nothing can be attached to a batch, so one is known again by its results only (§1.1).

    `settle`: seconds for which a batch that no list shows may still appear.
    """

    dialect = DIALECT
    polling = WITHIN_A_DAY

    def __init__(
        self,
        api_key: str,
        base_url: str = BASE_URL,
        *,
        polling: PollPlan | None = None,
        version: str = VERSION,
        auth: str = AUTH,
        cache: str = CACHE,
        settle: float = SETTLE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cache = cache
        self._first_ids: dict[str, str] = {}  # of batches whose results were looked into: the first custom_id
        self._pauses: dict[str, float] = {}  # of lost batches that are waited for, by tag
        base_url = base_url.rstrip("/").removesuffix("/v1")  # our paths begin with it; elsewhere the address ends in it
        place = hashlib.sha256(f"{base_url}\n{api_key}".encode()).hexdigest()
        self._turn = _creating.setdefault(place, Lock())
        named = {"authorization": f"Bearer {api_key}"} if auth == "bearer" else {"x-api-key": api_key}
        headers = {**named, "anthropic-version": version}
        super().__init__(
            headers, base_url, api_key, polling=polling, settle=settle, clock=clock, out_of_money=_money_rule(base_url)
        )

    def submit(self, batch: EncodedBatch, form: RequestForm) -> str:  # noqa: ARG002  # the form is in the body
        """Send the body, when no other create under this key is on its way."""
        with self._turn:
            create = partial(self._http.create, self._path("batches"), batch.path, batch.bytes, {})
            return self._created(batch.tag, create)

    def find(self, batch: EncodedBatch, form: RequestForm) -> Found | None:  # noqa: ARG002  # its tag is enough
        """Look into the results of batches of the right age and size; None once none can be it (§1.1).

        One that has not ended can't be told from others: raises UnknownOutcome until it has, unless another is ours.
        """
        search = Search(batch, marks=False)
        candidates: dict[str, Mapping[str, Any]] = {}
        for item in readable(search, self._listed(batch, search)):
            search.note(id_of(item), None, partial(read_status, item))
            if _may_be(item, batch) and self._is_of_the_time(item, batch):
                candidates[id_of(item)] = item
        first_ids = {named: self._first_id(item) for named, item in candidates.items()}
        ours = [named for named, first in first_ids.items() if first is not None and first.startswith(f"{batch.tag}-")]
        if ours:
            return keep_one(self.name, [read_status(candidates[named]) for named in ours], batch.tag, self.cancel)
        waited_for = sorted(named for named, first in first_ids.items() if first is None)
        if waited_for:
            raise self._not_told_yet(batch.tag, waited_for)
        where = f": it has {counted(batch.requests, 'request')}"
        if gone := sorted(named for named, first in first_ids.items() if first == GONE):
            raise CantTell(
                f"anthropic can't tell whether the batch tagged {batch.tag} was accepted: it may be "
                f"{' or '.join(gone)}, whose results are gone",
                next_step=f"look for it at the provider{where}",
                provider=self.name,
            )
        self._settling.check(batch, search, where=where)
        return None

    def _is_of_the_time(self, item: Mapping[str, Any], batch: EncodedBatch) -> bool:
        """Whether a batch was made when the lost one may have been, by the service's clock; or does not say when."""
        at, sent = _made_at(item), batch.sent_at + self._http.clock_ahead
        shortest = SHORTEST_SLACK if self._http.clock_is_known else CLOCK_SLACK
        slack = max(self._settling.seconds, shortest)
        return at is None or sent - slack <= at <= sent + slack + batch.bytes / SLOWEST_UPLOAD

    def _first_id(self, item: Mapping[str, Any]) -> str | None:
        """The first custom_id of a batch's results: it tells whose they are. None while it can't be read.

        `GONE` for results that are gone for good: whose they were can't be told any more.
        """
        named = id_of(item)
        if named in self._first_ids:
            return self._first_ids[named]
        if string(item.get("archived_at")):
            return GONE
        if string(item.get("processing_status")) in UNFINISHED:
            return None
        try:  # also in a state that we don't know: one that stays would be waited for without end
            found = self._http.first(self._path("results", named), custom_id_of)
        except (NotFound, BatchRefused):  # not yet there to be read
            return None
        if found is not None:
            self._first_ids[named] = found
        return found

    def _not_told_yet(self, tag: str, candidates: list[str]) -> UnknownOutcome:
        """To be asked again when a batch would be polled again."""
        before = self._pauses.get(tag)
        self._pauses[tag] = pause = self.polling.first if before is None else self.polling.next_pause(before)
        return UnknownOutcome(
            f"anthropic can't tell yet whether the batch tagged {tag} was accepted: it may be "
            f"{' or '.join(candidates)}, whose results will show it",
            next_step="nothing needs to be done; the same command goes on from here",
            provider=self.name,
            retry_after=pause,
        )

    def _listed(self, batch: EncodedBatch, search: Search) -> Iterator[Mapping[str, Any]]:
        """Batches of the key's workspace, newest first, back to the sending and to one that is known to be ours."""
        params: dict[str, str | int] = {"limit": BATCHES_PAGE}
        more = True
        while more:
            items, more = read_page(self._http.get(self._path("batches"), **params))
            yield from items
            times = [at for item in items if (at := _made_at(item)) is not None]
            last = id_of(items[-1]) if items else ""
            if more and last in {"", params.get("after_id")}:
                search.broke_off()
                return
            more = more and not (times and max(times) < self._since(batch) and search.is_proof)
            params["after_id"] = last

    def results(self, batch_id: str, form: RequestForm) -> Iterator[Answer]:
        """The lines of the results, read at our own base URL: the batch names an address, and a key goes to no other.

        Raises NotFound where they are archived, 29 days after the batch was made, or not there.
        """
        batch = mapping(self._http.get(self._path("batch", batch_id)))
        if not id_of(batch):
            raise unexpected(self.name, "a batch without its id")
        if string(batch.get("archived_at")):
            raise NotFound(
                f"anthropic no longer has the results of {batch_id}: it keeps them for 29 days",
                next_step="what was collected before is kept",
                provider=self.name,
            )
        reader = AnswerReader(form, self._cache)
        promised = promised_by(mapping(batch.get("request_counts")), "succeeded", "errored")
        reading = Reading(self.name, f"the batch {batch_id}", promised, only_run=True)
        yield from reading.lines(self._http.lines(self._path("results", batch_id)), reader.read)
        reading.check()


def _may_be(item: Mapping[str, Any], batch: EncodedBatch) -> bool:
    """Whether a batch of the list may be the one that was sent; one whose size can't be read may be."""
    named = id_of(item)
    return bool(named) and named not in batch.others and size_of(item) in {None, batch.requests}


def _made_at(item: Mapping[str, Any]) -> float | None:
    at = time_of(item.get("created_at"))
    return at.timestamp() if at else None


def _money_rule(base_url: str) -> OutOfMoney:
    """Anthropic's 429 that names no time to wait is the monthly limit: waiting is of no use (§2.7).

    A gateway's says nothing of the kind.
    """
    is_own_host = urlsplit(base_url).hostname == urlsplit(BASE_URL).hostname

    def out_of_money(status: int, code: str | None, retry_after: float | None) -> bool:
        return code in SPEND_CODES or (is_own_host and status == 429 and retry_after is None)

    return out_of_money
