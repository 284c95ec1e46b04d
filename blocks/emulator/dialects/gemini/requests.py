"""What Gemini's requests say, inlined or a line each; every name is understood in camelCase and in snake_case."""

from typing import IO, Any

import orjson

from blocks.emulator.dialects.gemini.openapi import camel, to_json_schema
from blocks.emulator.service.batch import Request
from blocks.emulator.wire.lines import Json, LineError, Lines, dump_schema, parse_line

REQUEST_FIELDS = {
    "model", "contents", "systemInstruction", "generationConfig", "tools", "toolConfig", "safetySettings",
    "cachedContent", "serviceTier", "store",
}  # fmt: skip
GENERATION_FIELDS = {
    "temperature", "topP", "topK", "candidateCount", "maxOutputTokens", "stopSequences", "responseLogprobs", "logprobs",
    "presencePenalty", "frequencyPenalty", "seed", "responseMimeType", "responseSchema", "responseJsonSchema",
    "responseModalities", "thinkingConfig", "mediaResolution", "speechConfig", "imageConfig",
    "enableEnhancedCivicAnswers",
}  # fmt: skip


class InlineRequests:
    """The requests of a create without a file. LineError names an unsound one: it refuses them all."""

    def __init__(self, model: str, items: list[Any]) -> None:
        self._requests = [self._read(model, number, item) for number, item in enumerate(items)]
        self.tokens = sum(len(request.prompt) for request in self._requests) // 4

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, index: int, /) -> Request:
        return self._requests[index]

    def _read(self, model: str, number: int, item: Any) -> Request:
        where = f"batch.input_config.requests.requests[{number}]"
        if not isinstance(item, dict) or not isinstance(item.get("request"), dict):
            raise LineError("invalid", f"{where}.request is missing.")
        metadata = item.get("metadata")
        key = metadata.get("key", "") if isinstance(metadata, dict) else ""
        note = None if metadata == {"key": key} and isinstance(key, str) else dump(metadata)
        try:
            return read_request(item["request"], key if isinstance(key, str) else "", model, note)
        except (LineError, ValueError) as error:
            raise LineError("invalid", f"Invalid value at '{where}.request': {error}") from None


class FileRequests:
    """The requests of an uploaded file; an unsound one fails alone."""

    def __init__(self, model: str, content: IO[bytes]) -> None:
        self._model = model
        self._lines = Lines(content)

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int, /) -> Request:
        line = orjson.loads(self._lines[index])
        key = line.get("key")
        custom_id, note = (key, None) if isinstance(key, str) else ("", "null")
        try:
            return read_request(line.get("request"), custom_id, self._model, note)
        except (LineError, ValueError) as error:
            return Request(custom_id, dump(line), self._model, rejection=str(error), note=note)

    @property
    def tokens(self) -> int:
        return self._lines.tokens

    def check(self) -> list[str]:
        """Reads the file once. What is wrong with it as a whole."""
        for number, line in enumerate(self._lines.read(), 1):
            try:
                parse_line(line)
            except LineError as error:
                return [f"Line {number}: {error}"]
        return [] if len(self) else ["The input file is empty."]


def read_request(request: Any, key: str, model: str, note: str | None) -> Request:
    """A GenerateContentRequest. LineError or ValueError says what is wrong with it."""
    if not isinstance(request, dict):
        raise LineError("invalid", "The request is missing.")
    named = renamed(request, REQUEST_FIELDS)
    config = renamed(member(named, "generationConfig"), GENERATION_FIELDS)
    contents = named.get("contents")
    if not isinstance(contents, list) or not contents:
        raise LineError("invalid", "contents are not specified")
    parts = [named["systemInstruction"], *contents] if "systemInstruction" in named else contents
    prompt = "\n\n".join(map(text_of, parts))
    most = config.get("maxOutputTokens")
    if most is not None and (not isinstance(most, int) or most < 1):
        raise LineError("invalid", "maxOutputTokens must be a positive whole number")
    return Request(key, prompt, model, schema_of(config), most, note=note)


def renamed(values: Json, known: set[str]) -> Json:
    named = {camel(name): value for name, value in values.items()} if any("_" in name for name in values) else values
    for name in named.keys() - known:
        raise LineError("invalid", f'Invalid JSON payload received. Unknown name "{name}"')
    return named


def text_of(content: Any) -> str:
    try:
        return "\n\n".join(part["text"] for part in content["parts"] if "text" in part)
    except (KeyError, TypeError):
        raise LineError("invalid", "each of contents must have parts") from None


def schema_of(config: Json) -> str | None:
    """As JSON Schema, whichever of the two kinds is given."""
    given = [name for name in ("responseSchema", "responseJsonSchema") if config.get(name) is not None]
    if not given:
        return None
    if len(given) > 1:
        raise LineError("invalid", "responseSchema and responseJsonSchema exclude each other")
    if config.get("responseMimeType") != "application/json":
        raise LineError("invalid", f"{given[0]} needs the responseMimeType application/json")
    schema = dump_schema(config[given[0]])
    if schema is None:
        raise LineError("invalid", f"{given[0]} must be an object")
    return to_json_schema(schema) if given[0] == "responseSchema" else schema


def member(values: Any, name: str) -> Json:
    """An object in another one, by its name in camelCase and with its members' names so; empty if there is none."""
    value = values.get(name) if isinstance(values, dict) else None
    return {camel(key): inner for key, inner in value.items()} if isinstance(value, dict) else {}


def dump(value: object) -> str:
    return orjson.dumps(value).decode()
