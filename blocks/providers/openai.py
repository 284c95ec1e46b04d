"""OpenAI's batch dialect: a file of requests is uploaded, a batch made from it, and two files of answers are read.

The section numbers are those of the PROTOCOLS reference, §3 (OpenAI), §1.1 (a create whose answer was lost) and §7
(other services that speak the same dialect). What is sent keeps to the reference; what is read may be anything:
absent and null fields, upper-case states, `{}` for null, unknown words.

The codec is pure and stands on top; the calls follow.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
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
    Obstacle,
    PollPlan,
    RequestForm,
    Usage,
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
    joined,
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
from blocks.providers.schemas import ANY_NUMBER, NotStrict, Subset, narrowed
from blocks.transport import Complaint, Transport

log = logging.getLogger("batchwerk.openai")

BASE_URL = "https://api.openai.com/v1"
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"  # what a batch's requests call
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

LIMITS = Limits(  # §3.6
    max_requests=50_000,
    max_bytes=200_000_000,
    submissions_per_hour=2_000,
)

CODES = Codes(  # of rows (§3.5)
    not_run={"batch_expired", "batch_cancelled", "batch_canceled"},
    terminal={
        "context_length_exceeded",
        "invalid_prompt",
        "invalid_request_error",
        "model_not_found",
        "string_above_max_length",
    },
    filtered={"content_filter", "content_policy_violation"},
)
SPEND_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
OBSTACLES = {"token_limit_exceeded": Obstacle.QUEUE_FULL, "too_many_tasks": Obstacle.TOO_LARGE}  # of batches (§3.4)

# The subset that OpenAI's guide "Structured Outputs", section "Supported schemas", names (read February 2026).
STRICT = Subset(
    bounds=("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    formats={"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"},
    patterns=True,
    most_items=ANY_NUMBER,
    recursive=True,
    deepest=10,
    most_properties=5000,
    most_choices=1000,
)

# --- requests -------------------------------------------------------------------------------------------------------


class OpenAICodec:
    """JSONL of `{"custom_id", "method", "url", "body"}`, bodies of chat completions or of responses (§3.3)."""

    head = b""
    separator = b"\n"
    tail = b"\n"

    def __init__(self, form: RequestForm, endpoint: str = CHAT) -> None:
        before, after = _chat_body(form) if endpoint == CHAT else _responses_body(form)
        self._between = b'","method":"POST","url":%b,"body":%b' % (orjson.dumps(endpoint), before)
        self._end = b"}]" + following(after) + b"}}"
        self._longer_end = b"}]" + following(with_more_tokens(after)) + b"}}"
        self._form = form

    def encode(self, custom_id: str, prompt: str, correction: str | None = None, *, longer: bool = False) -> bytes:
        """One request; only the prompt itself is escaped anew, all else was when the format was made."""
        line = b'{"custom_id":"' + custom_id.encode() + self._between + orjson.dumps(prompt)
        if correction:
            line += b'},{"role":"user","content":' + orjson.dumps(correction_note(correction, self._form))
        return line + (self._longer_end if longer else self._end)


def _chat_body(form: RequestForm) -> tuple[bytes, dict[str, Any]]:
    """A body up to the prompt, and the members that follow its messages."""
    after: dict[str, Any] = {} if form.temperature is None else {"temperature": form.temperature}
    if form.max_output_tokens is not None:
        after["max_completion_tokens"] = form.max_output_tokens
    if form.schema is not None:
        after["response_format"] = {"type": "json_schema", "json_schema": _answer_format(form.schema)}
    system = {"role": "system", "content": form.system} if form.system else None
    return up_to_prompt({"model": form.model}, "messages", system), after


def _responses_body(form: RequestForm) -> tuple[bytes, dict[str, Any]]:
    """The same for responses, which the service is asked not to keep."""
    before: dict[str, Any] = {"model": form.model, "store": False}
    if form.system:
        before["instructions"] = form.system
    after: dict[str, Any] = {} if form.temperature is None else {"temperature": form.temperature}
    if form.max_output_tokens is not None:
        after["max_output_tokens"] = form.max_output_tokens
    if form.schema is not None:
        after["text"] = {"format": {"type": "json_schema", **_answer_format(form.schema)}}
    return up_to_prompt(before, "input", None), after


def _answer_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Strict where the schema can be said strictly, else as it is, for the model to follow as well as it can."""
    try:
        return {"name": "answer", "strict": True, "schema": narrowed(schema, STRICT)}
    except NotStrict:
        return {"name": "answer", "strict": False, "schema": schema}


