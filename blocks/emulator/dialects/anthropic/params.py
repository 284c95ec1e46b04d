"""The `params` of one request of a message batch: what is asked, or what Anthropic would say is wrong with it.

What decides is `anthropic-version` of the create. Models are known by their names alone: any name is accepted, the
rules for older models hold for those named as such. Tools of Anthropic's own (with a `type`) are accepted and not used.
"""

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from blocks.emulator.dialects.anthropic.schemas import SchemaError, sound_schema, words
from blocks.emulator.wire.lines import Json

OLD_VERSION, VERSION = "2023-06-01", "2026-10-21"
SAMPLING = {"temperature": 1, "top_p": 1, "top_k": None}  # with their defaults
KNOWN = words("""
    model max_tokens messages system tools tool_choice output_config thinking stop_sequences metadata cache_control
    service_tier inference_geo container temperature top_p top_k stream user_profile_id diagnostics mcp_servers
    context_management
""")
NOT_IN_BATCHES = ("stream", "speed", "store", "previous_thread_event_id", "cache_hint", "context_hint")
BLOCKS = words("""
    text image document search_result thinking redacted_thinking tool_use tool_result server_tool_use
    web_search_tool_result container_upload
""")
ROLES = ("user", "assistant", "system")
EFFORTS = ("low", "medium", "high", "xhigh", "max")
TTLS = ("5m", "1h")
MOST_MESSAGES, MOST_BREAKPOINTS, MOST_STRICT_TOOLS = 100_000, 4, 20
LEAST_THINKING = 1024
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
WITH_SAMPLING = re.compile(r"claude-(3|(haiku|sonnet|opus)-4(-[0-6])?(-\d{8})?$)")  # the values are theirs to choose
WITH_PREFILL = re.compile(r"claude-(3|(haiku|sonnet|opus)-4(-[0-5])?(-\d{8})?$)")
CACHED_FROM = {  # tokens of the shortest beginning that is cached; the longest name that fits decides
    "claude-opus-5": 512,
    "claude-fable-5": 512,
    "claude-opus-4-7": 2048,
    "claude-opus-4-6": 4096,
    "claude-opus-4-5": 4096,
    "claude-haiku-4-5": 4096,
    "": 1024,
}


class ParamsError(ValueError):
    """What is wrong with a request."""


class Part(NamedTuple):
    """A piece of what is asked; `ttl` where everything up to its end is to be cached."""

    text: str
    ttl: str | None
    is_prompt: bool = True


class Segment(NamedTuple):
    """A beginning that is to be cached: what it is known by, and how long it is."""

    key: str
    tokens: int
    ttl: str


class Asked(NamedTuple):
    """A request as it was understood. `tool` is the one that has to be used."""

    prompt: str
    schema: str | None
    tool: str | None
    segments: list[Segment]


def read_params(params: Json, version: str) -> Asked:
    """ParamsError says what is wrong."""
    check_fields(params, version)
    model = read_text(params, "model")
    most = read_count(params.get("max_tokens"), "max_tokens")
    check_sampling(params, model, version)
    check_thinking(params.get("thinking"), most)
    tools = read_tools(params.get("tools"))
    tool = forced_tool(params, tools)
    parts = [*tool_parts(tools), *system_parts(params.get("system")), *message_parts(params, model, version)]
    schema = tool_schema(tool) if tool else format_schema(params.get("output_config"))
    if (ttl := read_ttl(params, "cache_control")) is not None:
        parts[-1] = parts[-1]._replace(ttl=ttl)
    prompt = "\n\n".join(part.text for part in parts if part.is_prompt and part.text)
    return Asked(prompt, schema, tool["name"] if tool else None, cached_segments(parts, model))


def check_fields(params: Json, version: str) -> None:
    for name in NOT_IN_BATCHES:
        if params.get(name):
            raise ParamsError(f"{name}: not supported in message batches")
    for name in params:
        if name not in KNOWN and name not in NOT_IN_BATCHES:
            raise ParamsError(f"{name}: Extra inputs are not permitted")
    if version == VERSION:
        for name in SAMPLING:
            if params.get(name) is not None:
                raise ParamsError(f"{name}: not supported with anthropic-version {version}")
    sequences = params.get("stop_sequences") or []
    if not isinstance(sequences, list) or not all(isinstance(each, str) and each.strip() for each in sequences):
        raise ParamsError("stop_sequences: each stop sequence must contain non-whitespace")


