"""The Gemini Developer API's batches: requests in the call or in a file, answers in an operation or in another file.

The section numbers are those of the PROTOCOLS reference, §5 (Gemini) and §1.1 (a create whose answer was lost).

**Whose answer it is.** Users saw this service deliver answers under the keys of other rows (§5). So where a job has a
schema, the schema of each request gets one more property, first and required, that can only be that request's own key:
the schema travels with its request, so an answer that was made under it says whose it is, under whatever key it comes.
That echo decides, and is taken out of the answer; an answer without it proves nothing and goes again. A schema that
can't be given to the service is said in words, and the value to echo stands at the end of the prompt. **Jobs without a
schema have no echo**: their answers are taken under the key that they come with.

The codec is pure and stands on top; the calls follow.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from blocks.batch import (
    LONGER,
    PORTABLE_ID,
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
from blocks.errors import BatchRefused, NotFound, Transient, UnknownOutcome
from blocks.providers.lenient import array, count_of, mapping, string, time_of
from blocks.providers.reconciling import CLOCK_SLACK, SETTLE, Settling, keep_one
from blocks.providers.schemas import NotStrict, Subset, as_words, narrowed
from blocks.transport import Complaint, Transport

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
SLOWEST_UPLOAD = 1_000_000  # [ours]; bytes a second of a file, to tell until when a batch may have been created

LIMITS = Limits(
    max_requests=100_000,  # [ours]; a batch that expires gives no answers at all, so not everything is put into one
    max_bytes=2_000_000_000,
    max_in_flight=100,
    max_queued_tokens=None,  # depends on the model and on the account's tier (§5): the user says it
)

# The words that the reference of `GenerationConfig.responseJsonSchema` names (read November 2026). It knows `maxItems`
# too, but a few of them make a schema that is refused without a reason (python-genai issue 2170): answers are checked
# afterwards in any case. References in a circle go with optional properties only, so they don't go.
STRUCTURED = Subset(
    bounds=("minimum", "maximum"),
    formats={"date-time", "date", "time"},
    most_items=1,
    all_required=False,
    plain_choices=True,
)
ECHO = "batchwerk_row"  # the property in which an answer says whose it is
ECHO_TOKENS = 64  # what the echo may add to an answer

# --- requests -------------------------------------------------------------------------------------------------------

# Stand in a template for what differs from request to request; no text that a person writes has such a sign.
_KEY, _PROMPT = "\0key", "\0prompt"
_KEY_MARK, _PROMPT_MARK = orjson.dumps(_KEY)[1:-1], orjson.dumps(_PROMPT)
_Template = tuple[list[bytes], list[bytes]]  # what stands before and after the prompt, cut where the key goes


class GeminiCodec:
    """JSONL of `{"key", "request"}`, where the schema of each request asks for its own key (§5)."""

    head = b""
    separator = b"\n"
    tail = b"\n"

    def __init__(self, form: RequestForm) -> None:
        self._usual = _template(form, form.max_output_tokens)
        self._longer = _template(form, form.max_output_tokens and form.max_output_tokens * LONGER)
        self._again = "Answer again." if form.schema is None else "Answer again, so that it matches the JSON Schema."

    def encode(self, custom_id: str, prompt: str, correction: str | None = None, *, longer: bool = False) -> bytes:
        """One request; only the prompt itself is escaped anew, all else was when the format was made."""
        key = custom_id.encode()
        before, after = self._longer if longer else self._usual
        note = b""
        if correction:
            note = b'},{"text":' + orjson.dumps(f"Your previous answer was rejected: {correction}\n{self._again}")
        return key.join(before) + orjson.dumps(prompt) + note + key.join(after)


def _template(form: RequestForm, most_tokens: int | None) -> _Template:
    echo = echo_of(form.schema)
    config: dict[str, Any] = {} if form.temperature is None else {"temperature": form.temperature}
    if most_tokens is not None:
        config["maxOutputTokens"] = most_tokens + (ECHO_TOKENS if echo else 0)
    system, structure, told = _spoken(form, echo)
    config.update(structure)
    texts = [_PROMPT] if told is None else [_PROMPT, told]
    request = {
        **({"systemInstruction": {"parts": [{"text": system}]}} if system else {}),
        "contents": [{"role": "user", "parts": [{"text": text} for text in texts]}],
        **({"generationConfig": config} if config else {}),
    }
    before, after = orjson.dumps({"key": _KEY, "request": request}).split(_PROMPT_MARK)
    return before.split(_KEY_MARK), after.split(_KEY_MARK)


def _spoken(form: RequestForm, echo: str | None) -> tuple[str | None, dict[str, Any], str | None]:
    """The system text, what `generationConfig` says of the answer's form, and what stands after the prompt."""
    if form.schema is None:
        return form.system, {}, None
    structure: dict[str, Any] = {"responseMimeType": "application/json"}
    try:
        schema = narrowed(form.schema, STRUCTURED)
    except NotStrict:
        words = as_words(_echoing(form.schema, echo, {"type": "string"}) if echo else form.schema)
        told = f'The value of "{echo}" in your answer has to be "{_KEY}".' if echo else None
        return "\n\n".join(text for text in (form.system, words) if text), structure, told
    structure["responseJsonSchema"] = _echoing(schema, echo, {"type": "string", "enum": [_KEY]}) if echo else schema
    return form.system, structure, None


