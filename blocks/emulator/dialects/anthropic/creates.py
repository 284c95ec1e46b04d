"""Creates of message batches: structure, number of requests and their ids are checked at once (§2.2)."""

import re
from typing import IO, Any

import orjson

from blocks.emulator.dialects.anthropic.params import ParamsError, read_params
from blocks.emulator.dialects.chat import repeats_role
from blocks.emulator.service.batch import Request
from blocks.emulator.wire.calls import CallError
from blocks.emulator.wire.elements import DocumentError, DocumentReader
from blocks.emulator.wire.lines import Json, LineRequests, Lines, dump

MAX_TOKENS = 1 << 40  # of an answer; a higher limit has no effect
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def bad_request(message: str) -> CallError:
    """A 400."""
    return CallError(400, "invalid_request", message)


def read_create(body: IO[bytes], rows: IO[bytes], version: str, max_requests: int) -> LineRequests:
    """The requests of a body, kept on disk in `rows`. Raises CallError (400) with the first mistake."""
    kept = Lines(rows)
    try:
        read_requests(DocumentReader(body, "requests"), kept, version, max_requests)
    except (DocumentError, orjson.JSONEncodeError) as error:  # halves of surrogate pairs, 65 bits
        raise bad_request(f"The request body is not valid JSON: {error}") from None
    rows.flush()
    return LineRequests(kept, lambda row: Request._make(orjson.loads(row)))


def read_requests(document: DocumentReader, kept: Lines, version: str, max_requests: int) -> None:
    """Keep the requests of a document, each as a row of JSON. Raises CallError."""
    known: dict[str, int] = {}
    count = 0
    for count, element in enumerate(document.elements(), 1):
        if count <= max_requests:
            kept.append(orjson.dumps(tuple(read_request(element, count - 1, known, version))))
    check_others(document)
    if count > max_requests:
        raise bad_request(f"requests: List should have at most {max_requests} items after validation, not {count}")
    if not count:
        raise bad_request("requests: List should have at least 1 item after validation, not 0")


def check_others(document: DocumentReader) -> None:
    """Raises CallError for anything but one list of requests."""
    if "requests" in document.others:
        raise bad_request("requests: Input should be a valid list")
    if not document.has_array:
        raise bad_request("requests: Field required")
    for name in document.others:
        raise bad_request(f"{name}: Extra inputs are not permitted")


def read_request(element: Any, index: int, known: dict[str, int], version: str) -> Request:
    """One request; `known` are the ids so far, with their indexes. Raises CallError."""
    where = f"requests.{index}"
    if not isinstance(element, dict):
        raise bad_request(f"{where}: Input should be a valid dictionary")
    for name in ("custom_id", "params"):
        if name not in element:
            raise bad_request(f"{where}.{name}: Field required")
    if len(element) > 2:
        extra = next(name for name in element if name not in ("custom_id", "params"))
        raise bad_request(f"{where}.{extra}: Extra inputs are not permitted")
    custom_id, params = element["custom_id"], element["params"]
    if not isinstance(custom_id, str) or not CUSTOM_ID.fullmatch(custom_id):
        raise bad_request(f"{where}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
    first = known.setdefault(custom_id, index)
    if first != index:
        raise bad_request(f"{where}.custom_id: '{custom_id}' is that of requests.{first}; ids must be unique")
    if not isinstance(params, dict):
        raise bad_request(f"{where}.params: Input should be a valid dictionary")
    return to_request(custom_id, params, version)


def to_request(custom_id: str, params: Json, version: str) -> Request:
    """Parse a request; an error in its params is reported in its result."""
    model = str(params.get("model") or "")
    try:
        read = read_params(params, version)
    except ParamsError as error:
        return Request(custom_id, dump(params), model, rejection=str(error))
    note = dump(list(map(tuple, read.segments))) if read.segments else None
    limit, repeats = min(read.max_tokens, MAX_TOKENS), repeats_role(params["messages"])
    return Request(custom_id, read.prompt, model, read.schema, limit, None, note, repeats)