def check_sampling(params: Json, model: str, version: str) -> None:
    if version == VERSION:
        return
    for name, default in SAMPLING.items():
        value = params.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ParamsError(f"{name}: Input should be a valid number")
        if value not in (None, default) and not WITH_SAMPLING.match(model) and model.startswith("claude-"):
            raise ParamsError(f"{name}: only the default value is supported by {model}")
    for name in ("temperature", "top_p"):
        if params.get(name) is not None and not 0 <= params[name] <= 1:
            raise ParamsError(f"{name}: range: 0..1")


def check_thinking(thinking: Any, most: int) -> None:
    if thinking is None:
        return
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind not in ("enabled", "disabled", "adaptive"):
        raise ParamsError("thinking: type must be one of enabled, disabled, adaptive")
    if kind == "enabled":
        budget = read_count(thinking.get("budget_tokens"), "thinking.enabled.budget_tokens", LEAST_THINKING)
        if budget >= most:
            raise ParamsError("max_tokens: must be greater than thinking.budget_tokens")


def read_text(values: Json, name: str) -> str:
    value = values.get(name)
    if value is None:
        raise ParamsError(f"{name}: Field required")
    if not isinstance(value, str) or not value:
        raise ParamsError(f"{name}: Input should be a valid string with at least 1 character")
    return value


def read_count(value: Any, name: str, least: int = 1) -> int:
    if value is None:
        raise ParamsError(f"{name}: Field required")
    if not isinstance(value, int) or isinstance(value, bool):
        raise ParamsError(f"{name}: Input should be a valid integer")
    if value < least:
        raise ParamsError(f"{name}: Input should be greater than or equal to {least}")
    return value


def read_ttl(block: Json, where: str) -> str | None:
    """How long what ends with this block is to be cached; None if it is not."""
    control = block.get("cache_control")
    if control is None:
        return None
    if not isinstance(control, dict) or control.get("type") != "ephemeral":
        raise ParamsError(f"{where}: cache_control.type must be 'ephemeral'")
    ttl = control.get("ttl", "5m")
    if ttl not in TTLS:
        raise ParamsError(f"{where}: cache_control.ttl must be one of {', '.join(TTLS)}")
    return str(ttl)


def read_tools(tools: Any) -> list[Json]:
    if tools is None:
        return []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ParamsError("tools: Input should be a valid list of objects")
    for index, tool in enumerate(tools):
        if tool.get("type", "custom") == "custom":
            check_tool(tool, f"tools.{index}")
    if len({tool.get("name") for tool in tools}) < len(tools):
        raise ParamsError("tools: Tool names must be unique.")
    if sum(bool(tool.get("strict")) for tool in tools) > MOST_STRICT_TOOLS:
        raise ParamsError(f"tools: at most {MOST_STRICT_TOOLS} tools can be strict")
    return tools


