"""The requests of Gemini's batches, inline or one per line of a file (§5).

Fields that our client can't send are refused as unknown, though the real service takes many of them.
"""

from typing import Any

import orjson

from blocks.emulator.dialects.chat import repeats_role
from blocks.emulator.service.batch import Request
from blocks.emulator.wire.lines import Json, LineError, Lines, dump, dump_schema, member, parse_line

REQUEST_FIELDS = {"contents", "systemInstruction", "generationConfig"}
GENERATION_FIELDS = {"temperature", "maxOutputTokens", "responseMimeType", "responseJsonSchema"}
NO_KEY = "null"  # the note of a row that came without metadata


def inline_requests(model: str, items: list[Any]) -> list[Request]:
    """The requests of a create without a file. Raises LineError for an invalid one: it refuses them all."""
    return [inline_request(model, number, item) for number, item in enumerate(items)]


def inline_request(model: str, number: int, item: Any) -> Request:
    """One of them. Metadata of another form than `{"key"}` is kept as the note. Raises LineError."""
    where = f"batch.input_config.requests.requests[{number}]"
    if not isinstance(item, dict) or not isinstance(item.get("request"), dict):
        raise LineError("invalid", f"{where}.request is missing.")
    metadata = item.get("metadata")
    key = metadata.get("key", "") if isinstance(metadata, dict) else ""
    note = None if metadata == {"key": key} and isinstance(key, str) else dump(metadata)
    try:
        return read_request(item["request"], key if isinstance(key, str) else "", model, note)
    except LineError as error:
        raise LineError("invalid", f"Invalid value at '{where}.request': {error}") from None


def file_request(model: str, text: bytes) -> Request:
    """The request of a line of an input file; an invalid one fails alone."""
    line = orjson.loads(text)
    key = line.get("key")
    custom_id, note = (key, None) if isinstance(key, str) else ("", NO_KEY)
    try:
        return read_request(line.get("request"), custom_id, model, note)
    except LineError as error:
        return Request(custom_id, dump(line), model, rejection=str(error), note=note)


def check_file(lines: Lines) -> list[str]:
    """Read an input file once. Returns what is wrong with it as a whole."""
    for number, line in enumerate(lines.read(), 1):
        try:
            parse_line(line)
        except LineError as error:
            return [f"Line {number}: {error}"]
    return [] if len(lines) else ["The input file is empty."]


def read_request(request: Any, key: str, model: str, note: str | None) -> Request:
    """A GenerateContentRequest. Raises LineError."""
    if not isinstance(request, dict):
        raise LineError("invalid", "The request is missing.")
    check_names(request, REQUEST_FIELDS)
    config = member(request, "generationConfig")
    check_names(config, GENERATION_FIELDS)
    contents = request.get("contents")
    if not isinstance(contents, list) or not contents:
        raise LineError("invalid", "contents are not specified")
    parts = [request["systemInstruction"], *contents] if "systemInstruction" in request else contents
    prompt = "\n\n".join(map(text_of, parts))
    limit = config.get("maxOutputTokens")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise LineError("invalid", "maxOutputTokens must be a positive whole number")
    return Request(key, prompt, model, schema_of(config), limit, note=note, repeats_role=repeats_role(contents))


def check_names(values: Json, known: set[str]) -> None:
    """Raises LineError for a member that is not known."""
    for name in values.keys() - known:
        raise LineError("invalid", f'Invalid JSON payload received. Unknown name "{name}"')


def text_of(content: Any) -> str:
    """The text of a Content. Raises LineError."""
    try:
        return "\n\n".join(part["text"] for part in content["parts"] if "text" in part)
    except (KeyError, TypeError):
        raise LineError("invalid", "each of contents must have parts") from None


def schema_of(config: Json) -> str | None:
    """JSON text of the schema that the answer has to match. Raises LineError."""
    given = config.get("responseJsonSchema")
    if given is None:
        return None
    if config.get("responseMimeType") != "application/json":
        raise LineError("invalid", "responseJsonSchema needs the responseMimeType application/json")
    schema = dump_schema(given)
    if schema is None:
        raise LineError("invalid", "responseJsonSchema must be an object")
    return schema