# --- batches --------------------------------------------------------------------------------------------------------

_PHASES = {
    "completed": BatchPhase.ENDED,
    "expired": BatchPhase.ENDED,
    "cancelled": BatchPhase.ENDED,
    "canceled": BatchPhase.ENDED,
    "failed": BatchPhase.FAILED,
}


def read_status(body: Any) -> BatchStatus:
    """A batch object (§3.4). A state that we don't know counts as running: nothing may be concluded from it."""
    batch = _batch_of(body)
    named = id_of(batch)
    if not named:
        raise _unexpected("a batch without its id")
    wording = string(batch.get("status")) or "unknown"
    phase = _PHASES.get(wording.lower(), BatchPhase.RUNNING)
    if phase is BatchPhase.FAILED and string(batch.get("output_file_id")):
        phase = BatchPhase.ENDED  # not OpenAI's way; but what was answered was paid
    counts = mapping(batch.get("request_counts"))
    total, parts = counts.get("total"), [counts.get("completed"), counts.get("failed")]
    known = [part for part in parts if is_count(part)]
    code, error = _errors_of(batch)
    return BatchStatus(
        id=named,
        phase=phase,
        wording=wording,
        total=total if is_count(total) and total else None,  # 0 while it is validated
        done=sum(known) if known else None,
        error=error,
        created_at=time_of(batch.get("created_at")),
        obstacle=OBSTACLES.get(code or ""),
    )


def _batch_of(body: Any) -> Mapping[str, Any]:
    """A batch, also where it comes wrapped: Together answers a create with `{"job", "warning"}` (§7)."""
    batch = mapping(body)
    return mapping(batch.get("job")) if "id" not in batch and "job" in batch else batch


def id_of(body: Mapping[str, Any]) -> str:
    """The id that an answer names; empty where it names none."""
    return string(body.get("id"))