def check_tool(tool: Json, where: str) -> None:
    if not isinstance(tool.get("name"), str) or not TOOL_NAME.fullmatch(tool["name"]):
        raise ParamsError(f"{where}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
    schema = tool.get("input_schema")
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise ParamsError(f"{where}.custom.input_schema.type: Input should be 'object'")
    if tool.get("strict"):
        sound(schema, f"{where}.custom.input_schema")


def forced_tool(params: Json, tools: Sequence[Json]) -> Json | None:
    """The tool that the answer has to use. Of several that would do it is the first."""
    choice = params.get("tool_choice")
    if choice is None:
        return None
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in ("auto", "any", "tool", "none"):
        raise ParamsError("tool_choice: type must be one of auto, any, tool, none")
    if not tools:
        raise ParamsError("tool_choice: may only be specified while providing tools")
    if kind not in ("any", "tool"):
        return None
    if (params.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        raise ParamsError("Thinking may not be enabled when tool_choice forces tool use.")
    usable = [tool for tool in tools if "input_schema" in tool]
    named = [tool for tool in usable if kind == "any" or tool["name"] == choice.get("name")]
    if not named:
        raise ParamsError(f"tool_choice: Tool '{choice.get('name')}' not found in provided tools")
    return named[0]


def format_schema(config: Any) -> str | None:
    """The schema that the answer has to fit, if one is given."""
    if config is None:
        return None
    if not isinstance(config, dict) or not config.keys() <= {"format", "effort"}:
        raise ParamsError("output_config: only format and effort are known")
    if config.get("effort") not in (None, *EFFORTS):
        raise ParamsError(f"output_config.effort: Input should be one of {', '.join(EFFORTS)}")
    form = config.get("format")
    if form is None:
        return None
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        raise ParamsError("output_config.format.type: Input should be 'json_schema'")
    if not isinstance(form.get("schema"), dict):
        raise ParamsError("output_config.format.schema: Field required")
    return sound(form["schema"], "output_config.format.schema")


def tool_schema(tool: Json) -> str:
    """Only that of a strict tool has limits."""
    schema = tool["input_schema"]
    return sound(schema, "tools") if tool.get("strict") else orjson.dumps(schema).decode()


def sound(schema: Json, where: str) -> str:
    """JSON text of a schema."""
    try:
        return sound_schema(orjson.dumps(schema).decode())
    except SchemaError as error:
        raise ParamsError(f"{where}: {error}") from None


def tool_parts(tools: Sequence[Json]) -> Iterator[Part]:
    """Tools come first in what is cached, but are no part of the prompt."""
    for index, tool in enumerate(tools):
        yield Part(orjson.dumps(tool).decode(), read_ttl(tool, f"tools.{index}"), is_prompt=False)


def system_parts(system: Any) -> Iterator[Part]:
    if system is None:
        return
    if isinstance(system, str):
        yield Part(system, None)
        return
    if not isinstance(system, list):
        raise ParamsError("system: Input should be a valid string or list")
    for index, block in enumerate(system):
        if not isinstance(block, dict) or block.get("type") != "text" or not isinstance(block.get("text"), str):
            raise ParamsError(f"system.{index}: Input should be a text block")
        yield text_part(block, f"system.{index}")


def message_parts(params: Json, model: str, version: str) -> Iterator[Part]:
    messages = params.get("messages")
    if messages is None:
        raise ParamsError("messages: Field required")
    if not isinstance(messages, list) or not messages:
        raise ParamsError("messages: at least one message is required")
    if len(messages) > MOST_MESSAGES:
        raise ParamsError(f"messages: at most {MOST_MESSAGES} messages are allowed")
    for index, message in enumerate(messages):
        yield from one_message_parts(message, f"messages.{index}", version)
    if messages[-1]["role"] == "assistant" and model.startswith("claude-") and not WITH_PREFILL.match(model):
        raise ParamsError(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )


def one_message_parts(message: Any, where: str, version: str) -> Iterator[Part]:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise ParamsError(f"{where}.role: Input should be 'user' or 'assistant'")
    content = message.get("content")
    if not content:
        raise ParamsError(f"{where}: all messages must have non-empty content")
    if isinstance(content, str):
        yield Part(content, None)
        return
    if not isinstance(content, list):
        raise ParamsError(f"{where}.content: Input should be a valid string or list")
    for index, block in enumerate(content):
        place = f"{where}.content.{index}"
        if not isinstance(block, dict) or block.get("type") not in BLOCKS:
            raise ParamsError(f"{place}: Input tag does not match any of the expected tags")
        if version == VERSION:
            check_block(block, message["role"], place)
        yield text_part(block, place) if block["type"] == "text" else Part("", read_ttl(block, place))


def check_block(block: Json, role: str, place: str) -> None:
    """What the newer version takes no longer."""
    if role == "assistant" and block["type"] == "document":
        raise ParamsError(f"{place}: document blocks are not supported in assistant messages")
    if role == "user" and block["type"] == "text" and block.get("citations"):
        raise ParamsError(f"{place}.citations: not supported in user messages")


def text_part(block: Json, place: str) -> Part:
    text = block.get("text")
    if not isinstance(text, str) or not text:
        raise ParamsError(f"{place}: text content blocks must be non-empty")
    return Part(text, read_ttl(block, place))


def cached_segments(parts: Sequence[Part], model: str) -> list[Segment]:
    """Where what is to be cached ends; what is too short for that is passed over, as the service does."""
    ttls = [part.ttl for part in parts if part.ttl]
    if not ttls:
        return []
    if len(ttls) > MOST_BREAKPOINTS:
        raise ParamsError(
            f"A maximum of {MOST_BREAKPOINTS} blocks with cache_control may be provided. Found {len(ttls)}."
        )
    if ttls != sorted(ttls):
        raise ParamsError("a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block")
    return [segment for segment in all_segments(parts, model) if segment.tokens >= least_cached(model)]


def all_segments(parts: Sequence[Part], model: str) -> Iterator[Segment]:
    digest, size = blake2b(model.encode(), digest_size=8), 0
    for part in parts:
        text = part.text.encode()
        digest.update(text)
        size += len(text)
        if part.ttl:
            yield Segment(digest.hexdigest(), size // 4, part.ttl)


def least_cached(model: str) -> int:
    return CACHED_FROM[max((name for name in CACHED_FROM if model.startswith(name)), key=len)]
