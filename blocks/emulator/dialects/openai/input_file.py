"""The requests of an uploaded file, and the errors that OpenAI reports while it validates the batch (§3.3)."""

from typing import IO

import orjson

from blocks.emulator.dialects.chat import repeats_role
from blocks.emulator.dialects.openai.bodies import FORMS
from blocks.emulator.service.batch import Request
from blocks.emulator.wire.lines import Json, LineError, LineRequests, Lines, parse_line, required

MAX_ERRORS = 100  # shown of an invalid file
TOKEN_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")  # the last one of responses
MAX_TOKENS = 1 << 40  # of an answer; a higher limit has no effect


def error_json(error: LineError, line: int | None = None) -> Json:
    """An error as a failed batch shows it."""
    return {"code": error.code, "message": str(error), "param": error.param, "line": line}


class InputFile(LineRequests):
    """The requests of a file; `model` is known once it has been checked."""

    def __init__(self, content: IO[bytes], endpoint: str) -> None:
        super().__init__(Lines(content), self._request)
        self._endpoint = endpoint
        self.model = ""

    @property
    def tokens(self) -> int:
        """A rough count, for the limit of enqueued tokens."""
        return self._lines.tokens

    def check(self, max_requests: int) -> list[Json]:
        """Read the file once. Returns its errors as the batch shows them."""
        errors: list[Json] = []
        known: set[str] = set()
        for number, line in enumerate(self._lines.read(), 1):
            if number > max_requests:
                message = f"The batch input file contains too many requests. The maximum is {max_requests} requests."
                return [error_json(LineError("too_many_tasks", message))]
            try:
                self._check_line(line, known)
            except LineError as error:
                errors.append(error_json(error, number))
                if len(errors) == MAX_ERRORS:
                    break
        return errors if len(self) else [error_json(LineError("empty_file", "The input file is empty."))]

    def _request(self, text: bytes) -> Request:
        line = orjson.loads(text)
        body = line["body"]
        prompt, schema = FORMS[self._endpoint].read(body)
        repeats = repeats_role(body.get("messages") or body.get("input"))
        return Request(line["custom_id"], prompt, self.model, schema, token_limit(body), repeats_role=repeats)

    def _check_line(self, text: bytes, known: set[str]) -> None:
        line = parse_line(text)
        custom_id = required(line, "custom_id", str)
        if custom_id in known:
            message = f"The custom_id '{custom_id}' for this request is a duplicate of another request."
            raise LineError("duplicate_custom_id", message, "custom_id")
        known.add(custom_id)
        if required(line, "method", str) != "POST":
            raise LineError("invalid_method", "The method must be POST.", "method")
        if required(line, "url", str) != self._endpoint:
            raise LineError("url_mismatch", "The URL of this request is not the endpoint of the batch.", "url")
        body = required(line, "body", dict)
        model = required(body, "model", str, "body.")
        self.model = self.model or model
        if model != self.model:
            message = f"The model '{model}' does not match the rest of the batch ('{self.model}')."
            raise LineError("mismatched_model", message, "body.model")
        FORMS[self._endpoint].read(body)


def token_limit(body: Json) -> int | None:
    """How many tokens an answer may have."""
    limits = [body[name] for name in TOKEN_LIMITS if type(body.get(name)) is int and 0 < body[name] < MAX_TOKENS]
    return min(limits, default=None)
