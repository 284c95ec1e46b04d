"""Bodies of chat completions, which more than one provider takes."""

from itertools import pairwise
from typing import Any

from blocks.emulator.wire.lines import Json, LineError, dump_schema, member, required


def read_chat(body: Json) -> tuple[str, str | None]:
    """Prompt and schema of a body for `/v1/chat/completions`. Raises LineError."""
    messages = required(body, "messages", list, "body.")
    form = member(body, "response_format")
    schema = member(form, "json_schema").get("schema") if form.get("type") == "json_schema" else None
    return read_messages(messages, "body.messages"), dump_schema(schema)


def read_messages(messages: list[Any], param: str) -> str:
    """The texts of all messages. Raises LineError."""
    try:
        return "\n\n".join(text_of(message["content"]) for message in messages)
    except (KeyError, TypeError):
        raise LineError("invalid_request", f"Each of '{param}' must have a content.", param) from None


def repeats_role(messages: Any) -> bool:
    """Whether two messages of one role follow each other."""
    roles = [message.get("role") for message in messages] if isinstance(messages, list) else []
    return any(first == second for first, second in pairwise(roles))


def text_of(content: Any) -> str:
    """The text of a message; parts that are not text are skipped."""
    if isinstance(content, str):
        return content
    return "\n\n".join(part["text"] for part in content or () if "text" in part)