def _errors_of(batch: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The code and the sentence of a batch's errors, the one that may pass first; codes lead the sentence."""
    errors = batch.get("errors") or batch.get("error")
    data = errors.get("data") if isinstance(errors, Mapping) and "data" in errors else errors
    listed = [data] if isinstance(data, Mapping | str) else data
    found = [_error_of(error) for error in listed if error] if isinstance(listed, list) else []
    if not found:
        return None, None
    found.sort(key=lambda error: OBSTACLES.get(error[0]) is not Obstacle.QUEUE_FULL)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    code, message = found[0]
    said = ": ".join(part for part in (code, message) if part)
    return code or None, f"{said or 'no reason given'}{more}"


def _error_of(error: Any) -> tuple[str, str]:
    """Code and message of an error in any of its forms; the code of one that has none is its type."""
    if not isinstance(error, Mapping):
        return "", string(error)
    line = f" (line {error['line']})" if is_count(error.get("line")) else ""
    code = error.get("code")
    named = str(code) if type(code) is int else string(code)
    return named or string(error.get("type")), f"{string(error.get('message'))}{line}"


def read_page(page: Any) -> tuple[list[Mapping[str, Any]], bool]:
    """A page of a list and whether there are more."""
    items = page.get("data") if isinstance(page, Mapping) else page
    if not isinstance(items, list):
        raise _unexpected("a list that is none")
    return [item for item in items if isinstance(item, Mapping)], isinstance(page, Mapping) and bool(
        page.get("has_more")
    )


def _unexpected(what: str) -> Transient:
    return Transient(
        f"openai answered with {what}",
        next_step="run the same command again: it goes on from here",
        provider="openai",
    )


# --- answers --------------------------------------------------------------------------------------------------------


def read_line(line: bytes, form: RequestForm) -> Answer | None:
    """A line of an output or error file; None for one that can't be read or names no request."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    custom_id = row.get("custom_id") if isinstance(row, dict) else None
    return Answer(custom_id, *_outcome(row, form)) if isinstance(custom_id, str) and custom_id else None


def _outcome(row: Mapping[str, Any], form: RequestForm) -> Outcome:
    """The five kinds of line (§3.5): answered, refused with an HTTP status, expired or cancelled, timed out, unsaid."""
    response = mapping(row.get("response"))
    body = body_of(response.get("body"))
    usage = usage_of(body.get("usage"))
    if row.get("error"):
        return None, usage, error_failure(*_error_of(row["error"]), CODES)
    status = response.get("status_code")
    if type(status) is int and status not in range(200, 300):
        return None, usage, status_failure(status, *_error_of(body.get("error")), CODES)
    if body.get("error"):
        return None, usage, error_failure(*_error_of(body["error"]), CODES)
    if "choices" in body:
        return read_chat(body, usage, form)
    if "output" in body:
        return _read_response(body, usage, form)
    return None, usage, transient("no_answer", "the provider gave neither an answer nor a reason")


def _read_response(body: Mapping[str, Any], usage: Usage | None, form: RequestForm) -> Outcome:
    """`output[*].content[*]`; anything that is not complete has no answer."""
    items = [mapping(item) for item in body["output"]] if isinstance(body["output"], list) else []
    parts = [part for item in items for part in array(item.get("content"))]
    for part in map(mapping, parts):
        if part.get("type") == "refusal":
            return None, usage, Failure(FailureKind.REFUSED, "refusal", string(part.get("refusal")))
    state = string(body.get("status")) or "completed"
    if state != "completed":
        reason = mapping(body.get("incomplete_details")).get("reason")
        return None, usage, stopped(reason, form) or transient(state, string(reason))
    return joined(parts), usage, None


def read_error(body: Any) -> Complaint:
    """`{"error": {"message", "type", "param", "code"}}`; without a code the type stands for it."""
    code, message = _error_of(mapping(body).get("error"))
    return Complaint(code or None, message)


# --- calls ----------------------------------------------------------------------------------------------------------

_KEY = re.compile(r"\bsk-[\w*.…-]+")  # OpenAI repeats a wrong key, masked in the middle; others may not mask it


class OpenAI:
    """OpenAI's calls. A batch carries its tag as metadata and in the name of its file, so that it can be found again.

    `settle`: seconds for which a batch that no list shows may still appear (§1.1).
    """

    name = "openai"
    verified_lookup = True
    polling = PollPlan(first=60.0, factor=1.5, longest=300.0, patience=26 * 3600.0)  # §11; a batch ends within a day

    def __init__(
        self,
        api_key: str,
        base_url: str = BASE_URL,
        *,
        limits: Limits = LIMITS,
        polling: PollPlan | None = None,
        endpoint: str = CHAT,
        settle: float = SETTLE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits
        self.polling = polling or self.polling
        self._endpoint = endpoint
        self._settling = Settling(self.name, settle, clock)
        self._key = api_key
        headers = {"authorization": f"Bearer {api_key}"}
        self._http = Transport(self.name, base_url, headers, self._read_error, out_of_money=_out_of_money)

    def format(self, form: RequestForm) -> OpenAICodec:
        """How to encode requests of this form."""
        return OpenAICodec(form, self._endpoint)

    def submit(self, batch: EncodedBatch, form: RequestForm) -> str:  # noqa: ARG002  # the form is in the body
        """Upload the file, which may be done twice, then make a batch of it, which may not."""
        fields = {"purpose": "batch"}
        file = self._http.upload(PATHS["files"], fields, batch.path, batch.bytes, _filename(batch.tag))
        file_id = id_of(mapping(file))
        if not file_id:
            raise _unexpected("a file without its id")
        return self._create(file_id, batch.tag)

    def _create(self, file_id: str, tag: str) -> str:
        order = {
            "input_file_id": file_id,
            "endpoint": self._endpoint,
            "completion_window": WINDOW,
            "metadata": {METADATA_KEY: tag},
        }
        try:
            answer = self._http.create_json(PATHS["batches"], order)
        except UnknownOutcome:
            self._settling.note_lost(tag)
            raise
        if named := id_of(_batch_of(answer)):
            return named
        self._settling.note_lost(tag)
        raise UnknownOutcome("openai accepted a batch and named no id for it", provider=self.name)

    def find(self, batch: EncodedBatch, form: RequestForm) -> Found | None:  # noqa: ARG002  # the tag is enough
        """Look the tag up in the lists; None once it can't appear there any more (§1.1)."""
        since = batch.sent_at - CLOCK_SLACK
        files = [file for file in self._listed("files", since) if file.get("filename") == _filename(batch.tag)]
        file_ids = {id_of(file) for file in files} - {""}
        listed = (item for item in self._listed("batches", since) if _is_ours(item, batch.tag, file_ids))
        found = {id_of(item): read_status(item) for item in listed}  # a list that moves may show one twice
        if found:
            return keep_one(self.name, found.values(), batch.tag, self.cancel)
        uploads = [at.timestamp() for file in files if (at := time_of(file.get("created_at")))]
        self._settling.check(batch, uploads, where=f": its file is called {_filename(batch.tag)}")
        return None

    def _listed(self, kind: str, since: float) -> Iterator[Mapping[str, Any]]:
        """Files or batches, newest first, back to a time."""
        params: dict[str, str | int] = {"limit": BATCHES_PAGE}
        if kind == "files":
            params = {"purpose": "batch", "order": "desc", "limit": FILES_PAGE}
        last, more = "", True
        while more:
            items, more = read_page(self._http.get(PATHS[kind], **params))
            yield from items
            times = [at.timestamp() for item in items if (at := time_of(item.get("created_at")))]
            before, last = last, id_of(items[-1]) if items else ""
            more = more and last not in {"", before} and not (times and max(times) < since)
            params["after"] = last

    def poll(self, batch_id: str) -> BatchStatus:
        """Where the batch stands."""
        return read_status(self._http.get(PATHS["batch"].format(id=batch_id)))

    def results(self, batch_id: str, form: RequestForm) -> Iterator[Answer]:
        """The lines of the output file, then those of the error file that are about other requests.

        Counters are not looked at (§3.5): which requests have no line is for whoever sent them to count. Of a batch
        the ids alone are kept in memory, and only where there are two files.
        """
        batch = _batch_of(self._http.get(PATHS["batch"].format(id=batch_id)))
        if not id_of(batch):
            raise _unexpected("a batch without its id")
        output, errors = string(batch.get("output_file_id")), string(batch.get("error_file_id"))
        if not output and not errors:
            log.warning("openai: the batch %s has neither an output nor an error file", batch_id)
        answered: set[str] = set()
        for answer in self._answers(output, form):
            if errors:
                answered.add(answer.custom_id)
            yield answer
        for answer in self._answers(errors, form):
            if answer.custom_id not in answered:
                yield answer

    def _answers(self, file_id: str, form: RequestForm) -> Iterator[Answer]:
        """The answers of a file; none where there is no file."""
        unreadable = 0
        for line in self._http.lines(PATHS["content"].format(id=file_id)) if file_id else ():
            answer = read_line(line, form)
            if answer is not None:
                yield answer
            elif line.strip():
                unreadable += 1
        if unreadable:
            log.warning("openai: %d lines of %s can't be read and were skipped", unreadable, file_id)

    def cancel(self, batch_id: str) -> BatchStatus:
        """Ask to stop; finished rows are kept and paid. A batch that has ended by then is told as it is."""
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
        """`read_error` without the key, which some services repeat."""
        code, message, _ = read_error(body)
        return Complaint(code, _KEY.sub("sk-…", message.replace(self._key, "…") if self._key else message))


def _filename(tag: str) -> str:
    return f"batchwerk-{tag}.jsonl"


def _is_ours(batch: Mapping[str, Any], tag: str, file_ids: set[str]) -> bool:
    """By metadata, or by the file it was made from where a service drops metadata."""
    return mapping(batch.get("metadata")).get(METADATA_KEY) == tag or string(batch.get("input_file_id")) in file_ids


def _out_of_money(status: int, code: str | None, retry_after: float | None) -> bool:  # noqa: ARG001  # not by these
    return code in SPEND_CODES


ENTRY = ProviderEntry(
    name="openai",
    title="OpenAI",
    service="OpenAI's batch API, or that of a service that speaks its dialect",
    key_variable="OPENAI_API_KEY",
    base_url=BASE_URL,
    base_url_help="Where the API is; most addresses end in /v1.",
    limits=LIMITS,
    client=OpenAI,
    codec=OpenAICodec,
    options=(
        Option("endpoint", "The endpoint that each request of a batch calls.", (CHAT, RESPONSES), in_codec=True),
        SETTLE_OPTION,
    ),
)
