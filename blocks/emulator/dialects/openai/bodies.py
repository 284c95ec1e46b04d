"""Bodies of requests and of answers, by endpoint, and the lines of a batch's files (§3.3, §3.5)."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import orjson

from blocks.emulator.dialects.chat import read_chat, read_messages
from blocks.emulator.dialects.openai.objects import OUTPUT, snapshot, usage_json
from blocks.emulator.service.batch import Batch, Item, Outcome
from blocks.emulator.wire.lines import Json, dump_schema, member, required

ROW_ERRORS = {
    Outcome.CANCELLED: ("batch_cancelled", "This request was not executed before the batch was cancelled."),
    Outcome.EXPIRED: ("batch_expired", "This request could not be executed before the completion window expired."),
    Outcome.TIMED_OUT: ("request_timeout", "This request could not be completed before the model's time limit."),
}
SERVER_ERROR = {
    "message": "The server had an error while processing your request. Sorry about that!",
    "type": "server_error",
    "param": None,
    "code": None,
}


def read_response(body: Json) -> tuple[str, str | None]:
    """Prompt and schema of a body for `/v1/responses`. Raises LineError."""
    asked = body.get("input")
    prompt = asked if isinstance(asked, str) else read_messages(required(body, "input", list, "body."), "body.input")
    if instructions := body.get("instructions"):
        prompt = f"{instructions}\n\n{prompt}"
    form = member(member(body, "text"), "format")
    return prompt, dump_schema(form.get("schema") if form.get("type") == "json_schema" else None)


def chat_body(item: Item, common: Json, name: str, cached: int) -> Json:
    """An answer of `/v1/chat/completions`."""
    refused = item.outcome is Outcome.REFUSED
    message: Json = {
        "role": "assistant",
        "content": None if refused else item.text,
        "refusal": item.text if refused else None,
        "annotations": [],
    }
    reason = "length" if item.outcome is Outcome.TRUNCATED else "stop"
    return {
        "id": f"chatcmpl-{name}",
        "object": "chat.completion",
        "created": common["at"],
        "model": common["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
        "usage": {
            "prompt_tokens": item.input_tokens,
            "completion_tokens": item.output_tokens,
            "total_tokens": item.input_tokens + item.output_tokens,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": None,
    }


def response_body(item: Item, common: Json, name: str, cached: int) -> Json:
    """An answer of `/v1/responses`."""
    status = "incomplete" if item.outcome is Outcome.TRUNCATED else "completed"
    content: Json = {"type": "output_text", "annotations": [], "logprobs": [], "text": item.text}
    if item.outcome is Outcome.REFUSED:
        content = {"type": "refusal", "refusal": item.text}
    message = {"id": f"msg_{name}", "type": "message", "status": status, "role": "assistant", "content": [content]}
    usage = usage_json(item.input_tokens, item.output_tokens, cached)
    usage["input_tokens_details"]["cache_write_tokens"] = 0
    return {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": common["at"],
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": None,
        "metadata": {},
        "model": common["model"],
        "output": [message],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage,
    }


class BodyForm(NamedTuple):
    """How the bodies of one endpoint are read and written; the last argument of `write` is the cached tokens."""

    read: Callable[[Json], tuple[str, str | None]]
    write: Callable[[Item, Json, str, int], Json]


FORMS = {
    "/v1/chat/completions": BodyForm(read_chat, chat_body),
    "/v1/responses": BodyForm(read_response, response_body),
}


class RowWriter:
    """Makes the lines of a batch's output and error file, and keeps count."""

    def __init__(self, batch: Batch, endpoint: str, cached_share: float, lacks_usage: Callable[[Item], bool]) -> None:
        self._number = batch.number
        self._total = batch.total
        self._common = {"at": int(batch.ended_at), "model": snapshot(batch.model)}
        self._write_body = FORMS[endpoint].write
        self._cached_share = cached_share
        self._lacks_usage = lacks_usage
        self._outcomes: Counter[Outcome] = Counter()
        self._rows = 0
        self._cached = 0

    def __call__(self, item: Item) -> bytes:
        self._outcomes[item.outcome] += 1
        self._rows += 1
        name = f"{self._number:08x}{self._rows:016x}"
        row = {"id": f"batch_req_{name}", "custom_id": item.custom_id, **self._result(item, name)}
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)

    def figures(self) -> Json:
        """What the batch object says about its rows."""
        unexplained = self._outcomes[Outcome.UNEXPLAINED]
        failed = sum(count for outcome, count in self._outcomes.items() if outcome not in OUTPUT) - unexplained
        return {"failed": failed, "unexplained": unexplained, "cached_tokens": self._cached}

    def _result(self, item: Item, name: str) -> Json:
        if item.outcome in OUTPUT:
            cached = int(item.input_tokens * self._cached_share)
            self._cached += cached
            body = self._write_body(item, self._common, name, cached)
            if self._lacks_usage(item):
                del body["usage"]
            return answered(200, name, body)
        if item.outcome is Outcome.UNEXPLAINED:
            return {"response": {"status_code": 0, "request_id": "", "body": {}}, "error": None}
        if item.outcome in ROW_ERRORS:
            code, message = ROW_ERRORS[item.outcome]
            return {"response": None, "error": {"code": code, "message": message}}
        if item.outcome is Outcome.REJECTED:
            error = {"message": item.rejection, "type": "invalid_request_error", "param": "messages", "code": None}
            return answered(400, name, {"error": error})
        return answered(500, name, {"error": SERVER_ERROR})


def answered(status: int, name: str, body: Json) -> Json:
    """The members of a row that has an HTTP answer."""
    return {"response": {"status_code": status, "request_id": f"req_{name}", "body": body}, "error": None}
