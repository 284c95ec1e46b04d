"""A create of a Mistral job and its requests: inline, or in an uploaded file (§4)."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from blocks.emulator.dialects.chat import read_chat, repeats_role
from blocks.emulator.service.batch import Request
from blocks.emulator.wire.calls import CallError
from blocks.emulator.wire.lines import Json, LineError, Lines, dump, parse_line, required
from blocks.emulator.wire.uploads import UploadForm

MAX_INLINE = 9_999
TIMEOUT_HOURS = range(1, 7 * 24)
ENDPOINT = "/v1/chat/completions"
CREATE_FIELDS = ("endpoint", "input_files", "requests", "model", "metadata", "timeout_hours")
UPLOAD_FIELDS = ("file", "purpose", "visibility")  # the SDK always names the last, our client never


class Unprocessable(CallError):
    """A 422 that locates the error in the call."""

    def __init__(self, where: Sequence[str | int], message: str, kind: str = "value_error") -> None:
        super().__init__(422, kind, message)
        self.where = where


def inline_requests(order: Json) -> list[Request]:
    """The requests of a create without a file. Raises Unprocessable for an invalid one: it refuses them all."""
    for number, item in enumerate(order["requests"]):
        try:
            check_line(item)
        except LineError as error:
            raise Unprocessable(("body", "requests", number), str(error)) from None
    return [to_request(item, order["model"]) for item in order["requests"]]


def check_file(lines: Lines) -> list[Json]:
    """Read an input file once. Returns its errors as the job shows them."""
    errors: Counter[str] = Counter()
    for line in lines.read():
        try:
            check_line(parse_line(line))
        except LineError as error:
            errors[str(error)] += 1
    if not len(lines):
        errors["The input file is empty."] += 1
    return [{"message": message, "count": count} for message, count in errors.items()]


def check_line(line: Json) -> None:
    """Raises LineError if the whole job is to fail because of this line."""
    required(line, "body", dict)
    custom_id = line.get("custom_id")
    if custom_id is not None and not isinstance(custom_id, str):
        raise LineError("invalid_request", "custom_id must be a string", "custom_id")


def to_request(line: Json, model: str) -> Request:
    """A mistake in its body fails the row alone."""
    body, custom_id = line["body"], line.get("custom_id") or ""
    try:
        prompt, schema = read_chat(body)
        limit = read_limit(body)
    except LineError as error:
        return Request(custom_id, dump(body), model, rejection=str(error))
    return Request(custom_id, prompt, model, schema, limit, repeats_role=repeats_role(body["messages"]))


def read_limit(body: Json) -> int | None:
    """How many tokens an answer may have. Raises LineError."""
    limit = body.get("max_tokens")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise LineError("invalid_request", "max_tokens must be a whole number of at least 1", "body.max_tokens")
    return limit


def check_upload(form: UploadForm) -> str:
    """The file's name. Raises CallError."""
    for name in form.fields:
        if name not in UPLOAD_FIELDS:
            raise Unprocessable(("body", name), "Extra inputs are not permitted", "extra_forbidden")
    if not form.filename:
        raise Unprocessable(("body", "file"), "Field required", "missing")
    if form.too_long:
        raise CallError(413, "too_large", f"the file is too long: {form.size} bytes")
    if form.text("purpose") != "batch":
        raise Unprocessable(("body", "purpose"), "The emulator takes files for batches only", "enum")
    return form.filename


def parse_create(content: Any) -> Json:
    """The fields of a create, all of them present. Raises Unprocessable."""
    if not isinstance(content, dict):
        raise Unprocessable(("body",), "Input should be a valid dictionary", "dict_type")
    for name in content:
        if name not in CREATE_FIELDS:
            raise Unprocessable(("body", name), "Extra inputs are not permitted", "extra_forbidden")
    order: Json = {name: content.get(name) for name in CREATE_FIELDS}
    if order["endpoint"] != ENDPOINT:
        raise Unprocessable(("body", "endpoint"), f"The emulator speaks {ENDPOINT} only", "enum")
    if not isinstance(order["model"], str) or not order["model"]:
        raise Unprocessable(("body", "model"), "Input should be a valid string", "string_type")
    check_metadata(order["metadata"])
    check_source(order)
    hours = content.get("timeout_hours", 24)
    if not isinstance(hours, int) or hours not in TIMEOUT_HOURS:
        message = f"Input should be from {TIMEOUT_HOURS[0]} to {TIMEOUT_HOURS[-1]}"
        raise Unprocessable(("body", "timeout_hours"), message, "less_than_equal")
    return {**order, "input_files": order["input_files"] or []}


def check_metadata(metadata: Any) -> None:
    """Raises Unprocessable for anything but an object of strings."""
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise Unprocessable(("body", "metadata"), "Input should be a valid dictionary", "dict_type")
    for name, value in metadata.items():
        if not isinstance(value, str):
            raise Unprocessable(("body", "metadata", name), "Input should be a valid string", "string_type")


def check_source(order: Json) -> None:
    """Raises Unprocessable unless there is either one file or a list of requests."""
    files, requests = order["input_files"], order["requests"]
    if bool(files) == bool(requests):
        raise Unprocessable(("body",), "Either input_files or requests must be given")
    if files and not (isinstance(files, list) and len(files) == 1 and isinstance(files[0], str)):
        raise Unprocessable(("body", "input_files"), "The emulator takes a list of one file id", "list_type")
    if requests and not (isinstance(requests, list) and all(isinstance(each, dict) for each in requests)):
        raise Unprocessable(("body", "requests"), "Input should be a list of objects", "list_type")
    if requests and len(requests) > MAX_INLINE:
        message = f"List should have at most {MAX_INLINE} items, not {len(requests)}"
        raise Unprocessable(("body", "requests"), message, "too_long")
