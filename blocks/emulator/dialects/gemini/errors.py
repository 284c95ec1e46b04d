"""Google's errors: an HTTP status, its name, and details."""

from blocks.emulator.wire.calls import CallError
from blocks.emulator.wire.lines import Json

GOOGLE = "type.googleapis.com/google"
STATUS_WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class StatusError(CallError):
    """An error with details, and with a word of its own if its status has several."""

    def __init__(self, status: int, message: str, *details: Json, word: str = "") -> None:
        super().__init__(status, word or STATUS_WORDS[status], message)
        self.details = details


def error_json(error: CallError) -> Json:
    """`{"error": {"code", "message", "status"}}`, with `details` if there are any."""
    known = isinstance(error, StatusError)
    word = error.code if known else STATUS_WORDS.get(error.status, "INTERNAL")
    shown: Json = {"code": error.status, "message": error.message, "status": word}
    if isinstance(error, StatusError) and error.details:
        shown["details"] = list(error.details)
    return {"error": shown}


def invalid_key() -> StatusError:
    """A wrong key is a 400 here."""
    reason = {"@type": f"{GOOGLE}.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
    return StatusError(400, "API key not valid. Please pass a valid API key.", reason)


def quota_error(error: CallError, retry_after: float) -> StatusError:
    """The refusal of a create: the time to wait is in the body, whatever header is switched on, unless none is."""
    if error.code == "insufficient_quota":
        violation = {"quotaMetric": "generativelanguage.googleapis.com/batch", "quotaId": "SpendCap"}
        failure = {"@type": f"{GOOGLE}.rpc.QuotaFailure", "violations": [violation]}
        message = "You exceeded your current quota, please check your plan and billing details."
        return StatusError(429, message, failure)
    delay = {"@type": f"{GOOGLE}.rpc.RetryInfo", "retryDelay": f"{retry_after:g}s"}
    return StatusError(429, "Resource has been exhausted.", *([delay] if error.headers else []))
