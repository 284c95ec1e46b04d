"""Errors as Gemini writes them, of calls and of rows (docs/wire-protocols.md, §5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from blocks.batch import (
    Failure,
    FailureKind,
)
from blocks.errors import Complaint
from blocks.providers.lenient import array, count_of, mapping, string

# The numbers of google.rpc.Code: rows have these where calls have the HTTP statuses beside them.
_RPC = {
    1: ("CANCELLED", 499), 2: ("UNKNOWN", 500), 3: ("INVALID_ARGUMENT", 400), 4: ("DEADLINE_EXCEEDED", 504),
    5: ("NOT_FOUND", 404), 6: ("ALREADY_EXISTS", 409), 7: ("PERMISSION_DENIED", 403), 8: ("RESOURCE_EXHAUSTED", 429),
    9: ("FAILED_PRECONDITION", 400), 10: ("ABORTED", 409), 11: ("OUT_OF_RANGE", 400), 12: ("UNIMPLEMENTED", 501),
    13: ("INTERNAL", 500), 14: ("UNAVAILABLE", 503), 15: ("DATA_LOSS", 500), 16: ("UNAUTHENTICATED", 401),
}  # fmt: skip
_STATUSES = dict(_RPC.values())
_NAMES = {status: name for name, status in reversed(_RPC.values())}
TRANSIENT_STATUSES = {408, 409, 425, 429}
# Reasons that say more than the status: a wrong key is a 400.
BAD_KEY, NO_BILLING = "API_KEY_INVALID", "BILLING_DISABLED"


def complaint_of(error: Any) -> tuple[str, int | None, str]:
    """Name, HTTP status and sentence of an error."""
    if not isinstance(error, Mapping):
        return "", None, string(error)
    code, named, message = count_of(error.get("code")), string(error.get("status")), string(error.get("message"))
    if code in _RPC:
        name, status = _RPC[code]
        return named or name, status, message
    name = named or _NAMES.get(code or 0, "" if code is None else f"http_{code}")
    return name, _STATUSES.get(name) if code is None else code, message


def is_error(error: Any) -> bool:
    """Whether something is said; the number 0 says that all went well."""
    return bool(error) and not (isinstance(error, Mapping) and count_of(error.get("code")) == 0)


def row_failure(error: Any) -> Failure:
    """An error by its HTTP status; what was cancelled was not run."""
    name, status, message = complaint_of(error)
    kind = FailureKind.TRANSIENT
    if status == _STATUSES["CANCELLED"]:
        kind = FailureKind.NOT_RUN
    elif status in range(400, 500) and status not in TRANSIENT_STATUSES:
        kind = FailureKind.TERMINAL
    return Failure(kind, name or "unknown", message or "the provider gave no reason")


def read_error(body: Any) -> Complaint:
    """`{"error": {"code", "message", "status", "details"}}`, perhaps in a list; the delay stands in the details."""
    listed = array(body)
    error = mapping(mapping(listed[0] if listed else body).get("error"))
    name, _, message = complaint_of(error)
    details = [mapping(detail) for detail in array(error.get("details"))]
    reasons = [string(detail.get("reason")) for detail in details]
    telling = [reason for reason in reasons if reason in {BAD_KEY, NO_BILLING}]
    delays = [delay for detail in details if (delay := _seconds(detail.get("retryDelay"))) is not None]
    return Complaint((telling or [name])[0] or None, message, delays[0] if delays else None)


def _seconds(duration: Any) -> float | None:
    """A duration as protocol buffers write it in JSON: `37s`."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)s", string(duration))
    return None if found is None else float(found[1])
