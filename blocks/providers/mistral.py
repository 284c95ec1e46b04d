"""Mistral's batch jobs: small ones carry their requests with them, large ones refer to a file that was uploaded.

The section numbers are those of the PROTOCOLS reference, §4 (Mistral) and §1.1 (a create whose answer was lost). What
the lines of error files, partial results and errors look like is not documented: what is read may be anything.

The codec is pure and stands on top; the calls follow.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from blocks.batch import (
    Answer,
    BatchPhase,
    BatchStatus,
    EncodedBatch,
    Failure,
    FailureKind,
    Found,
    Limits,
    PollPlan,
    RequestForm,
)
from blocks.entries import SETTLE as SETTLE_OPTION
from blocks.entries import Option, ProviderEntry
from blocks.errors import BatchRefused, Transient, UnknownOutcome
from blocks.providers.chat import (
    Codes,
    Outcome,
    body_of,
    correction_note,
    error_failure,
    following,
    read_chat,
    status_failure,
    stopped,
    transient,
    up_to_prompt,
    usage_of,
    with_more_tokens,
)
from blocks.providers.lenient import array, is_count, mapping, string, time_of
from blocks.providers.reconciling import CLOCK_SLACK, SETTLE, Settling, keep_one
from blocks.providers.schemas import NotStrict, Subset, as_words, narrowed
from blocks.transport import Complaint, Transport

log = logging.getLogger("batchwerk.mistral")

BASE_URL = "https://api.mistral.ai"
CHAT = "/v1/chat/completions"  # what a job's requests call
PATHS = {
    "files": "/v1/files",
    "content": "/v1/files/{id}/content",
    "jobs": "/v1/batch/jobs",
    "job": "/v1/batch/jobs/{id}",
    "cancel": "/v1/batch/jobs/{id}/cancel",
}
METADATA_KEY = "batchwerk"  # under which a job carries our tag
TIMEOUT_HOURS = 24
PAGE = 100  # items of a list
AUTO, NEVER = "auto", "never"  # when requests are sent within the order for a job
INLINE_REQUESTS = 9_999  # §4: fewer than 10,000
INLINE_BYTES = 8_000_000  # [ours]; such an order is put together in memory

LIMITS = Limits(
    # [ours]; a file may have 1,000,000, but answers come only when the whole job is done, and that many would be all
    # that a workspace may have pending.
    max_requests=100_000,
    max_bytes=500_000_000,  # [?]; the API's reference says 512 MB of any file
    max_queued_requests=1_000_000,
)

CODES = Codes(  # of rows; the documentation names none of them [?]
    not_run={"batch_cancelled", "batch_expired", "cancelled", "canceled", "expired", "timeout_exceeded"},
    terminal={
        "context_length_exceeded",
        "extra_forbidden",
        "invalid_model",
        "invalid_request_error",
        "validation_error",
    },
    filtered={"content_filter", "content_policy_violation"},
)
SPEND_CODES = {"insufficient_quota"}  # of calls, as OpenAI says it [?]: waiting is of no use

# Mistral does not say which words it takes [?]. Without any of the optional ones an answer still gets its form; a word
# that is refused would cost all rows of a job.
STRICT = Subset()

# --- requests -------------------------------------------------------------------------------------------------------


class MistralCodec:
    """JSONL of `{"custom_id", "body"}`, bodies of chat completions without the model, which the job names (§4)."""

    head = b""
    separator = b"\n"
    tail = b"\n"

    def __init__(self, form: RequestForm) -> None:
        system, answer = _spoken(form)
        first = {"role": "system", "content": system} if system else None
        after: dict[str, Any] = {} if form.temperature is None else {"temperature": form.temperature}
        if form.max_output_tokens is not None:
            after["max_tokens"] = form.max_output_tokens
        if answer is not None:
            after["response_format"] = answer
        self._form = form
        self._between = b'","body":' + up_to_prompt({}, "messages", first)
        self._end = b"}]" + following(after) + b"}}"
        self._longer_end = b"}]" + following(with_more_tokens(after)) + b"}}"

    def encode(self, custom_id: str, prompt: str, correction: str | None = None, *, longer: bool = False) -> bytes:
        """One request; only the prompt itself is escaped anew, all else was when the format was made."""
        line = b'{"custom_id":"' + custom_id.encode() + self._between + orjson.dumps(prompt)
        if correction:
            line += b'},{"role":"user","content":' + orjson.dumps(correction_note(correction, self._form))
        return line + (self._longer_end if longer else self._end)


def _spoken(form: RequestForm) -> tuple[str | None, dict[str, Any] | None]:
    """The system text and the format of the answer; a schema that can't be given strictly is said in words."""
    if form.schema is None:
        return form.system, None
    try:
        strict = {"name": "answer", "strict": True, "schema": narrowed(form.schema, STRICT)}
    except NotStrict:
        texts = [form.system, as_words(form.schema)]
        return "\n\n".join(text for text in texts if text), {"type": "json_object"}
    return form.system, {"type": "json_schema", "json_schema": strict}


