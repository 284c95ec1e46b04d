"""The Gemini Developer API's batches: requests in the call or in a file, answers in an operation or in another file.

The section numbers are those of docs/wire-protocols.md, §5 (Gemini) and §1.1 (a create whose answer was lost).

**Whose answer it is.** Users saw this service deliver answers under the keys of other rows (§5). So where a job has a
schema, the schema of each request gets one more property, first and required, that can only be that request's own key:
the schema travels with its request, so an answer that was made under it says whose it is, under whatever key it comes.
That echo decides, and is taken out of the answer; an answer without it proves nothing and goes again. A schema that
can't be given to the service is said in words, and the value to echo stands at the end of the prompt. **Jobs without a
schema have no echo**: their answers are taken under the key that they come with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from blocks.batch import (
    LONGER,
    BatchPhase,
    BatchStatus,
    Obstacle,
    RequestForm,
)
from blocks.providers.gemini.errors import complaint_of
from blocks.providers.lenient import array, count_of, mapping, string, time_of, unexpected
from blocks.providers.schemas import NotStrict, Subset, as_words, narrowed

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

    def encode(self, custom_id: str, prompt: str, *, longer: bool = False) -> bytes:
        """One request; only the prompt itself is escaped anew, all else was when the format was made."""
        key = custom_id.encode()
        before, after = self._longer if longer else self._usual
        return key.join(before) + orjson.dumps(prompt) + key.join(after)


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


def is_binding(schema: Mapping[str, Any] | None) -> bool:
    """Whether the service takes the schema, and so leaves a model no other echo than the right one."""
    try:
        return schema is not None and bool(narrowed(schema, STRUCTURED))
    except NotStrict:
        return False


def _echoing(schema: Mapping[str, Any], echo: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with the echo in front: properties are answered in the order in which they are named."""
    properties = {echo: part, **mapping(schema.get("properties"))}
    return {**schema, "properties": properties, "required": [echo, *array(schema.get("required"))]}


def inline_order(tag: str, lines: Iterable[bytes]) -> bytes:
    """A batch that carries its requests, which come as lines; their prompts are never parsed."""
    requests = b",".join(_inlined(line.rstrip(b"\n")) for line in lines if line.strip())
    opening = b'{"batch":{"displayName":%b,"inputConfig":{"requests":{"requests":[' % orjson.dumps(tag)
    return b"".join([opening, requests, b"]}}}}"])


_LINE_START, _LINE_MIDDLE = b'{"key":', b',"request":'


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
    batch, named = batch_of(operation), id_of(operation)
    if not named:
        raise unexpected("gemini", "a batch without its name")
    wording = re.sub(r"^(BATCH|JOB)_STATE_", "", string(batch.get("state"))) or "unknown"
    code, error = _error_of(operation)
    phase = _phase_of(operation, wording.upper(), failed=error is not None)
    obstacle = Obstacle.NO_TIME if wording.upper() in {"CANCELLED", "EXPIRED"} else None
    full = code == "RESOURCE_EXHAUSTED"
    return BatchStatus(
        id=named,
        phase=phase,
        wording=wording,
        error=error,
        created_at=time_of(batch.get("createTime")),
        obstacle=None if phase is not BatchPhase.FAILED else Obstacle.QUEUE_FULL if full else obstacle,
        early=phase is BatchPhase.ENDED and _PHASES.get(wording.upper()) is BatchPhase.FAILED,  # cancelled, say
    )


def _phase_of(operation: Mapping[str, Any], state: str, *, failed: bool) -> BatchPhase:
    done = operation.get("done") is True
    phase = _PHASES.get(state, BatchPhase.FAILED if done and failed else BatchPhase.RUNNING)
    final = done or state in _PHASES
    return BatchPhase.ENDED if final and (responses_file(operation) or inlined_rows(operation)) else phase


def batch_of(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an operation is about; one without metadata is looked at itself."""
    return mapping(operation.get("metadata")) or operation


def id_of(operation: Mapping[str, Any]) -> str:
    """The id in an operation's name, `batches/<id>`; empty where it has none."""
    named = string(operation.get("name")) or string(batch_of(operation).get("name"))
    return named.rpartition("/")[2]


def _error_of(operation: Mapping[str, Any]) -> tuple[str, str | None]:
    """The code and the sentence of a batch's error; no sentence where it has none."""
    error = operation.get("error") or batch_of(operation).get("error")
    if not error:
        return "", None
    code, _, message = complaint_of(error)
    return code, ": ".join(part for part in (code, message) if part) or "no reason given"


def outputs(operation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Where the results of a batch may stand."""
    return [mapping(batch_of(operation).get("output")), mapping(operation.get("response"))]


def responses_file(operation: Mapping[str, Any]) -> Any:
    """What names the file with the answers; nothing where there is none."""
    return next((name for output in outputs(operation) if (name := output.get("responsesFile"))), None)


def promised_answers(operation: Mapping[str, Any]) -> int | None:
    """How many rows were answered or failed, of counters that are texts and are left out where they are 0."""
    stats = mapping(batch_of(operation).get("batchStats"))
    found = [count_of(stats.get(name, 0)) for name in ("successfulRequestCount", "failedRequestCount")]
    return sum(count or 0 for count in found) if stats and None not in found else None


def inlined_rows(operation: Mapping[str, Any]) -> list[Any]:
    """The answers that stand in the operation, which nests them in an object of the same name."""
    for output in outputs(operation):
        found = output.get("inlinedResponses")
        if rows := array(found) or array(mapping(found).get("inlinedResponses")):
            return rows
    return []


def read_page(page: Any) -> tuple[list[Mapping[str, Any]], str]:
    """A page of a list and the token of the next; a list of nothing is not written at all."""
    items = mapping(page).get("operations", [])
    if not isinstance(page, Mapping) or not isinstance(items, list):
        raise unexpected("gemini", "a list that is none")
    return [item for item in items if isinstance(item, Mapping)], string(page.get("nextPageToken"))