def echo_of(schema: Mapping[str, Any] | None) -> str | None:
    """The name of the property in which answers say whose they are, one that the job does not use; None: they don't."""
    if schema is None or schema.get("type", "object") not in ("object", ["object"]):
        return None
    if "type" not in schema and "properties" not in schema:
        return None
    name = ECHO
    while name in mapping(schema.get("properties")):
        name += "_"
    return name


def _echoing(schema: Mapping[str, Any], echo: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with the echo in front: properties are answered in the order in which they are named."""
    properties = {echo: part, **mapping(schema.get("properties"))}
    return {**schema, "properties": properties, "required": [echo, *array(schema.get("required"))]}


def inline_order(tag: str, body: Path) -> bytes:
    """A batch that carries its requests, which stand in a file as lines; their prompts are never parsed."""
    with body.open("rb") as file:
        requests = b",".join(_inlined(line.rstrip(b"\n")) for line in file if line.strip())
    opening = b'{"batch":{"displayName":%b,"inputConfig":{"requests":{"requests":[' % orjson.dumps(tag)
    return b"".join([opening, requests, b"]}}}}"])


_LINE_START, _LINE_MIDDLE = b'{"key":', b',"request":'
_INLINED_MORE = len(b'"metadata":{},')  # bytes by which a line grows, and the comma after it


def _inlined(line: bytes) -> bytes:
    """`{"key", "request"}` as `{"metadata": {"key"}, "request"}`; a key has no sign that ends it early."""
    key, middle, request = line.removeprefix(_LINE_START).partition(_LINE_MIDDLE)
    return b'{"metadata":{"key":%b}%b%b' % (key, middle, request)


# --- batches --------------------------------------------------------------------------------------------------------

_PHASES = {
    "SUCCEEDED": BatchPhase.ENDED,
    "PARTIALLY_SUCCEEDED": BatchPhase.ENDED,
    "FAILED": BatchPhase.FAILED,
    "CANCELLED": BatchPhase.FAILED,
    "EXPIRED": BatchPhase.FAILED,
}


def read_status(body: Any) -> BatchStatus:
    """An operation (§5). A state that we don't know counts as running: nothing may be concluded from it.

    A batch that expired, failed or was cancelled has failed as a whole, unless there is something to read.
    """
    operation = mapping(body)
    batch, named = _batch_of(operation), id_of(operation)
    if not named:
        raise _unexpected("a batch without its name")
    wording = re.sub(r"^(BATCH|JOB)_STATE_", "", string(batch.get("state"))) or "unknown"
    code, error = _error_of(operation)
    phase = _phase_of(operation, wording.upper(), failed=error is not None)
    stats = mapping(batch.get("batchStats"))
    ended = [count_of(stats.get(name)) for name in ("successfulRequestCount", "failedRequestCount")]
    known = [number for number in ended if number is not None]
    full = phase is BatchPhase.FAILED and code == "RESOURCE_EXHAUSTED"
    return BatchStatus(
        id=named,
        phase=phase,
        wording=wording,
        total=count_of(stats.get("requestCount")) or None,
        done=sum(known) if known else None,
        error=error,
        created_at=time_of(batch.get("createTime")),
        obstacle=Obstacle.QUEUE_FULL if full else None,
        early=phase is BatchPhase.ENDED and _PHASES.get(wording.upper()) is BatchPhase.FAILED,  # cancelled, say
    )


def _phase_of(operation: Mapping[str, Any], state: str, *, failed: bool) -> BatchPhase:
    done = operation.get("done") is True
    phase = _PHASES.get(state, BatchPhase.FAILED if done and failed else BatchPhase.RUNNING)
    final = done or state in _PHASES
    return BatchPhase.ENDED if final and (_responses_file(operation) or _inlined_rows(operation)) else phase


def _batch_of(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an operation is about; one without metadata is looked at itself."""
    return mapping(operation.get("metadata")) or operation


def id_of(operation: Mapping[str, Any]) -> str:
    """The id in an operation's name, `batches/<id>`; empty where it has none."""
    named = string(operation.get("name")) or string(_batch_of(operation).get("name"))
    return named.rpartition("/")[2]


def _error_of(operation: Mapping[str, Any]) -> tuple[str, str | None]:
    """The code and the sentence of a batch's error; no sentence where it has none."""
    error = operation.get("error") or _batch_of(operation).get("error")
    if not error:
        return "", None
    code, _, message = _complaint_of(error)
    return code, ": ".join(part for part in (code, message) if part) or "no reason given"


def _outputs(operation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Where the results of a batch may stand."""
    return [mapping(_batch_of(operation).get("output")), mapping(operation.get("response"))]


def _responses_file(operation: Mapping[str, Any]) -> str:
    """The name of the file with the answers; empty where there is none."""
    return next((name for output in _outputs(operation) if (name := string(output.get("responsesFile")))), "")


def _inlined_rows(operation: Mapping[str, Any]) -> list[Any]:
    """The answers that stand in the operation, which nests them in an object of the same name."""
    for output in _outputs(operation):
        found = output.get("inlinedResponses")
        if rows := array(found) or array(mapping(found).get("inlinedResponses")):
            return rows
    return []


def read_page(page: Any) -> tuple[list[Mapping[str, Any]], str]:
    """A page of a list and the token of the next; a list of nothing is not written at all."""
    items = mapping(page).get("operations", [])
    if not isinstance(page, Mapping) or not isinstance(items, list):
        raise _unexpected("a list that is none")
    return [item for item in items if isinstance(item, Mapping)], string(page.get("nextPageToken"))


def _unexpected(what: str) -> Transient:
    return Transient(
        f"gemini answered with {what}",
        next_step="run the same command again: it goes on from here",
        provider="gemini",
    )


# --- errors ---------------------------------------------------------------------------------------------------------

# The numbers of google.rpc.Code: rows have these where calls have the HTTP statuses beside them.
_RPC = {
    1: ("CANCELLED", 499), 2: ("UNKNOWN", 500), 3: ("INVALID_ARGUMENT", 400), 4: ("DEADLINE_EXCEEDED", 504),
    5: ("NOT_FOUND", 404), 6: ("ALREADY_EXISTS", 409), 7: ("PERMISSION_DENIED", 403), 8: ("RESOURCE_EXHAUSTED", 429),
    9: ("FAILED_PRECONDITION", 400), 10: ("ABORTED", 409), 11: ("OUT_OF_RANGE", 400), 12: ("UNIMPLEMENTED", 501),
    13: ("INTERNAL", 500), 14: ("UNAVAILABLE", 503), 15: ("DATA_LOSS", 500), 16: ("UNAUTHENTICATED", 401),
}  # fmt: skip
_STATUSES = dict(_RPC.values())
_NAMES = {status: name for name, status in reversed(_RPC.values())}
TRANSIENT_STATUSES = {408, 409, 425, 429}
BAD_KEY, NO_BILLING = (
    "API_KEY_INVALID",
    "BILLING_DISABLED",
)  # reasons that say more than the status: a wrong key is a 400


def _complaint_of(error: Any) -> tuple[str, int | None, str]:
    """Name, HTTP status and sentence of an error."""
    if not isinstance(error, Mapping):
        return "", None, string(error)
    code, named, message = count_of(error.get("code")), string(error.get("status")), string(error.get("message"))
    if code in _RPC:
        name, status = _RPC[code]
        return named or name, status, message
    name = named or _NAMES.get(code or 0, "" if code is None else f"http_{code}")
    return name, _STATUSES.get(name) if code is None else code, message


def _is_error(error: Any) -> bool:
    """Whether something is said; the number 0 says that all went well."""
    return bool(error) and not (isinstance(error, Mapping) and count_of(error.get("code")) == 0)


def _row_failure(error: Any) -> Failure:
    """An error by its HTTP status; what was cancelled was not run."""
    name, status, message = _complaint_of(error)
    kind = FailureKind.TRANSIENT
    if status == _STATUSES["CANCELLED"]:
        kind = FailureKind.NOT_RUN
    elif status in range(400, 500) and status not in TRANSIENT_STATUSES:
        kind = FailureKind.TERMINAL
    return Failure(kind, name or "unknown", message or "the provider gave no reason")


def read_error(body: Any) -> Complaint:
    """`{"error": {"code", "message", "status", "details"}}`, perhaps in a list; the delay stands in the details."""
    listed = array(body)
    error = mapping(mapping(listed[0] if listed else body).get("error"))
    name, _, message = _complaint_of(error)
    details = [mapping(detail) for detail in array(error.get("details"))]
    reasons = [string(detail.get("reason")) for detail in details]
    telling = [reason for reason in reasons if reason in {BAD_KEY, NO_BILLING}]
    delays = [delay for detail in details if (delay := _seconds(detail.get("retryDelay"))) is not None]
    return Complaint((telling or [name])[0] or None, message, delays[0] if delays else None)


def _seconds(duration: Any) -> float | None:
    """A duration as protocol buffers write it in JSON: `37s`."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)s", string(duration))
    return None if found is None else float(found[1])


def _out_of_money(status: int, code: str | None, retry_after: float | None) -> bool:  # noqa: ARG001  # not by these
    return code == NO_BILLING


# --- answers --------------------------------------------------------------------------------------------------------

FILTER_REASONS = {"SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "RECITATION", "IMAGE_SAFETY"}
BROKEN_REASONS = {"OTHER", "LANGUAGE", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE"}
UNPROVEN = Failure(FailureKind.TRANSIENT, "unproven", "the answer does not say which row it belongs to")

_Outcome = tuple[str | None, Usage | None, Failure | None]


class RowReader:
    """Reads the rows of one batch, and counts those that are not what they seem.

    `tag`: the batch's; it stands in for the key of a row that has none, as an echo may still say whose it is.
    """

    def __init__(self, form: RequestForm, tag: str = "") -> None:
        self.echo = echo_of(form.schema)
        self.unreadable = 0
        self.moved = 0  # answers that came under another's key
        self._form = form
        self._tag = tag
        self._echoed = re.compile(rf'\s*\{{\s*"{self.echo}"\s*:\s*"({PORTABLE_ID})"\s*(?:,|(?=\}}))')

    def read(self, row: Any) -> Answer | None:
        """A row, from a file or an operation; None for one that is no answer, or nobody's."""
        row = mapping(row)
        key = string(row.get("key")) or string(mapping(row.get("metadata")).get("key"))
        text, usage, failure = _outcome(row, self._form)
        answer = Answer(key, text, usage, failure)
        if text is not None and self.echo is not None:
            answer = self._proven(key, text, usage)
        if not answer.custom_id:
            self.unreadable += 1
            return None
        return answer

    def _proven(self, key: str, text: str, usage: Usage | None) -> Answer:
        """The answer of the row that it names, which has to be one of the same batch."""
        owner, rest = self._without_echo(text)
        batch = _batch_tag(key) if key else self._tag
        if not batch or _batch_tag(owner) != batch:
            return Answer(key, None, usage, UNPROVEN)
        self.moved += bool(key) and owner != key
        return Answer(owner, rest, usage, None)

    def _without_echo(self, text: str) -> tuple[str, str]:
        """The key that an answer names, empty for none, and the answer without it; where it leads nothing is parsed."""
        if found := self._echoed.match(text):
            return found[1], "{" + text[found.end() :]
        try:
            answer = orjson.loads(text)
        except orjson.JSONDecodeError:
            return "", text
        owner = string(answer.pop(self.echo, None)) if isinstance(answer, dict) else ""
        return (owner, orjson.dumps(answer).decode()) if re.fullmatch(PORTABLE_ID, owner) else ("", text)


def _batch_tag(custom_id: str) -> str:
    """What all keys of a batch begin with, `<tag>-<request>-<attempt>`; empty for what is no such key."""
    tag, *rest = custom_id.rsplit("-", 2)
    return tag if len(rest) == 2 and all(rest) else ""


def _outcome(row: Mapping[str, Any], form: RequestForm) -> _Outcome:
    """Failed, blocked before it began, or answered (§5)."""
    response = mapping(row.get("response"))
    usage = usage_of(response.get("usageMetadata"))
    errors = [row.get("error"), mapping(row.get("status")), response.get("error")]
    for error in filter(_is_error, errors):
        return None, usage, _row_failure(error)
    feedback = mapping(response.get("promptFeedback"))
    blocked = string(feedback.get("blockReason"))
    if blocked not in {"", "BLOCK_REASON_UNSPECIFIED"}:
        said = string(feedback.get("blockReasonMessage")) or "the provider's filter stopped the prompt"
        return None, usage, Failure(FailureKind.FILTERED, blocked, said)
    candidates = array(response.get("candidates"))
    candidate = mapping(candidates[0]) if candidates else {}
    if failure := _stopped(candidate, form):
        return None, usage, failure
    texts = _texts(candidate)
    if not texts:
        said = "the answer has no text" if candidate else "the provider gave neither an answer nor a reason"
        return None, usage, Failure(FailureKind.TRANSIENT, "no_answer", said)
    return "".join(texts), usage, None


def _texts(candidate: Mapping[str, Any]) -> list[str]:
    """The texts of an answer, its thoughts left out."""
    parts = [mapping(part) for part in array(mapping(candidate.get("content")).get("parts"))]
    return [part["text"] for part in parts if isinstance(part.get("text"), str) and part.get("thought") is not True]


def _stopped(candidate: Mapping[str, Any], form: RequestForm) -> Failure | None:
    """Why an answer ended before its end. Without a limit of the job it reached the model's own: none is larger."""
    reason, said = string(candidate.get("finishReason")), string(candidate.get("finishMessage"))
    if reason == "MAX_TOKENS":
        kind = FailureKind.TERMINAL if form.max_output_tokens is None else FailureKind.CUT_OFF
        return Failure(kind, "length", "the answer, its thoughts included, was cut off at the limit of output tokens")
    if reason in FILTER_REASONS:
        return Failure(FailureKind.FILTERED, reason, said or "the provider's filter stopped the answer")
    if reason in BROKEN_REASONS:
        return Failure(FailureKind.TRANSIENT, reason, said or "the model failed while it answered")
    return None


def usage_of(told: Any) -> Usage | None:
    """Tokens (§5), thoughts as output, or None where they are not all named: what is not known must not look free.

    A count of 0 may be left out; the total then tells.
    """
    named = mapping(told)
    prompt, total = count_of(named.get("promptTokenCount")), count_of(named.get("totalTokenCount"))
    if prompt is None:
        return None
    tokens_in = prompt + (count_of(named.get("toolUsePromptTokenCount")) or 0)
    parts = [count_of(named.get(name)) for name in ("candidatesTokenCount", "thoughtsTokenCount")]
    tokens_out = sum(part or 0 for part in parts)
    if parts == [None, None]:
        if total is None or total < tokens_in:
            return None
        tokens_out = total - tokens_in
    return Usage(tokens_in, tokens_out, min(count_of(named.get("cachedContentTokenCount")) or 0, tokens_in))


# --- calls ----------------------------------------------------------------------------------------------------------

_GOOGLE_KEY = re.compile(r"\bAIza[\w*.…-]+")  # Google names the key that it refuses


class Gemini:
    """Gemini's calls. A batch carries its tag as its display name, so that it can be found again.

    `api_version`: part of every path. `settle`: seconds for which a batch that no list shows may still appear (§1.1).
    """

    name = "gemini"
    verified_lookup = True
    polling = PollPlan(first=60.0, factor=1.5, longest=300.0, patience=50 * 3600.0)  # §11; a batch expires after 48 h

    def __init__(
        self,
        api_key: str,
        base_url: str = BASE_URL,
        *,
        limits: Limits = LIMITS,
        polling: PollPlan | None = None,
        api_version: str = V1BETA,
        settle: float = SETTLE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits
        self.polling = polling or self.polling
        self._version = api_version
        self._settling = Settling(self.name, settle, clock)
        self._key = api_key
        self._http = Transport(
            self.name,
            # Our paths name the version; an address that is copied from elsewhere may name it as well.
            base_url.rstrip("/").removesuffix(f"/{api_version}"),
            {"x-goog-api-key": api_key},
            self._read_error,
            out_of_money=_out_of_money,
            key_codes=(BAD_KEY,),
        )

    def format(self, form: RequestForm) -> GeminiCodec:
        """How to encode requests of this form."""
        return GeminiCodec(form)

    def submit(self, batch: EncodedBatch, form: RequestForm) -> str:
        """Create a batch, its requests within the call or, where they are many, in a file that is uploaded before."""
        if _is_small(batch):
            return self._create(inline_order(batch.tag, batch.path), batch.tag, form)
        order = {"displayName": batch.tag, "inputConfig": {"fileName": self._upload(batch)}}
        return self._create({"batch": order}, batch.tag, form)

    def _upload(self, batch: EncodedBatch) -> str:
        """The name of a new file; it may be uploaded twice, as it costs nothing."""
        name, size = f"batchwerk-{batch.tag}", str(batch.bytes)
        about = {"file": {"display_name": name, "mime_type": "application/jsonl", "size_bytes": size}}
        answer = self._http.upload_resumable(self._path("upload"), about, batch.path, batch.bytes)
        named = string(mapping(mapping(answer).get("file")).get("name"))
        if not named:
            raise _unexpected("a file without its name")
        return named

    def _create(self, order: Mapping[str, Any] | bytes, tag: str, form: RequestForm) -> str:
        """Create a batch, which may not be done twice."""
        try:
            answer = self._http.create_json(self._path("create", form.model.removeprefix("models/")), order)
        except UnknownOutcome:
            self._settling.note_lost(tag)
            raise
        if named := id_of(mapping(answer)):
            return named
        self._settling.note_lost(tag)
        raise UnknownOutcome("gemini accepted a batch and named no id for it", provider=self.name)

    def find(self, batch: EncodedBatch, form: RequestForm) -> Found | None:  # noqa: ARG002  # the tag is enough
        """Look the tag up in the list; None once it can't appear there any more (§1.1)."""
        listed = self._listed(batch.sent_at - CLOCK_SLACK)
        ours = (operation for operation in listed if _display_name(operation) == batch.tag)
        found = {id_of(operation): read_status(operation) for operation in ours}  # a moving list may show one twice
        if found:
            return keep_one(self.name, found.values(), batch.tag, self.cancel)
        # Its file was uploaded between the note that it is sent and the creation; no list tells when.
        uploaded = [batch.sent_at + batch.bytes / SLOWEST_UPLOAD] if batch.sent_at and not _is_small(batch) else []
        self._settling.check(batch, uploaded, where=f": its display name is {batch.tag}")
        return None

    def _listed(self, since: float) -> Iterator[Mapping[str, Any]]:
        """All batches, or those back to a time: in which order they are listed is not documented."""
        token, seen, times = "", {""}, list[float]()
        while True:
            params = {"pageToken": token} if token else {}
            operations, token = read_page(self._http.get(self._path("batches"), pageSize=PAGE, **params))
            yield from operations
            stamps = [time_of(_batch_of(operation).get("createTime")) for operation in operations]
            page = [at.timestamp() for at in stamps if at is not None]
            times += page
            if token in seen or (page and max(page) < since and _newest_first(times)):
                return
            seen.add(token)

    def poll(self, batch_id: str) -> BatchStatus:
        """Where the batch stands."""
        return read_status(self._http.get(self._path("batch", batch_id)))

    def results(self, batch_id: str, form: RequestForm) -> Iterator[Answer]:
        """The answers, from the file or from the operation itself.

        Where answers prove whose they are, rows without a proof come last: a failure may stand under the key of a row
        whose answer comes under another one. They are kept in memory until then. Raises NotFound where the operation
        names nothing to read: requests without an answer are another thing.
        """
        operation = mapping(self._http.get(self._path("batch", batch_id)))
        if not id_of(operation):
            raise _unexpected("a batch without its name")
        reader = RowReader(form, _display_name(operation))
        failed = []
        for answer in filter(None, map(reader.read, self._rows(operation, batch_id))):
            if answer.failure is None or reader.echo is None:
                yield answer
            else:
                failed.append(answer)
        yield from failed
        _tell(reader, batch_id)

    def _rows(self, operation: Mapping[str, Any], batch_id: str) -> Iterable[Any]:
        if file := _responses_file(operation):
            lines = self._http.lines(self._path("download", file.removeprefix("files/")))
            return (_parsed(line) for line in lines if line.strip())
        if not any("inlinedResponses" in output for output in _outputs(operation)):
            raise NotFound(
                f"gemini no longer has the answers of {batch_id}: it names neither a file nor a list of them",
                next_step="what was collected before is kept",
                provider=self.name,
            )
        rows = _inlined_rows(operation)
        if not rows:
            log.warning("gemini: the batch %s has an empty list of answers", batch_id)
        return rows

    def cancel(self, batch_id: str) -> BatchStatus:
        """Ask to stop; finished rows are kept and paid. A batch that has ended by then is told as it is."""
        try:
            self._http.post(self._path("cancel", batch_id))
        except BatchRefused:
            status = self.poll(batch_id)
            if status.phase is BatchPhase.RUNNING:
                raise
            return status
        return self.poll(batch_id)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _path(self, kind: str, name: str = "") -> str:
        return PATHS[kind].format(version=self._version, id=quote(name, safe=""))

    def _read_error(self, body: Any) -> Complaint:
        """`read_error` without the key, which Google repeats."""
        code, message, retry_after = read_error(body)
        masked = _GOOGLE_KEY.sub("AIza…", message.replace(self._key, "…") if self._key else message)
        return Complaint(code, masked, retry_after)


def _is_small(batch: EncodedBatch) -> bool:
    """Whether a batch goes within the call that creates it."""
    return batch.requests <= INLINE_REQUESTS and batch.bytes + _INLINED_MORE * batch.requests < INLINE_BYTES


def _display_name(operation: Mapping[str, Any]) -> str:
    return string(_batch_of(operation).get("displayName"))


def _newest_first(times: list[float]) -> bool:
    """Whether times that were listed one after another show that the list is in that order."""
    return len(times) > 1 and times[0] > times[-1] and all(one >= other for one, other in pairwise(times))


def _parsed(line: bytes) -> Any:
    """A line's JSON; None where it is none."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def _tell(reader: RowReader, batch_id: str) -> None:
    if reader.unreadable:
        log.warning("gemini: %d rows of %s can't be read and were skipped", reader.unreadable, batch_id)
    if reader.moved:
        log.warning(
            "gemini: %d answers of %s came under the key of another row; each was given to the row that it names",
            reader.moved,
            batch_id,
        )


ENTRY = ProviderEntry(
    name="gemini",
    title="Gemini",
    service="the Gemini Developer API's batches",
    key_variable="GEMINI_API_KEY",
    base_url=BASE_URL,
    base_url_help="Where the API is, without its version.",
    limits=LIMITS,
    client=Gemini,
    codec=GeminiCodec,
    options=(
        Option("api_version", "The API version.", (V1BETA, V1)),
        SETTLE_OPTION,
    ),
)