def inline_order(order: Mapping[str, Any], body: Path) -> bytes:
    """The order for a job that carries its requests, which stand in a file as lines: these become a list.

    It is never parsed: within a line there is no line break, as JSON escapes them.
    """
    requests = body.read_bytes().rstrip(b"\n").replace(b"\n", b",")
    return b"".join([orjson.dumps(order)[:-1], b',"requests":[', requests, b"]}"])


# --- jobs -----------------------------------------------------------------------------------------------------------

_PHASES = {
    "SUCCESS": BatchPhase.ENDED,
    "TIMEOUT_EXCEEDED": BatchPhase.ENDED,
    "CANCELLED": BatchPhase.ENDED,
    "CANCELED": BatchPhase.ENDED,
    "FAILED": BatchPhase.FAILED,
}


def read_status(body: Any) -> BatchStatus:
    """A job (§4). A state that we don't know counts as running: nothing may be concluded from it."""
    job = mapping(body)
    named = id_of(job)
    if not named:
        raise _unexpected("a job without its id")
    wording = string(job.get("status")) or "unknown"
    phase = _PHASES.get(wording.upper(), BatchPhase.RUNNING)
    if phase is BatchPhase.FAILED and _has_answers(job):
        phase = BatchPhase.ENDED
    total, done = job.get("total_requests"), job.get("completed_requests")
    return BatchStatus(
        id=named,
        phase=phase,
        wording=wording,
        total=total if is_count(total) and total else None,  # 0 while it is validated
        done=done if is_count(done) else None,
        error=_errors_of(job),
        created_at=time_of(job.get("created_at")),
        early=phase is BatchPhase.ENDED and wording.upper() != "SUCCESS",  # the rest stands in neither file
    )


def id_of(body: Mapping[str, Any]) -> str:
    """The id that an answer names; empty where it names none."""
    return string(body.get("id"))


def _has_answers(job: Mapping[str, Any]) -> bool:
    """Whether something can be read of a job that failed: what was answered was paid."""
    succeeded = job.get("succeeded_requests")
    files = string(job.get("output_file")) or string(job.get("error_file"))
    return bool(files or array(job.get("outputs")) or (is_count(succeeded) and succeeded))


def _errors_of(job: Mapping[str, Any]) -> str | None:
    """What went wrong in a job, from `[{"message", "count"}]`: the most frequent, and how many there are beside it."""
    found = [error for error in array(job.get("errors")) if isinstance(error, str) or mapping(error)]
    if not found:
        return None
    message, times = max(map(_counted, found), key=lambda error: error[1])
    said = f"{message or 'no reason given'}{f' ({times} times)' if times > 1 else ''}"
    return f"{said} (and {len(found) - 1} more)" if len(found) > 1 else said


def _counted(error: Any) -> tuple[str, int]:
    times = mapping(error).get("count")
    return complaint_of(error)[1], times if is_count(times) else 1


