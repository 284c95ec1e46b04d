"""The lines of a batch's results (§2.4), and the prompt cache that their usage reports (§2.9)."""

from collections import Counter
from collections.abc import Sequence

import orjson

from blocks.emulator.service.batch import Item, Outcome
from blocks.emulator.service.faults import draw
from blocks.emulator.service.service import Service
from blocks.emulator.wire.lines import Json

WARM_UP, HIT_SHARE = 4, 0.9
DATED = {
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-opus-4-5": "claude-opus-4-5-20251101",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
}
KINDS = {  # of a result; absent ones count as expired
    Outcome.CANCELLED: "canceled",
    Outcome.EXPIRED: "expired",
    Outcome.FAILED: "errored",
    Outcome.UNEXPLAINED: "errored",
    Outcome.TIMED_OUT: "errored",
    Outcome.REJECTED: "errored",
}
COUNTS = ("succeeded", "errored", "canceled", "expired")
STOP_REASONS = {Outcome.REFUSED: "refusal", Outcome.TRUNCATED: "max_tokens"}
Segments = Sequence[tuple[str, int, str]]  # key, tokens and time to live of each prefix that is to be cached


class Cache:
    """What the answers of a batch read from the cache, and what they write to it."""

    def __init__(self, hit_share: float) -> None:
        self._hit_share = hit_share
        self._times: Counter[str] = Counter()

    def use(self, segments: Segments, luck: float) -> tuple[int, dict[str, int]]:
        """Tokens that are read, and those that are written by time to live. `luck` is from 0 to 1, lower is better."""
        read = 0
        if luck < self._hit_share:
            read = max((tokens for key, tokens, _ in segments if self._times[key] >= WARM_UP), default=0)
        written, done = {"5m": 0, "1h": 0}, read
        for key, tokens, ttl in segments:
            self._times[key] += 1
            written[ttl] += max(0, tokens - done)
            done = max(done, tokens)
        return read, written


class RowWriter:
    """Makes the lines of a batch's results, and keeps count."""

    def __init__(self, number: int, service: Service) -> None:
        self._number = number
        self._seed = service.options.seed
        self._cache = Cache(service.options.cached_share or HIT_SHARE)
        self._usage_is_missing = service.usage_is_missing
        self._kinds: Counter[str] = Counter()
        self._rows = 0

    def __call__(self, item: Item) -> bytes:
        self._rows += 1
        kind = KINDS.get(item.outcome, "succeeded")
        self._kinds[kind] += 1
        name = f"01{self._number:08x}{self._rows:014x}"
        result: Json = {"type": kind}
        if kind == "succeeded":
            result["message"] = self._message(item, name)
        elif kind == "errored":
            result["error"] = {"type": "error", "error": row_error(item), "request_id": f"req_{name}"}
        return orjson.dumps({"custom_id": item.custom_id, "result": result}, option=orjson.OPT_APPEND_NEWLINE)

    def counts(self, total: int) -> dict[str, int]:
        """The batch's counters by kind, which add up to all; absent rows count as expired."""
        missing = total - self._rows
        return {kind: self._kinds[kind] + (missing if kind == "expired" else 0) for kind in COUNTS}

    def _message(self, item: Item, name: str) -> Json:
        refused = item.outcome is Outcome.REFUSED
        message: Json = {
            "model": DATED.get(item.model, item.model),
            "id": f"msg_{name}",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": item.text}],
            "stop_reason": STOP_REASONS.get(item.outcome, "end_turn"),
            "stop_sequence": None,
            "stop_details": {"type": "refusal", "category": None, "explanation": None} if refused else None,
        }
        usage = self._usage(item, orjson.loads(item.note) if item.note else ())
        return message if self._usage_is_missing(item) else {**message, "usage": usage}

    def _usage(self, item: Item, segments: Segments) -> Json:
        read, written = 0, {"5m": 0, "1h": 0}
        if segments:
            read, written = self._cache.use(segments, draw("cache", self._seed, item.prompt_hash, item.attempt))
        read = min(read, item.input_tokens)
        new = {ttl: min(tokens, item.input_tokens - read) for ttl, tokens in written.items()}
        new["5m"] = min(new["5m"], item.input_tokens - read - new["1h"])
        return {
            "input_tokens": item.input_tokens - read - new["5m"] - new["1h"],
            "cache_creation_input_tokens": new["5m"] + new["1h"],
            "cache_read_input_tokens": read,
            "cache_creation": {"ephemeral_5m_input_tokens": new["5m"], "ephemeral_1h_input_tokens": new["1h"]},
            "output_tokens": item.output_tokens,
            "output_tokens_details": {"thinking_tokens": 0},
            "service_tier": "batch",
            "inference_geo": "global",
        }


def row_error(item: Item) -> Json:
    """The error of a row that was not answered (§2.7)."""
    if item.outcome is Outcome.REJECTED:
        return {"type": "invalid_request_error", "message": item.rejection}
    if item.outcome is Outcome.TIMED_OUT:
        return {"type": "timeout_error", "message": "Request timed out."}
    if item.outcome is Outcome.UNEXPLAINED:
        return {"type": "api_error", "message": ""}
    if item.prompt_hash % 2:
        return {"type": "overloaded_error", "message": "Overloaded"}
    return {"type": "api_error", "message": "Internal server error"}
