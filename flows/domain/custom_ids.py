"""The custom_id of a request: `<tag>-<request>-<attempt>`, never reused.

It proves which request, and which submission of it, an answer belongs to. The tag of the batch is
`<run>-<batch>-<random>`: a copy of the state directory numbers its batches alike, but draws other tags.
"""

from __future__ import annotations

LONGEST_ID = "x" * 48  # placeholder for measuring a request that has no custom_id yet


def custom_id(tag: str, request: int, attempt: int) -> str:
    """The custom_id of a request in the batch with this tag."""
    return f"{tag}-{request}-{attempt}"


def parse_custom_id(text: str, prefix: str) -> tuple[int, int] | None:
    """Request and attempt; None for an id of another batch. `prefix`: the batch's tag and a hyphen."""
    if not text.startswith(prefix):
        return None
    request, _, attempt = text[len(prefix) :].partition("-")
    if not (request.isdecimal() and attempt.isdecimal()):
        return None
    return int(request), int(attempt)