def read_page(page: Any) -> tuple[list[Mapping[str, Any]], int | None]:
    """A page of a list, and how many items the whole list has where it says so."""
    items, total = mapping(page).get("data"), mapping(page).get("total")
    if not isinstance(items, list):
        raise _unexpected("a list that is none")
    return [item for item in items if isinstance(item, Mapping)], total if is_count(total) else None


def _unexpected(what: str) -> Transient:
    return Transient(
        f"mistral answered with {what}",
        next_step="run the same command again: it goes on from here",
        provider="mistral",
    )


def complaint_of(error: Any, deepest: int = 4) -> tuple[str, str]:
    """Code and message of an error in any of its forms (§4); the code of one that has none is its type.

    Forms: a text; `{"object": "error", "message", "type", "code"}`, its message perhaps an error of the next form;
    `{"detail": [{"loc", "msg", "type"}]}`; either of them under `error`.
    """
    if isinstance(error, list):
        return _violations(error)
    if not isinstance(error, Mapping):
        return "", string(error)
    for member in ("detail", "error", "message"):
        if deepest and isinstance(error.get(member), list | Mapping):
            code, message = complaint_of(error[member], deepest - 1)
            return _code_of(error) or code, message
    message = string(error.get("message")) or string(error.get("detail")) or string(error.get("error"))
    return _code_of(error), message


def _code_of(error: Mapping[str, Any]) -> str:
    """A word says more than one of Mistral's numbers."""
    code, kind = error.get("code"), string(error.get("type"))
    named = str(code) if type(code) is int else string(code)
    return kind if kind and (not named or named.isdecimal()) else named


def _violations(found: list[Any]) -> tuple[str, str]:
    """The first of the violations that a validation found, and how many more there are; never their `input`."""
    parts = [mapping(part) for part in found]
    if not parts:
        return "", ""
    place = ".".join(str(step) for step in array(parts[0].get("loc")) if isinstance(step, str | int))
    said = ": ".join(part for part in (place, string(parts[0].get("msg"))) if part)
    return string(parts[0].get("type")), f"{said} (and {len(parts) - 1} more)" if len(parts) > 1 else said


def read_error(body: Any) -> Complaint:
    """The body of a refusal."""
    code, message = complaint_of(body)
    return Complaint(code or None, message)


# --- answers --------------------------------------------------------------------------------------------------------


def read_line(line: bytes, form: RequestForm) -> Answer | None:
    """A line of an output or error file; None for one that can't be read or names no request."""
    try:
        return read_row(orjson.loads(line), form)
    except orjson.JSONDecodeError:
        return None


def read_row(row: Any, form: RequestForm) -> Answer | None:
    """The same, parsed: as it comes within a job."""
    custom_id = string(mapping(row).get("custom_id"))
    return Answer(custom_id, *_outcome(row, form)) if custom_id else None


def _outcome(row: Mapping[str, Any], form: RequestForm) -> Outcome:
    """Answered, refused with an HTTP status, failed with a reason, or nothing said (§4)."""
    response = mapping(row.get("response"))
    body = body_of(response.get("body"))
    usage = usage_of(body.get("usage"))
    status = response.get("status_code")
    refused = status if type(status) is int and status not in range(200, 300) else None
    if row.get("error") or refused is not None:
        return None, usage, _failure(row.get("error") or body, refused)
    if "choices" in body:
        return read_chat(body, usage, form, _stopped)
    if body:
        return None, usage, _failure(body, None)
    return None, usage, transient("no_answer", "the provider gave neither an answer nor a reason")


def _failure(error: Any, status: int | None) -> Failure:
    """An error by its HTTP status, where it has one and its code does not say more."""
    code, message = complaint_of(error)
    failure = error_failure(code, message, CODES)
    if status is None or failure.kind in {FailureKind.NOT_RUN, FailureKind.FILTERED}:
        return failure
    return status_failure(status, code, message, CODES)


def _stopped(reason: Any, form: RequestForm) -> Failure | None:
    """Mistral's own reasons beside those that all chat completions have."""
    if reason == "model_length":
        return Failure(FailureKind.TERMINAL, "length", "the answer was cut off at the model's own limit")
    if reason == "error":
        return transient("error", "the model failed while it answered")
    return stopped(reason, form)


# --- calls ----------------------------------------------------------------------------------------------------------


class Mistral:
    """Mistral's calls. A job carries its tag as metadata, so that it can be found again.

    `inline`: `auto` sends small batches within the order for the job, `never` always by file. `settle`: seconds for
    which a job that no list shows may still appear (§1.1).
    """

    name = "mistral"
    verified_lookup = True
    polling = PollPlan(first=60.0, factor=1.5, longest=300.0, patience=26 * 3600.0)  # §11; a job ends within a day

    def __init__(
        self,
        api_key: str,
        base_url: str = BASE_URL,
        *,
        limits: Limits = LIMITS,
        polling: PollPlan | None = None,
        inline: str = AUTO,
        settle: float = SETTLE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits
        self.polling = polling or self.polling
        self._inline = inline == AUTO
        self._settling = Settling(self.name, settle, clock)
        self._key = api_key
        headers = {"authorization": f"Bearer {api_key}"}
        # Our paths name the version; an address that is copied from elsewhere may name it as well.
        address = base_url.rstrip("/").removesuffix("/v1")
        self._http = Transport(self.name, address, headers, self._read_error, out_of_money=_out_of_money)

    def format(self, form: RequestForm) -> MistralCodec:
        """How to encode requests of this form."""
        return MistralCodec(form)

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
            return self._create(inline_order(order, batch.path), batch.tag)
        return self._create({**order, "input_files": [self._upload(batch)]}, batch.tag)

    def _upload(self, batch: EncodedBatch) -> str:
        """The id of a new file."""
        fields = {"purpose": "batch"}
        file = self._http.upload(PATHS["files"], fields, batch.path, batch.bytes, _filename(batch.tag))
        file_id = id_of(mapping(file))
        if not file_id:
            raise _unexpected("a file without its id")
        return file_id

    def _create(self, order: Mapping[str, Any] | bytes, tag: str) -> str:
        try:
            answer = self._http.create_json(PATHS["jobs"], order)
        except UnknownOutcome:
            self._settling.note_lost(tag)
            raise
        if named := id_of(mapping(answer)):
            return named
        self._settling.note_lost(tag)
        raise UnknownOutcome("mistral accepted a batch and named no id for it", provider=self.name)

    def find(self, batch: EncodedBatch, form: RequestForm) -> Found | None:  # noqa: ARG002  # the tag is enough
        """Look the tag up in the list of jobs; None once it can't appear there any more (§1.1)."""
        since = batch.sent_at - CLOCK_SLACK
        # An empty answer to a filter may be the filter's fault: the whole list is looked through as well.
        found = self._tagged(batch.tag, since, {METADATA_KEY: batch.tag}) or self._tagged(batch.tag, since, {})
        if found:
            return keep_one(self.name, found.values(), batch.tag, self.cancel)
        self._settling.check(batch, self._uploads(batch.tag), where=f": its metadata says {METADATA_KEY}={batch.tag}")
        return None

    def _tagged(self, tag: str, since: float, filters: Mapping[str, str]) -> dict[str, BatchStatus]:
        """The jobs with our tag, which is looked at here too: a server may ignore a filter that it does not know."""
        if since > 0:
            filters = {**filters, "created_after": datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
        listed = self._listed("jobs", since, {**filters, "order_by": "-created"})
        return {id_of(job): read_status(job) for job in listed if mapping(job.get("metadata")).get(METADATA_KEY) == tag}

    def _uploads(self, tag: str) -> list[float]:
        """When files of a batch with this tag were uploaded, in seconds since the epoch."""
        listed = self._listed("files", float("-inf"), {"purpose": "batch", "search": _filename(tag)})
        times = [time_of(file.get("created_at")) for file in listed if file.get("filename") == _filename(tag)]
        return [at.timestamp() for at in times if at is not None]

    def _listed(self, kind: str, since: float, filters: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        """Jobs or files, each once, back to a time where the list is newest first."""
        seen: set[str] = set()
        for page in count():
            items, total = read_page(self._http.get(PATHS[kind], page=page, page_size=PAGE, **filters))
            new = [item for item in items if id_of(item) and id_of(item) not in seen]
            yield from new
            seen.update(map(id_of, new))
            times = [at.timestamp() for item in items if (at := time_of(item.get("created_at")))]
            complete = len(items) < PAGE and total is not None and len(seen) >= total
            if not new or complete or (times and max(times) < since):
                return

    def poll(self, batch_id: str) -> BatchStatus:
        """Where the job stands."""
        return read_status(self._http.get(PATHS["job"].format(id=batch_id)))

    def results(self, batch_id: str, form: RequestForm) -> Iterator[Answer]:
        """What was answered, then the errors that are about other requests.

        Answers stand in a file or, of a job that has none, within it. Which requests are in neither is for whoever
        sent them to count. Of a job the ids alone are kept in memory, and only where there are errors.
        """
        job = mapping(self._http.get(PATHS["job"].format(id=batch_id)))
        if not id_of(job):
            raise _unexpected("a job without its id")
        errors = string(job.get("error_file"))
        answered: set[str] = set()
        for answer in self._answered(job, batch_id, form):
            if errors:
                answered.add(answer.custom_id)
            yield answer
        for answer in self._file(errors, form) if errors else ():
            if answer.custom_id not in answered:
                yield answer

    def _answered(self, job: Mapping[str, Any], batch_id: str, form: RequestForm) -> Iterator[Answer]:
        if output := string(job.get("output_file")):
            yield from self._file(output, form)
            return
        job = mapping(self._http.get(PATHS["job"].format(id=batch_id), inline="true"))
        rows = array(job.get("outputs"))
        if not rows and not string(job.get("error_file")):
            log.warning("mistral: the job %s has neither files nor outputs", batch_id)
        yield from _readable((read_row(row, form) for row in rows), batch_id)

    def _file(self, file_id: str, form: RequestForm) -> Iterator[Answer]:
        lines = self._http.lines(PATHS["content"].format(id=file_id))
        yield from _readable((read_line(line, form) for line in lines if line.strip()), file_id)

    def cancel(self, batch_id: str) -> BatchStatus:
        """Ask to stop; finished rows are kept and paid. A job that has ended by then is told as it is."""
        try:
            return read_status(self._http.post(PATHS["cancel"].format(id=batch_id)))
        except BatchRefused:
            status = self.poll(batch_id)
            if status.phase is BatchPhase.RUNNING:
                raise
            return status

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _read_error(self, body: Any) -> Complaint:
        """`read_error` without the key; Mistral's have no form by which another one could be known."""
        code, message, _ = read_error(body)
        return Complaint(code, message.replace(self._key, "…") if self._key else message)


def _filename(tag: str) -> str:
    return f"batchwerk-{tag}.jsonl"


def _out_of_money(status: int, code: str | None, retry_after: float | None) -> bool:  # noqa: ARG001  # not by these
    return code in SPEND_CODES


def _readable(answers: Iterable[Answer | None], where: str) -> Iterator[Answer]:
    """The answers that can be read; how many can't is told."""
    unreadable = 0
    for answer in answers:
        if answer is None:
            unreadable += 1
        else:
            yield answer
    if unreadable:
        log.warning("mistral: %d lines of %s can't be read and were skipped", unreadable, where)


ENTRY = ProviderEntry(
    name="mistral",
    title="Mistral",
    service="Mistral's batch jobs",
    key_variable="MISTRAL_API_KEY",
    base_url=BASE_URL,
    base_url_help="Where the API is, without /v1.",
    limits=LIMITS,
    client=Mistral,
    codec=MistralCodec,
    options=(
        Option("inline", "Whether small batches are sent without a file.", (AUTO, NEVER)),
        SETTLE_OPTION,
    ),
)
